"""Many evaluations and runs in one process do not increase its memory or open files."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.forked import call, few_digits, run_forked

from hashbench import evaluate

FOLDER = Path("/proc/self")
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs /proc, where memory and open files are seen"
)

GROWTH = 32 << 20  # bytes that memory may grow by, for allocators that keep some


def held() -> tuple[int, int]:
    """Return the memory of this process in bytes and the number of its open files."""
    pages = int((FOLDER / "statm").read_text().split()[1])
    return pages * resource.getpagesize(), len(os.listdir(FOLDER / "fd"))  # noqa: PTH208 (which opens one)


def assert_flat(before: tuple[int, int]) -> None:
    memory, files = held()
    assert memory - before[0] < GROWTH, f"memory grew by {(memory - before[0]) / 1e6:.0f} MB"
    assert files <= before[1], f"{files - before[1]} more files are open"


def evaluations(count: int) -> None:
    """Evaluate new codes many times, including graded labels and product codes."""
    for seed in range(count):
        if seed == count // 5:
            before = held()
        random = np.random.default_rng(seed)
        codes, labels = random.integers(0, 2, (3000, 64)), random.integers(0, 2, (3000, 20))
        result = evaluate(codes[:200], codes[200:], labels[:200], labels[200:], graded=bool(seed % 2))
        result.mean_average_precision("all")
        result.curve_by_rank()
    assert_flat(before)


def grid(results: Path, runs: int) -> None:
    """Run a grid; the first fifth of the runs may still fill caches."""
    few_digits(250)
    small = ["--set", "backbone=test_resnet", "--set", "pretrained=false", "--set", "images.size=16"]
    command = ["run", "--method", "lsh", "--dataset", "digits", "--bits", "16", *small]
    first = runs // 5
    for seeds in (range(first), range(first, runs)):
        if seeds.start:
            before = held()
        assert call([*command, "--seed", ",".join(map(str, seeds)), "--results", str(results)]) == 0
    assert len([*results.rglob("record.json")]) == runs
    assert_flat(before)


def test_many_evaluations_and_runs(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    run_forked(evaluations, tries(20, 300))
    run_forked(grid, tmp_path, tries(5, 50))
