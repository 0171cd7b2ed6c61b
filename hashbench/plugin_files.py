"""Plugin files: one Python file that says what it holds, as in `METHODS = {"name": Class}`.

The folder of a plugin file is a package of its own, with a name that no other package has. A plugin file
imports the modules beside it by their plain names all the same, and `sys.path` stays as it is: plugin files
in two folders have their own `losses.py` each, and a library that looks for a package `datasets` does not
find a folder of that name.
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
"""Of the packages that stand for folders; behind it the path of the folder, hexadecimal."""

BUILT_IN_PACKAGES = ("hashbench_methods", "hashbench_datasets")
"""Their members are plugins, each for itself."""


def read_table(path: Path, table: str) -> dict[str, str]:
    """Read a table of a plugin file from its source, without running it.

    Args:
        path: The file.
        table: "METHODS" or "DATASETS".

    Returns:
        Name -> class name; empty if the file has no such table.

    Raises:
        UsageError: The file cannot be read, is not Python, or its table is not written out.
    """
    try:
        tree = parse_source(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(f"the plugin file {path} cannot be read: {error.strerror}") from None
    except SyntaxError as error:
        raise UsageError(f"the plugin file {path} is not Python: {reason(error)}") from None
    for statement in tree.body:
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

    Args:
        source: The source.
        path: Its file, for errors.

    Raises:
        SyntaxError: It is not Python, or more than the parser can take.
    """
    try:
        return ast.parse(source, path)
    except (RecursionError, MemoryError):  # of the parser, whose stack is small
        raise SyntaxError("it is nested too deeply for Python") from None
    except ValueError as error:  # a null byte
        raise SyntaxError(str(error)) from None


def _assigned(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _names(table: ast.expr | None) -> dict[str, str]:
    """Name -> class name, or nothing where the table is not written out or has a name twice."""
    names: dict[str, str] = {}
    if isinstance(table, ast.Dict):
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(value, ast.Name):
                names[key.value] = value.id
    return names if isinstance(table, ast.Dict) and len(names) == len(table.keys) else {}


def module_name(path: Path) -> str:
    """Return the name that a plugin file is imported by; any process finds the folder in it."""
    return f"{PREFIX}{os.fsencode(path.parent).hex()}.{path.stem}"


def import_file(path: Path) -> ModuleType:
    """Import a plugin file, once."""
    return importlib.import_module(module_name(path))


@functools.cache
def read_source(path: str) -> bytes:
    """Read a source file, once: what runs in this process is what its run ids cover, whatever is edited."""
    return Path(path).read_bytes()


def find_specs(module: str) -> Iterator[ModuleSpec]:
    """Find the packages that a module is in, and itself, without importing any.

    Yields:
        The spec of each, the outermost first, up to the first one that does not exist.
    """
    path: Sequence[str] | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        # Every finder, since an editable installation may bring one of its own.
        specs = (finder.find_spec(name, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for found in specs if found is not None), None)
        if spec is None:
            return
        yield spec
        path = spec.submodule_search_locations or []


def imported_name(importer: str, name: str) -> str:
    """Return the full name of the module that an absolute import names.

    Args:
        importer: Full name of the module with the import.
        name: What it imports, as in `losses.quantization`.
    """
    package = importer.partition(".")[0]
    if package.startswith(PREFIX) and _is_beside(_folder(package), name.partition(".")[0]):
        return f"{package}.{name}"
    return name


def _folder(package: str) -> str:
    return os.fsdecode(bytes.fromhex(package.removeprefix(PREFIX)))


def _is_beside(folder: str, name: str) -> bool:
    """Return True if plugin files in a folder mean a module beside them by a name."""
    if name in ("hashbench", *BUILT_IN_PACKAGES) or name in sys.stdlib_module_names:
        return False
    here = _modules_in(folder).find_spec(name)
    elsewhere = next(find_specs(name), None)
    if here is None or elsewhere is None:
        return here is not None
    if here.origin is None:  # a folder without __init__.py may hold anything, such as data
        return False
    # If it can be imported anyway, as by PYTHONPATH, it is not imported a second time.
    return not (elsewhere.has_location and Path(here.origin).samefile(str(elsewhere.origin)))


@functools.cache
def _modules_in(folder: str) -> FileFinder:
    """Return a finder for a folder; it lists the folder once, which may have very many images."""
    return FileFinder(folder, (ExtensionFileLoader, EXTENSION_SUFFIXES), (_Loader, SOURCE_SUFFIXES))


class _Finder:
    """Finds the packages that stand for folders of plugin files, and the modules in them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if not fullname.startswith(PREFIX):
            return None
        if path is None:
            package = ModuleSpec(fullname, None, is_package=True)
            package.submodule_search_locations = [_folder(fullname)]
            return package
        specs = (_modules_in(folder).find_spec(fullname) for folder in path)
        return next((spec for spec in specs if spec is not None), None)


class _Loader(SourceFileLoader):
    """Loads a module that may import what is beside the plugin file by its plain name.

    There is no bytecode on disk: it would be wrong where the file is imported in the usual way.
    """

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib.abc.InspectLoader`."""
        tree = _Redirect(fullname).visit(parse_source(read_source(self.path), self.path))
        code: CodeType = compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)
        return code


class _Redirect(ast.NodeTransformer):
    """Gives modules beside the plugin file their full names, wherever they are imported."""

    def __init__(self, importer: str) -> None:
        self._importer = importer

    def visit_Import(self, node: ast.Import) -> list[ast.Import]:
        """`import a.b` still binds `a`, by another import behind the first."""
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
        """`from a import b`."""
        if node.level == 0 and node.module is not None:
            node.module = imported_name(self._importer, node.module)
        return node


sys.meta_path.insert(0, _Finder())
