"""Imports point one way, and the source roots are no packages."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import hashbench

PACKAGE = Path(hashbench.__file__).parent

# A module imports from lines above its own only; what is on one line knows nothing of each other.
LAYERS = [
    ["messages"],
    ["errors"],
    ["arguments", "array_files", "json_files", "yaml_values"],
    [
        "codes",
        "config",
        "contrastive",
        "depthwise",
        "progress",
        "environment",
        "protocol",
        "decoding",
        "plugin_files",
        "durable",
        "locking",
        "walking",
        "device",
        "processes",
        "preemption",
        "meter",
    ],
    ["failures"],
    [
        "images",
        "device_views",
        "backbones",
        "recipe",
        "data_options",
        "download",
        "image_sets",
        "threads",
        "sources",
    ],
    ["dataset", "evaluation", "lists", "states", "feature_cache"],
    ["method", "image_index", "class_folders", "packing", "verification", "idx"],
    ["split_lists", "feature_keys", "optimization", "loading"],
    ["features", "linear"],
    ["registry", "encoding", "results"],
    ["selection", "validation", "configuring", "run_folders"],
    ["training", "run_files"],
    ["experiment", "report"],
    ["resuming", "testing", "scaffold"],
    ["preparing", "terminal"],
    [
        "cli_data",
        "cli_run",
        "cli_evaluate",
        "cli_report",
        "cli_plot",
        "cli_page",
        "cli_results",
        "cli_cache",
    ],
    ["cli"],
    ["__init__", "__main__"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "hashbench":
            yield from (f"hashbench.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            yield node.module


def module(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.name)
def test_imports_point_one_way(file: Path) -> None:
    for name in imports(file):
        assert not name.startswith(("hashbench_methods", "hashbench_datasets")), "the core imports no plugin"
        if name.startswith("hashbench."):
            imported = name.split(".")[1]
            inside = imported == module(file) and imported in ("evaluation", "report")
            assert inside or RANK[imported] < RANK[module(file)], f"{file.name} imports {imported}"


def test_reports_train_nothing() -> None:
    heavy = (
        "torch",
        "hashbench.training.trainer",
        "hashbench.encoding.encode",
        "hashbench.method.base",
        "hashbench.backbones",
    )
    for file in (PACKAGE / "report").rglob("*.py"):
        for name in imports(file):
            assert not name.startswith(heavy), f"{file.name} imports {name}"


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
