"""Plugin files: single Python files with a table of plugins, such as `METHODS = {"name": Class}`.

The folder of a plugin file is imported as a package with a unique name, but a plugin file imports the modules
in its folder by their plain names. `sys.path` does not change, so plugin files in two folders can each have a
`losses.py`, and a library that imports the package `datasets` does not find a folder of that name.
"""

from __future__ import annotations

import ast
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from pathlib import Path
from types import CodeType, ModuleType

from hashbench.errors import UsageError, reason

PREFIX = "hashbench_plugin_"
"""Prefix of the package name of a folder; the path of the folder follows in hexadecimal."""

BUILT_IN_PACKAGES = ("hashbench_methods", "hashbench_datasets")
"""Packages whose modules are independent plugins."""


def read_table(path: Path, table: str) -> dict[str, str]:
    """Read a table of a plugin file from its source, without executing it.

    Returns:
        Name -> class name; empty if the file has no such table.

    Raises:
        UsageError: The file cannot be read, is not Python, or its table is not a literal dictionary.
    """
    try:
        return _table(path.read_bytes(), path, table)
    except OSError as error:
        raise UsageError(f"the plugin file {path} cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise UsageError(f"the plugin file {path} is not Python: {reason(error)}") from None


@functools.lru_cache(maxsize=32)  # every look-up of a name reads the tables
def _table(source: bytes, path: Path, table: str) -> dict[str, str]:
    for statement in parse_source(source, str(path)).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and table in _assigned(statement):
            names = _names(statement.value)
            if not names:
                raise UsageError(
                    f'{path}, line {statement.lineno}: write {table} = {{"name": Class}}, each name once, '
                    "each class by its name in this file"
                )
            return names
    return {}


def parse_source(source: bytes, path: str = "<unknown>") -> ast.Module:
    """Parse Python source.

    Raises:
        SyntaxError: The source is not Python, or nested too deeply for the parser.
    """
    try:
        return ast.parse(source, path)
    except (RecursionError, MemoryError):  # the parser's stack is small
        raise SyntaxError("it is nested too deeply for Python") from None
    except ValueError as error:  # e.g. a null byte
        raise SyntaxError(str(error)) from None


def _assigned(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _names(table: ast.expr | None) -> dict[str, str]:
    """Return name -> class name; empty if the table is not a literal dictionary or has a name twice."""
    names: dict[str, str] = {}
    if isinstance(table, ast.Dict):
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(value, ast.Name):
                names[key.value] = value.id
    return names if isinstance(table, ast.Dict) and len(names) == len(table.keys) else {}


def module_name(path: Path) -> str:
    """Return the module name of a plugin file; it contains the folder, so any process can import it."""
    return f"{PREFIX}{os.fsencode(path.parent).hex()}.{path.stem}"


def import_file(path: Path) -> ModuleType:
    """Import a plugin file, or return it if it was already imported."""
    return importlib.import_module(module_name(path))


@functools.cache
def read_source(path: str) -> bytes:
    """Read a source file once, so that run ids match the code of this process even if the file is edited."""
    return Path(path).read_bytes()


def find_specs(module: str) -> Iterator[ModuleSpec]:
    """Find a module and the packages that contain it, without importing them.

    Yields:
        The specs, beginning with the outermost package, up to the first that does not exist.
    """
    path: Sequence[str] | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        # An editable installation may add a finder of its own.
        specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for found in specs if found is not None), None)
        if spec is None:
            return
        yield spec
        path = spec.submodule_search_locations or []


def imported_name(importer: str, name: str) -> str:
    """Return the full name of a module that is imported by an absolute import.

    Args:
        importer: Full name of the importing module.
        name: Name in the import, such as `losses.quantization`.
    """
    package = importer.partition(".")[0]
    if package.startswith(PREFIX) and _is_local(_folder(package), name.partition(".")[0]):
        return f"{package}.{name}"
    return name


def _folder(package: str) -> str:
    return os.fsdecode(bytes.fromhex(package.removeprefix(PREFIX)))


def _is_local(folder: str, name: str) -> bool:
    """Return True if an import in a plugin file refers to a module in the file's folder."""
    if name in ("hashbench", *BUILT_IN_PACKAGES) or name in sys.stdlib_module_names:
        return False
    local = _modules_in(folder).find_spec(name)
    installed = next(find_specs(name), None)
    if local is None or installed is None:
        return local is not None
    if local.origin is None:  # a folder without __init__.py may contain anything, such as data
        return False
    # A module that is importable without a redirection, e.g. by PYTHONPATH, must not be imported twice.
    return not (installed.has_location and Path(local.origin).samefile(str(installed.origin)))


@functools.cache
def _modules_in(folder: str) -> FileFinder:
    """Return a finder for a folder; it is cached, since the folder may have many images to list."""
    return FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Loader, SOURCE_SUFFIXES))


class _Finder:
    """Finder of the packages that represent folders of plugin files, and of the modules in them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module; see `importlib.abc.MetaPathFinder`."""
        if not fullname.startswith(PREFIX):
            return None
        if path is None:
            package = ModuleSpec(fullname, None, is_package=True)
            package.submodule_search_locations = [_folder(fullname)]
            return package
        specs = (_modules_in(folder).find_spec(fullname) for folder in path)
        return next((spec for spec in specs if spec is not None), None)


class _Loader(SourceFileLoader):
    """Loader of a module that may import other modules of its folder by their plain names.

    It writes no bytecode, which would be wrong when the same file is imported in the usual way.
    """

    def get_code(self, fullname: str) -> CodeType:
        """Compile a module; see `importlib.abc.InspectLoader`."""
        tree = _Redirect(fullname).visit(parse_source(read_source(self.path), self.path))
        code: CodeType = compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)
        return code


class _Redirect(ast.NodeTransformer):
    """Transformer that replaces the plain names of modules in a plugin file's folder by full names."""

    def __init__(self, importer: str) -> None:
        self._importer = importer

    def visit_Import(self, node: ast.Import) -> list[ast.Import]:
        """Redirect `import a.b`; a second import binds the name `a`."""
        names = []
        for alias in node.names:
            first = alias.name.partition(".")[0]
            full = imported_name(self._importer, alias.name)
            if full == alias.name:
                names.append(alias)
                continue
            names.append(ast.alias(full, alias.asname or first))
            if alias.asname is None and alias.name != first:
                names.append(ast.alias(imported_name(self._importer, first), first))
        return [ast.copy_location(ast.Import([name]), node) for name in names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        """Redirect `from a import b`."""
        if node.level == 0 and node.module is not None:
            node.module = imported_name(self._importer, node.module)
        return node


sys.meta_path.insert(0, _Finder())
