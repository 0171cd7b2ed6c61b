"""Plugin files: one Python file that says what it holds, as in `METHODS = {"name": Class}`."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from hashbench.errors import UsageError


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
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise UsageError(f"the plugin file {path} cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"the plugin file {path} is not Python: {error}") from None
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


def _assigned(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [ast.unparse(target) for target in targets]


def _names(table: ast.expr | None) -> dict[str, str]:
    """Name -> class name, or nothing where the table is not written out or has a name twice."""
    names: dict[str, str] = {}
    if isinstance(table, ast.Dict):
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(value, ast.Name):
                names[key.value] = value.id
    return names if isinstance(table, ast.Dict) and len(names) == len(table.keys) else {}


def import_file(path: Path) -> ModuleType:
    """Import a plugin file, once."""
    name = f"hashbench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
