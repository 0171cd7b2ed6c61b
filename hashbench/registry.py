"""The registry: methods and datasets by name.

Plugins come from three sources: the tables of the packages that ship with hashbench, the entry-point groups
`hashbench.methods` and `hashbench.datasets` of installed packages, and plugin files. Listing them reads only
names and source code; a plugin is imported when it is used.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from importlib.metadata import EntryPoints, entry_points, files
from pathlib import Path
from typing import Any, Literal

from hashbench.errors import HashbenchError, UsageError, quoted, unknown_name
from hashbench.plugin_files import (
    find_specs,
    import_file,
    module_name,
    parse_source,
    read_table,
)
from hashbench.run_id_sources import core_digest, digest_of, plugin_modules

Kind = Literal["method", "dataset"]
BUILT_IN = "built-in"
_TABLES = {"method": ("hashbench_methods", "METHODS"), "dataset": ("hashbench_datasets", "DATASETS")}
_BASES = {"method": "hashbench.method.base:HashMethod", "dataset": "hashbench.data.dataset:DatasetPlugin"}


@dataclass(frozen=True)
class Entry:
    """A registered plugin.

    Attributes:
        kind: "method" or "dataset".
        name: Name that the user types.
        target: `module:Class`, or `path/to/file.py:Class`.
        origin: Source of the plugin: "built-in", "package NAME VERSION" or "file".
    """

    kind: Kind
    name: str
    target: str
    origin: str

    def load(self) -> type[Any]:
        """Import the class of the plugin.

        Raises:
            HashbenchError: The import fails; the message names the plugin and the cause.
        """
        module, _, attribute = self.target.rpartition(":")
        module_of_base, _, name_of_base = _BASES[self.kind].partition(":")
        base = getattr(importlib.import_module(module_of_base), name_of_base)
        try:
            source_digest(self)  # before the import, so that later edits do not change the run ids
            imported = import_file(Path(module)) if self.origin == "file" else importlib.import_module(module)
            plugin = getattr(imported, attribute)
        except (Exception, SystemExit) as error:  # importing a plugin may raise anything
            raise HashbenchError(f"{self} cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise HashbenchError(f"{self} is not a class derived from {base.__module__}.{base.__name__}")
        return plugin

    def sources(self) -> list[Path]:
        """Return the Python files that the plugin consists of, beginning with the file of its class.

        They are its module, or all modules of its package, and what these import from the folder of a plugin
        file, from the same distribution and from source folders on `sys.path`. The core of hashbench and
        other installed packages are excluded.
        """
        own, modules = self._own_file(), self._modules()
        return [own, *(modules[name] for name in sorted(modules) if modules[name] != own)] if own else []

    def recipe(self) -> Path | None:
        """Return the recipe: NAME.yaml of a plugin file NAME.py, or `recipe.yaml` in the module's folder."""
        file = self._own_file()
        if file is None:
            return None
        paths = [file.with_suffix(".yaml")] if self.origin == "file" else []
        return next((path for path in [*paths, file.with_name("recipe.yaml")] if path.is_file()), None)

    def summary(self) -> str:
        """Return the first line of the module's docstring, or for FAMILY:NAME, of that of its class.

        The source code is read, but the module is not imported.
        """
        try:
            file = self._own_file()
            tree = parse_source(file.read_bytes()) if file else ast.Module([], [])
        except (OSError, SyntaxError):
            return ""
        own = self.target.rpartition(":")[2] if ":" in self.name else None
        node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == own), tree)
        docstring = ast.get_docstring(node)
        return docstring.splitlines()[0] if docstring else ""

    def _module(self) -> str:
        """Return the full name of the module."""
        module, _, _ = self.target.rpartition(":")
        return module_name(Path(module)) if self.origin == "file" else module

    def _own_file(self) -> Path | None:
        """Return the file of the module, if there is one."""
        specs = [*find_specs(self._module())]
        found = bool(specs) and specs[-1].name == self._module() and specs[-1].has_location
        return Path(str(specs[-1].origin)) if found else None

    def _modules(self) -> dict[str, Path]:
        """Return the files of `sources` by the full name of their module."""
        package = self.origin.split()[1:2] if self.origin.startswith("package ") else []
        installed = (file for name in package for file in files(name) or ())
        return plugin_modules(self._module(), {file.parts[0].removesuffix(".py") for file in installed})

    def __str__(self) -> str:
        return f"{self.kind} {quoted(self.name)} ({self.target}, {self.origin})"


