"""Structure of the package: which folder may import which, and limits on their sizes."""

import ast
import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import hashbench

PACKAGE = Path(hashbench.__file__).parent

# Folders and top-level modules. Each imports only from the lines above; those on one line do not import each
# other.
ORDER = [
    ["errors"],
    ["config", "depthwise", "distributed", "plugin_files"],
    ["runtime", "run_id_sources"],
    ["codes", "recipe"],
    ["backbones"],
    ["evaluation.counts", "images", "registry"],
    ["data", "evaluation", "method"],
    ["encoding", "results"],
    ["report", "training"],
    ["experiment", "report.plots", "report.tables"],
    ["launchers", "report.page", "testing"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
MAX_MODULES, MAX_LINES, MAX_FUNCTION = 14, 350, 70  # modules in a folder, lines in a module and a function

FILES = [file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or not file.name.startswith("__")]


def layer(module: str) -> str:
    """Return the innermost folder of a module, or the module itself if it is in none."""
    names = module.split(".")
    return next(name for size in (2, 1) if (name := ".".join(names[:size])) in RANK)


def imports(file: Path) -> Iterator[str]:
    """Find the modules that a file imports, wherever the import is written."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    here = layer(".".join(file.relative_to(PACKAGE).with_suffix("").parts))
    for name in imports(file):
        assert not name.startswith(("hashbench_methods", "hashbench_datasets")), "the core imports no plugin"
        if name.startswith("hashbench."):
            there = layer(name.removeprefix("hashbench."))
            assert there == here or RANK[there] < RANK[here], f"{here} imports {there}: {name}"


def test_folders_and_modules_are_small() -> None:
    folders = Counter(file.parent for file in PACKAGE.rglob("*.py") if file.name != "__init__.py")
    assert {str(folder): count for folder, count in folders.items() if count > MAX_MODULES} == {}
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {str(file): count for file, count in lines.items() if count > MAX_LINES} == {}


def test_functions_are_short() -> None:
    long = [
        f"{file}: {node.name}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION
    ]
    assert long == []


def test_reports_read_records_only() -> None:
    """Reports read records and their arguments; of the data folder, they import only the class Dataset."""
    known = ("codes", "config", "data.dataset", "errors", "evaluation", "report", "results", "runtime")
    allowed = tuple(f"hashbench.{name}." for name in known)
    for file in (PACKAGE / "report").rglob("*.py"):
        for name in imports(file):
            assert not name.startswith("torch"), f"{file.name} imports {name}"
            assert not name.startswith("hashbench") or name.startswith(allowed), f"{file.name} imports {name}"


def test_the_folder_of_datasets_is_no_package() -> None:
    root = PACKAGE.parent
    assert not (root / "datasets" / "__init__.py").exists()
    assert not (root / "methods" / "__init__.py").exists()
    spec = importlib.util.find_spec("datasets")  # a namespace of nothing, or another project's package
    assert spec is None or spec.origin is None or root not in Path(spec.origin).parents


def test_public_names_are_all_there() -> None:
    for name in hashbench.__all__:
        assert getattr(hashbench, name) is not None
    assert set(hashbench.__all__) <= set(dir(hashbench))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hashbench.nothing
