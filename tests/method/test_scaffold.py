"""Tests that a new method runs, passes its checks and is written atomically."""

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.forked import pytest_in_fork

from hashbench import HashbenchError, UsageError, registry
from hashbench.method import scaffold
from hashbench.testing import CHECKS

FAST = [
    f"--set={setting}"
    for setting in ("backbone=test_resnet", "pretrained=false", "images.size=32", "epochs=1")
]


@pytest.fixture
def cli(cli: Callable[..., Any]) -> Callable[..., str]:
    """Return a function that runs the program, which must succeed, and returns its output."""

    def call(*arguments: object) -> str:
        done = cli(*arguments)
        assert done.code == 0, done.err
        printed: str = done.out
        return printed

    return call


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small_digits")
def test_a_folder_passes_its_test_and_runs(cli: Callable[..., str], tmp_path: Path) -> None:
    shown = cli("new-method", "very_own")
    assert files(tmp_path) == {
        f"very_own/{n}" for n in ("method.py", "recipe.yaml", "README.md", "test_method.py")
    }
    check, run = [line.split() for line in shown.splitlines() if line.startswith("  hashbench ")]
    code, said = pytest_in_fork(tmp_path / "said", "-q", "very_own")
    assert code == 0, said
    assert f"{len(CHECKS)} passed" in said

    assert all(row["passed"] for row in json.loads(cli(*check[1:], "--json", "--set=freeze_backbone=true")))
    cli(*run[1:], *FAST)
    (path,) = tmp_path.rglob("record.json")
    record = json.loads(path.read_text())
    assert record["method"] == "very_own"
    assert record["config"]["hyperparameters"] == {"temperature": 0.3}
    assert record["config"]["views"]["affine"]["degrees"] == 10


def test_a_package_is_found_once_installed(
    cli: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = cli("new-method", "other_own", "--into", "deep/repository")
    repository = tmp_path / "deep" / "repository"
    package = "hashbench_other_own"
    assert files(repository) == {
        "pyproject.toml", "tests/test_method.py",
        *(f"{package}/{name}" for name in ("__init__.py", "method.py", "recipe.yaml", "README.md")),
    }  # fmt: skip
    assert "pip install -e deep/repository" in shown
    ast.parse((repository / "tests" / "test_method.py").read_text())

    # As pip would install it.
    project = (repository / "pyproject.toml").read_text()
    _, _, entry_points = project.partition('[project.entry-points."hashbench.methods"]\n')
    metadata = repository / f"{package}-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    line = entry_points.splitlines()[0].replace('"', "")
    (metadata / "entry_points.txt").write_text(f"[hashbench.methods]\n{line}\n")
    monkeypatch.syspath_prepend(str(repository))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository), os.environ.get("PYTHONPATH", "")]))

    (row,) = [row for row in json.loads(cli("methods", "--json")) if row["method"] == "other_own"]
    assert (row["from"], row["broken"]) == (f"package {package} 0.1.0", None)
    assert row["summary"].startswith("OtherOwn: ")
    assert registry.find("method", "other_own").recipe() == repository / package / "recipe.yaml"
    cli("check-method", "other_own", "--set=freeze_backbone=true")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "'Mine' cannot be the name of a method; use lower-case"),
        ("my-own", "cannot be the name of a method"),
        ("../mine", "cannot be the name of a method"),
        ("2nd", "cannot be the name of a method"),
        ("_", "cannot be the name of a method"),
        ("größe", "cannot be the name of a method"),
        ("lambda", "cannot be the name of a method; .*avoid Python keywords"),
        ("none", "cannot be the name of a method"),
        ("wch", "the method 'wch' already exists"),
    ],
)
def test_names_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for into in (None, tmp_path / "repository"):
        with pytest.raises(UsageError, match=message):
            scaffold.new_method(name, into)
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_exists(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the package hashbench_methods already exists"):
        scaffold.new_method("methods", tmp_path / "repository")


def test_what_exists_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for into in (None, tmp_path / "mine"):
        with pytest.raises(UsageError, match="mine already exists; remove it or choose another name"):
            scaffold.new_method("mine", into)
    assert files(tmp_path) == set()


def test_half_a_method_is_never_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(scaffold.FOLDER, "test_method.py", "no_such_template")
    with pytest.raises(HashbenchError, match="mine cannot be written: No such file"):
        scaffold.new_method("mine")
    assert list(tmp_path.iterdir()) == []
