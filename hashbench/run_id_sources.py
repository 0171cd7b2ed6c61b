"""Source files that the results of a run depend on, and their digest; no plugin is imported."""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

from hashbench.plugin_files import BUILT_IN_PACKAGES, find_specs, imported_name, parse_source, read_source

# Folders and modules of the core that do not affect the results of a run.
WITHOUT_EFFECT = ("cli", "launchers", "report", "results", "runtime", "testing", "method/scaffold.py")


@functools.cache
def core_digest() -> bytes:
    """Return the digest of the modules of hashbench that affect results, as of when it was first needed."""
    modules = core_modules().items()
    return digest_of(((path, file) for path, file in modules if not is_within(path, WITHOUT_EFFECT)), "")


def digest_of(modules: Iterable[tuple[str, Path]], origin: str) -> bytes:
    """Return the digest of the names and contents of modules.

    Args:
        modules: Name and file of each module, in any order.
        origin: Source of a plugin, with its version, since a package may have no source files.
    """
    digest = hashlib.sha256(f"{origin}\0".encode())
    for name, content in sorted((name, read_source(str(file))) for name, file in modules):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.digest()


def core_modules() -> dict[str, Path]:
    """Return the source files of hashbench by their path relative to the package."""
    package = Path(__file__).parent
    return {file.relative_to(package).as_posix(): file for file in sorted(package.rglob("*.py"))}


def is_within(path: str, parents: Collection[str]) -> bool:
    """Return True if a path of `core_modules` is one of the given modules, or inside one of the folders."""
    return any(path == parent or path.startswith(f"{parent}/") for parent in parents)


def plugin_modules(module: str, own: Collection[str]) -> dict[str, Path]:
    """Find the source files of a plugin: its module or package, and the modules that these import.

    All files of a package are included, since it may import any of them by a computed name. The standard
    library, the core of hashbench and installed packages are excluded, except for those in `own`.

    Args:
        module: Full name of the plugin's module.
        own: Top-level names of the installed packages that belong to the plugin.

    Returns:
        Full name of each module -> file.
    """
    own = {module.partition(".")[0], *BUILT_IN_PACKAGES, *own}
    found: dict[str, Path] = {}
    seen, waiting = {module}, [module]
    while waiting:
        new = {name: file for name, file in _locate(waiting.pop(), own).items() if name not in found}
        found |= new
        imported = {other for name, file in new.items() for other in _imports(name, file)} - seen
        seen |= imported
        waiting += imported
    return found


def _locate(name: str, own: Collection[str]) -> dict[str, Path]:
    """Find the file of a module, or all files of its package; the name may end with an attribute."""
    top = name.partition(".")[0]
    if top == "hashbench" or top in sys.stdlib_module_names:
        return {}
    for spec in find_specs(name):
        folders = spec.submodule_search_locations
        if spec.name == top and top not in own:
            location = next(iter(folders)) if folders else spec.origin
            if location is None or _is_installation(Path(location).parent):
                return {}
        if not spec.has_location or spec.origin is None:  # a package without __init__.py
            continue
        file = Path(spec.origin)
        if folders is None:
            return {spec.name: file} if file.is_file() else {}
        if spec.name not in BUILT_IN_PACKAGES:
            return {
                ".".join([spec.name, *_parts(path, file.parent)]): path for path in file.parent.rglob("*.py")
            }
    return {}


def _parts(file: Path, package: Path) -> tuple[str, ...]:
    parts = file.relative_to(package).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@functools.cache
def _is_installation(folder: Path) -> bool:
    """Return True if a folder has packages that an installer such as pip installed."""
    return any(folder.glob("*.dist-info"))


def _imports(name: str, file: Path) -> Iterator[str]:
    """Find the names that a module imports anywhere in its code; `from a import b` gives `a.b`."""
    if file.suffix != ".py":
        return
    try:
        tree = parse_source(read_source(str(file)))
    except SyntaxError:  # importing the module reports it
        return
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (imported_name(name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{'.' * node.level}{node.module or ''}"
            try:
                base = resolve_name(base, package) if node.level else imported_name(name, base)
            except ImportError:  # beyond the outermost package
                continue
            yield from (f"{base}.{alias.name}" for alias in node.names)
