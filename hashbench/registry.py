"""Names of methods and datasets, and what they stand for.

Three sources: the tables of the packages that come with hashbench, the entry-point groups `hashbench.methods`
and `hashbench.datasets` of installed packages, and plugin files. Listing reads names and source text only; a
plugin is imported when it is used.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from importlib.machinery import ModuleSpec
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.plugin_files import import_file, read_table

if TYPE_CHECKING:
    from hashbench.backbones import Backbone
    from hashbench.dataset import Dataset, DatasetPlugin
    from hashbench.method import HashMethod

Kind = Literal["method", "dataset"]
BUILT_IN = "built-in"
_TABLES = {"method": ("hashbench_methods", "METHODS"), "dataset": ("hashbench_datasets", "DATASETS")}
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
        base = importlib.import_module(f"hashbench.{self.kind}")
        base = base.HashMethod if self.kind == "method" else base.DatasetPlugin
        try:
            imported = import_file(Path(module)) if self.origin == "file" else importlib.import_module(module)
            plugin = getattr(imported, attribute)
        except (Exception, SystemExit) as error:  # whatever a plugin raises is its fault, and is said so
            raise HashbenchError(f"{self} cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(plugin, type) and issubclass(plugin, base)):
            raise HashbenchError(f"{self} is not a class derived from {base.__module__}.{base.__name__}")
        return plugin

    def sources(self) -> list[Path]:
        """The Python files that the plugin consists of, that of its class or package first.

        For a target outside hashbench that is one module of a package, they are all of the package, which the
        module may import; our own modules import nothing but the core.
        """
        module, _, _ = self.target.rpartition(":")
        if self.origin == "file":
            return [Path(module)]
        spec = _find_spec(module)
        if spec is None or spec.origin is None:
            return []
        own = Path(spec.origin)
        if spec.submodule_search_locations is None and (self.origin == BUILT_IN or "." not in module):
            return [own]
        return [own, *sorted(set(own.parent.rglob("*.py")) - {own})]

    def recipe(self) -> Path | None:
        """The method's recipe: `recipe.yaml` beside its module, or FILE.yaml beside a plugin FILE.py."""
        files = self.sources()[:1]
        paths = [file.with_suffix(".yaml") for file in files if self.origin == "file"]
        paths += [file.with_name("recipe.yaml") for file in files]
        return next((path for path in paths if path.is_file()), None)

    def summary(self) -> str:
        """First line of the docstring of the target's module, read without importing it."""
        try:
            docstring = ast.get_docstring(ast.parse(self.sources()[0].read_bytes()))
        except (IndexError, OSError, SyntaxError, ValueError):  # no source, or none that can be read
            return ""
        return docstring.splitlines()[0] if docstring else ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} ({self.target}, {self.origin})"


def entries(kind: Kind) -> dict[str, Entry]:
    """All that is registered, by name; imports no plugin.

    Raises:
        UsageError: A name is claimed twice, or cannot be a folder's.
    """
    found: dict[str, Entry] = {}
    for entry in _all_entries(kind):
        if not re.fullmatch(r"\w[\w.+-]*", entry.name):
            raise UsageError(
                f"{entry}: a name has letters, digits, _ and then . + -, since it becomes a folder's"
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
    if name not in known:
        raise unknown_name(kind, name, known)
    return known[name]


def add_plugin_file(path: Path) -> None:
    """Register the plugins of one file, without importing it.

    The file says what it holds: `METHODS = {"name": Class}` or `DATASETS = {"name": Class}`.

    Raises:
        UsageError: There is no such file, it is not Python, or it registers nothing.
    """
    path = path.resolve()
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
        [sys.executable, "-c", code], input=request, capture_output=True, text=True, check=False
    )
    if done.returncode:  # a plugin took the whole process down
        return {entry.name: f"importing it ended Python: {done.stderr[-200:]}" for entry in foreign}
    reasons: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return reasons


def create_method(name: str, backbone: Backbone, bits: int, **hyperparameters: Any) -> HashMethod:
    """Build a method by name, untrained.

    Args:
        name: A registered method.
        backbone: From `create_backbone`, or any `Backbone`.
        bits: Length of the codes.
        **hyperparameters: The method's own settings.

    Raises:
        UsageError: No such method, or a hyperparameter that does not fit.
    """
    from hashbench.recipe import check_settings

    cls: type[HashMethod] = find("method", name).load()
    return cls(backbone, bits, check_settings("hyperparameter", cls.Hyperparameters, hyperparameters))


