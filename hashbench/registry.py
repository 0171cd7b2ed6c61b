"""Names of methods and datasets, and what they stand for.

Three sources: the tables of the packages that come with hashbench, the entry-point groups `hashbench.methods`
and `hashbench.datasets` of installed packages, and plugin files. Listing reads names and source text only; a
plugin is imported when it is used.
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
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from importlib.metadata import entry_points, files
from pathlib import Path
from typing import Any, Literal

from hashbench.errors import HashbenchError, UsageError, quoted, unknown_name
from hashbench.plugin_files import (
    find_specs,
    import_file,
    module_name,
    parse_source,
    read_source,
    read_table,
)
from hashbench.sources import core_modules, is_within, plugin_modules

Kind = Literal["method", "dataset"]
BUILT_IN = "built-in"
_TABLES = {"method": ("hashbench_methods", "METHODS"), "dataset": ("hashbench_datasets", "DATASETS")}
_BASES = {"method": "hashbench.method.base:HashMethod", "dataset": "hashbench.data.dataset:DatasetPlugin"}
# Folders and modules of the core on which no number depends.
_NO_NUMBERS = ("cli", "report", "results", "runtime", "testing.py", "method/scaffold.py")
_plugin_files: list[Path] = []


@dataclass(frozen=True)
class Entry:
    """A name and what it stands for.

    Attributes:
        kind: "method" or "dataset".
        name: What the user types.
        target: `module:Class`, or `path/to/file.py:Class`.
        origin: Who says so: "built-in", "package NAME VERSION" or "file".
    """

    kind: Kind
    name: str
    target: str
    origin: str

    def load(self) -> type[Any]:
        """Import the class.

        Raises:
            HashbenchError: The import fails; the message names the plugin and the reason.
        """
        module, _, attribute = self.target.rpartition(":")
        module_of_base, _, name_of_base = _BASES[self.kind].partition(":")
        base = getattr(importlib.import_module(module_of_base), name_of_base)
        try:
            source_digest(self)  # now: a file that is edited later has no part in the runs of this process
            imported = import_file(Path(module)) if self.origin == "file" else importlib.import_module(module)
            plugin = getattr(imported, attribute)
        except (Exception, SystemExit) as error:  # whatever a plugin raises is its fault, and is said so
            raise HashbenchError(f"{self} cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise HashbenchError(f"{self} is not a class derived from {base.__module__}.{base.__name__}")
        return plugin

    def sources(self) -> list[Path]:
        """Return the Python files that the plugin consists of, that of its class or package first.

        They are its module, or all of its package, and all that these import: from beside a plugin file, from
        the same distribution, and from folders of source code on `sys.path`. The core of hashbench and other
        installed packages are not among them.
        """
        own, modules = self._own_file(), self._modules()
        return [own, *(modules[name] for name in sorted(modules) if modules[name] != own)] if own else []

    def recipe(self) -> Path | None:
        """The method's recipe: `recipe.yaml` beside its module, or FILE.yaml beside a plugin FILE.py."""
        file = self._own_file()
        if file is None:
            return None
        paths = [file.with_suffix(".yaml")] if self.origin == "file" else []
        return next((path for path in [*paths, file.with_name("recipe.yaml")] if path.is_file()), None)

    def summary(self) -> str:
        """First line of the docstring of the target's module, read without importing it."""
        try:
            file = self._own_file()
            docstring = ast.get_docstring(parse_source(file.read_bytes())) if file else None
        except (OSError, SyntaxError):  # it cannot be read
            return ""
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
        """Return the files of `sources` by the full names of their modules."""
        package = self.origin.split()[1:2] if self.origin.startswith("package ") else []
        installed = (file for name in package for file in files(name) or ())
        return plugin_modules(self._module(), {file.parts[0].removesuffix(".py") for file in installed})

    def __str__(self) -> str:
        return f"{self.kind} {quoted(self.name)} ({self.target}, {self.origin})"


