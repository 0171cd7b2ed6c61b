"""Tests of completion in the shell, and of the version."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_runs import make_run
from helpers.forked import run_python

import hashbench
from hashbench import registry
from hashbench.data.load import create_dataset

Complete = Callable[[str], list[str]]


@pytest.fixture
def complete(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Return a function that completes a line as bash does."""

    def completed(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
        monkeypatch.setenv("_HASHBENCH_COMPLETE", "complete_bash")
        done = cli()
        assert (done.code, done.err) == (0, "")
        return str(done.out).split()

    return completed


@pytest.mark.parametrize("command", ["run", "ablate", "table", "report", "plot pr", "results export"])
def test_names_complete(complete: Complete, command: str) -> None:
    assert complete(f"hashbench {command} --method w") == ["wch"]
    assert complete(f"hashbench {command} --method wch,s") == [
        f"wch,{name}" for name in ("spq", "sdc", "ssdh", "sh", "sph", "sklsh")
    ]
    assert complete(f"hashbench {command} --dataset ") == [*registry.entries("dataset")]
    known = [*create_dataset("nuswide").protocols]
    assert complete(f"hashbench {command} --dataset nuswide --protocol ") == known
    assert complete(f"hashbench {command} --protocol 11") == ["117k"]


def test_names_complete_after_a_colon(complete: Complete) -> None:
    """Bash splits words at colons, and replaces only what follows the last one."""
    assert complete("hashbench run --dataset torchvision:CI") == [
        "torchvision:CIFAR10",
        "torchvision:CIFAR100",
    ]
    assert complete("hashbench run --dataset torchvision : CI") == ["CIFAR10", "CIFAR100"]
    assert complete("hashbench run --dataset cifar10,torchvision : EuroS") == ["EuroSAT"]
    assert complete("hashbench data info torchvision :") == [
        name.removeprefix("torchvision:") for name in registry.entries("dataset") if ":" in name
    ]
    assert complete("hashbench run --dataset torchvision : EuroSAT --protocol ") == ["split"]
    assert complete("hashbench run --dataset cif") == ["cifar10"]


def test_arguments_complete(complete: Complete) -> None:
    assert complete("hashbench check-method it") == ["itq"]
    assert complete("hashbench data info cif") == ["cifar10"]
    assert complete("hashbench run --dev") == ["--device"]


def test_runs_complete(complete: Complete, tmp_path: Path) -> None:
    assert complete("hashbench compare ") == []
    first, second = (make_run(tmp_path / "results/runs", seed=seed) for seed in (0, 1))
    (first.folder.parent / ".wch-shapes-16bit-seed3-0.1").mkdir()
    ids = [first.record.run_id, second.record.run_id]
    for command in ("results show", "results verify", "compare", "plot codes"):
        assert complete(f"hashbench {command} wch") == ids
        assert complete(f"hashbench {command} ") == ids
        assert complete(f"hashbench {command} {ids[1][:-3]}") == ids[1:]
        assert complete(f"hashbench {command} --results elsewhere w") == []


def test_completion_imports_no_heavy_library() -> None:
    code = (
        "import os, sys; from hashbench.cli.app import main\n"
        "os.environ.update(COMP_WORDS='hashbench run --method w', COMP_CWORD='3', "
        "_HASHBENCH_COMPLETE='complete_bash')\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'numpy', 'pandas', 'timm') if m in sys.modules])"
    )
    assert run_python("-c", code).stdout.split("\n")[:2] == ["wch", "[]"]


def test_version(cli: Callable[..., Any]) -> None:
    assert hashbench.__version__ == version("hashbench")
    done = cli("--version")
    assert (done.code, done.out) == (0, f"hashbench {version('hashbench')}\n")
    done = run_python("-m", "hashbench", "--version")
    assert done.stdout == f"hashbench {version('hashbench')}\n"