def create_dataset(name: str, **options: Any) -> DatasetPlugin:
    """Make the plugin of a dataset; nothing is read yet.

    Args:
        name: A registered dataset.
        **options: What the dataset lets one choose; `hashbench data info NAME` lists it.

    Raises:
        UsageError: No such dataset, or an option that it does not have or that does not fit.
        HashbenchError: The plugin has no protocols.
    """
    from hashbench.recipe import check_settings

    entry = find("dataset", name)
    cls: type[DatasetPlugin] = entry.load()
    if not getattr(cls, "protocols", None):
        raise HashbenchError(f'{entry} has no protocols; add protocols = {{"default": Protocol("…")}}')
    return cls(check_settings(f"option of {name}", cls.Options, options))


def choose_protocol(name: str, plugin: DatasetPlugin, protocol: str | None) -> str:
    """The protocol of that name, or the default; a folder of list files means `lists`.

    Raises:
        UsageError: There is none of that name, or list files do not go with it.
    """
    from hashbench.split_lists import LISTS

    if getattr(plugin.options, "lists", None) is not None:
        if protocol not in (None, LISTS):
            raise UsageError(f"list files go with the protocol {LISTS}, not with {protocol}")
        protocol = LISTS
    if protocol is None:
        return next(iter(plugin.protocols))
    if protocol not in plugin.protocols:
        raise unknown_name(f"protocol of {name}", protocol, plugin.protocols)
    return protocol


def load_dataset(
    name: str, protocol: str | None = None, root: Path | str | None = None, **options: Any
) -> Dataset:
    """Load a dataset by name; the packed copy of its images is used, if there is one.

    Args:
        name: A registered dataset.
        protocol: How it is split; None: the dataset's default.
        root: Folder of the data; None: `$HASHBENCH_DATA`, else `~/.cache/hashbench/data`.
        **options: What the dataset lets one choose; `hashbench data info NAME` lists it.

    Raises:
        UsageError: No such dataset, protocol or option.
        HashbenchError: The data is not there, or not sound.
    """
    from hashbench.dataset import default_root
    from hashbench.packing import use_packed

    plugin = create_dataset(name, **options)
    root = default_root() if root is None else Path(root)
    dataset = read_dataset(name, plugin, choose_protocol(name, plugin, protocol), root)
    return use_packed(dataset, root) if plugin.options.packed else dataset


def read_dataset(name: str, plugin: DatasetPlugin, protocol: str, root: Path) -> Dataset:
    """Load a dataset by its plugin, from its own files, and compare it with what the protocol says.

    Args:
        name: The name that the plugin is registered by.
        plugin: The plugin.
        protocol: One of its protocols.
        root: Folder of the data.

    Raises:
        HashbenchError: The data is not there, or not sound; or the plugin gives something else.
    """
    from hashbench.dataset import Dataset

    dataset = plugin.load(root, protocol)
    if not isinstance(dataset, Dataset):
        raise HashbenchError(f"{find('dataset', name)}: load gives {type(dataset).__name__}, not a Dataset")
    if (dataset.name, dataset.protocol) != (name, protocol):
        raise HashbenchError(
            f"{find('dataset', name)} gives a dataset that calls itself {dataset.name}@{dataset.protocol}, "
            f"not {name}@{protocol}"
        )
    counts = {part: len(split.images) for part, split in dataset.parts().items()}
    unusual = plugin.protocols[protocol].differences(**counts)
    return replace(dataset, warnings=(*dataset.warnings, *unusual))


def source_digest(*entries: Entry) -> str:
    """Hash of the code that numbers depend on: the plugins, and what of hashbench takes part in a run."""
    package = Path(__file__).parent
    beside = ("cli", "terminal", "report", "results", "scaffold", "testing", "preparing", "verification")
    core = [
        file for file in package.rglob("*.py") if not file.relative_to(package).parts[0].startswith(beside)
    ]
    digest = hashlib.sha256()
    for origin, files in (("", core), *((entry.origin, entry.sources()) for entry in entries)):
        digest.update(origin.encode())  # has the version, if there is no source
        for file in sorted(files):
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


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


def _find_spec(module: str) -> ModuleSpec | None:
    """Where a module is; unlike `importlib.util.find_spec`, this imports no parent package."""
    path: Sequence[str] | None = None
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        # Every finder, since an editable installation may bring one of its own.
        specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for found in specs if found is not None), None)
        if spec is None:
            return None
        path = spec.submodule_search_locations or []
    return spec


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