def entries(kind: Kind) -> dict[str, Entry]:
    """All that is registered, by name; imports no plugin.

    Raises:
        UsageError: A name is claimed twice, or cannot be a folder's.
    """
    found: dict[str, Entry] = {}
    for entry in _all_entries(kind):
        if not re.fullmatch(r"\w[\w.+-]{,99}", entry.name):
            raise UsageError(
                f"{entry}: a name has letters, digits, _ and then . + -, 100 at most, since it becomes a "
                "folder's"
            )
        other = found.setdefault(entry.name, entry)
        if other != entry:
            raise UsageError(f"two plugins claim one name: {other} and {entry}; rename or remove one")
    return found


def find(kind: Kind, name: str) -> Entry:
    """The entry of a name.

    Raises:
        UsageError: There is none; the message suggests the nearest.
    """
    known = entries(kind)
    if not isinstance(name, str) or name not in known:
        raise unknown_name(kind, name, known)
    return known[name]


def add_plugin_file(path: Path) -> None:
    """Register the plugins of one file, without importing it.

    The file says what it holds: `METHODS = {"name": Class}` or `DATASETS = {"name": Class}`.

    Raises:
        UsageError: There is no such file, it is not Python, or it registers nothing.
    """
    path = path.resolve()
    if path.suffix != ".py" or "." in path.stem:
        raise UsageError(f"expected a plugin file NAME.py without another dot, got {path}; rename it")
    if not any(read_table(path, table) for _, table in _TABLES.values()):
        raise UsageError(
            f'{path} registers nothing; add METHODS = {{"name": Class}} or DATASETS = {{"name": Class}}'
        )
    if path not in _plugin_files:
        _plugin_files.append(path)


def broken(kind: Kind) -> dict[str, str]:
    """Plugins from outside that cannot be loaded, and why; they are imported in another process."""
    foreign = [entry for entry in entries(kind).values() if entry.origin != BUILT_IN]
    if not foreign:
        return {}
    request = json.dumps([astuple(entry) for entry in foreign])
    code = "from hashbench.registry import _report_broken; _report_broken()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=request,
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # of what a plugin prints
        check=False,
    )
    with suppress(IndexError, ValueError):
        if not done.returncode:
            reasons: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
            return reasons
    # A plugin took the whole process down.
    return {entry.name: f"importing it ended Python: {done.stderr[-200:]}" for entry in foreign}


def source_digest(*entries: Entry) -> str:
    """Hash of the code that numbers depend on: the plugins, and what of hashbench takes part in a run.

    It is that of the code when it was first asked for in this process, or loaded.
    """
    return hashlib.sha256(b"".join([_core_digest(), *map(_plugin_digest, entries)])).hexdigest()[:12]


@functools.cache
def _core_digest() -> bytes:
    modules = core_modules().items()
    return _digest(((path, file) for path, file in modules if not is_within(path, _NO_NUMBERS)), "")


@functools.cache
def _plugin_digest(entry: Entry) -> bytes:
    # Names of modules are the same wherever a folder lies; that of a plugin file's folder is not.
    folder = f"{entry._module().partition('.')[0]}." if entry.origin == "file" else ""
    modules = entry._modules().items()
    return _digest(((name.removeprefix(folder), file) for name, file in modules), entry.origin)


def _digest(modules: Iterable[tuple[str, Path]], origin: str) -> bytes:
    digest = hashlib.sha256(f"{origin}\0".encode())  # has the version, if there is no source
    for name, content in sorted((name, read_source(str(file))) for name, file in modules):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.digest()


def _all_entries(kind: Kind) -> Iterator[Entry]:
    package, table = _TABLES[kind]
    for name, target in getattr(importlib.import_module(package), table).items():
        yield Entry(kind, name, target, BUILT_IN)
    for point in entry_points(group=f"hashbench.{kind}s"):
        origin = f"package {point.dist.name} {point.dist.version}" if point.dist else "package"
        yield Entry(kind, point.name, point.value, origin)
    for path in _plugin_files:
        for name, attribute in read_table(path, table).items():
            yield Entry(kind, name, f"{path}:{attribute}", "file")


def _report_broken() -> None:
    """The other side of `broken`: reads entries from standard input, prints the reasons."""
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
    os._exit(0)  # before a plugin can write more