@dataclass
class PluginFiles:
    """The plugin files that were registered in this process, in the order of their registration."""

    paths: list[Path] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Register the plugins of a file without importing it.

        The file lists them in a table: `METHODS = {"name": Class}` or `DATASETS = {"name": Class}`.

        Raises:
            UsageError: The file does not exist, is not Python, or has neither table.
        """
        path = path.resolve()
        if path.suffix != ".py" or "." in path.stem:
            raise UsageError(f"expected a plugin file NAME.py without another dot, got {path}; rename it")
        if not any(read_table(path, table) for _, table in _TABLES.values()):
            raise UsageError(
                f'{path} registers no plugin; add METHODS = {{"name": Class}} or DATASETS = {{"name": Class}}'
            )
        if path not in self.paths:
            self.paths.append(path)


PLUGIN_FILES = PluginFiles()
add_plugin_file = PLUGIN_FILES.add


def entries(kind: Kind) -> dict[str, Entry]:
    """Return all registered plugins of a kind by name, without importing them.

    Raises:
        UsageError: Two plugins have the same name, or a name cannot be used for a folder.
    """
    found: dict[str, Entry] = {}
    for entry in _all_entries(kind):
        family = r"(\w[\w.+-]*:)?" if kind == "dataset" else ""
        if not re.fullmatch(rf"(?=.{{1,100}}$){family}\w[\w.+-]*", entry.name):
            raise UsageError(
                f"{entry}: a name is used for a folder; expected a letter, a digit or _, and then only these "
                "and . + -, 100 characters at most; that of a dataset may be FAMILY:NAME"
            )
        other = found.setdefault(entry.name, entry)
        if other != entry:
            raise UsageError(f"two plugins have the same name: {other} and {entry}; rename or remove one")
    return found


def canonical_method(name: str) -> str:
    """Return the name of a method for one of its aliases; any other name as it is."""
    package, _ = _TABLES["method"]
    aliases: dict[str, str] = importlib.import_module(package).ALIASES
    return aliases.get(name, name)


def find(kind: Kind, name: str) -> Entry:
    """Return the plugin with a name, or the method with an alias.

    Raises:
        UsageError: The name is unknown; the message suggests the closest one.
    """
    known = entries(kind)
    if kind == "method" and isinstance(name, str):
        name = canonical_method(name)
    if not isinstance(name, str) or name not in known:
        raise unknown_name(kind, name, known)
    return known[name]


def broken(kind: Kind) -> dict[str, str]:
    """Find the third-party plugins that cannot be loaded, by importing them in another process.

    Returns:
        Name -> reason.
    """
    external = [entry for entry in entries(kind).values() if entry.origin != BUILT_IN]
    if not external:
        return {}
    request = json.dumps([astuple(entry) for entry in external])
    code = "from hashbench.registry import _report_broken; _report_broken()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=request,
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # a plugin may print anything
        check=False,
    )
    with suppress(IndexError, ValueError):
        if not done.returncode:
            reasons: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
            return reasons
    # A plugin ended the process.
    return {entry.name: f"importing it ended Python: {done.stderr[-200:]}" for entry in external}


def source_digest(*entries: Entry) -> str:
    """Return a hash of the code that results depend on: the plugins and the relevant modules of hashbench.

    The code is hashed once per process, when it is loaded or when its hash is first needed.
    """
    return hashlib.sha256(b"".join([core_digest(), *map(_plugin_digest, entries)])).hexdigest()[:12]


@functools.cache
def _plugin_digest(entry: Entry) -> bytes:
    # The package name of a plugin file contains its folder, which must not change the digest.
    folder = f"{entry._module().partition('.')[0]}." if entry.origin == "file" else ""
    modules = entry._modules().items()
    return digest_of(((name.removeprefix(folder), file) for name, file in modules), entry.origin)


def _all_entries(kind: Kind) -> Iterator[Entry]:
    package, table = _TABLES[kind]
    for name, target in getattr(importlib.import_module(package), table).items():
        yield Entry(kind, name, target, BUILT_IN)
    folders = tuple((name, Path(name).stat().st_mtime_ns) for name in sys.path if Path(name).exists())
    for point in _entry_points(f"hashbench.{kind}s", folders):
        origin = f"package {point.dist.name} {point.dist.version}" if point.dist else "package"
        yield Entry(kind, point.name, point.value, origin)
    for path in PLUGIN_FILES.paths:
        for name, attribute in read_table(path, table).items():
            yield Entry(kind, name, f"{path}:{attribute}", "file")


@functools.lru_cache(maxsize=8)
def _entry_points(group: str, _folders: tuple[tuple[str, int], ...]) -> EntryPoints:
    """Read the entry points of a group, again only after a package was installed.

    This opens the metadata of every installed package, and a single configuration asks dozens of times.

    Args:
        group: The group.
        _folders: The folders of packages, with the time of their last change.
    """
    return entry_points(group=group)


def _report_broken() -> None:
    """Load the entries from standard input and print why they fail; `broken` runs this in its own process."""
    reasons = {}
    for fields in json.load(sys.stdin):
        entry = Entry(*fields)
        try:
            entry.load()
        except HashbenchError as error:
            cause = error.__cause__
            reasons[entry.name] = f"{type(cause).__name__}: {cause}" if cause else str(error)
    sys.stdout.write("\n" + json.dumps(reasons) + "\n")
    sys.stdout.flush()
    os._exit(0)  # so that no exit handler of a plugin can print more
