"""Counting with torch, as on a GPU, run on the CPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from hashbench.codes import BinaryCodes
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation import Labels, count_pairs
from hashbench.evaluation.counts import gpu

QUERIES, ITEMS = 300, 1_003  # more than one block of queries


def random_codes(rng: np.random.Generator, n: int, bits: int) -> BinaryCodes:
    return BinaryCodes.from_array(rng.random((n, bits)) < 0.5)


def assert_counts_as_the_cpu(
    query: BinaryCodes, database: BinaryCodes, labels: tuple[Labels, Labels], budget: int
) -> None:
    expected = count_pairs(query, database, *labels)
    items, relevant = gpu.count(query, database, *labels, device="cpu", budget=budget)
    assert items.dtype == relevant.dtype == np.int64
    np.testing.assert_array_equal(items, expected.items)
    np.testing.assert_array_equal(relevant, expected.relevant)


@pytest.mark.parametrize("budget", [1, 2**20, 2**30])  # one item per tile, several, all
@pytest.mark.parametrize(("bits", "columns"), [(12, 2), (64, 81), (128, 300)])
def test_multi_hot_labels(bits: int, columns: int, budget: int) -> None:
    rng = np.random.default_rng(bits)
    items = 40 if budget == 1 else ITEMS
    query, database = random_codes(rng, QUERIES, bits), random_codes(rng, items, bits)
    share = 1 / max(columns**0.5, 2)
    labels = (
        Labels.from_array(rng.random((QUERIES, columns)) < share),
        Labels.from_array(rng.random((items, columns)) < share),
    )
    assert_counts_as_the_cpu(query, database, labels, budget)


@pytest.mark.parametrize("bits", [1, 16, 1024, 2050])
def test_class_ids(bits: int) -> None:
    rng = np.random.default_rng(bits)
    query, database = random_codes(rng, QUERIES, bits), random_codes(rng, ITEMS, bits)
    ids = np.array([0, 1, 256, 2**63, 2**64 - 1], np.uint64)
    labels = (
        Labels(ids[rng.integers(0, 5, (QUERIES, 1))], None),
        Labels(ids[rng.integers(0, 5, (ITEMS, 1))], None),
    )
    assert_counts_as_the_cpu(query, database, labels, 2**22)


def test_float16_is_exact_up_to_its_longest_code() -> None:
    bits = gpu._LONGEST_HALF
    products = torch.arange(-bits, bits + 1)
    assert torch.equal(products.to(torch.float16).long(), products)


def small_problem() -> tuple[BinaryCodes, BinaryCodes, Labels, Labels]:
    rng = np.random.default_rng(0)
    codes, ids = random_codes(rng, ITEMS, 16), rng.integers(0, 9, ITEMS)
    return codes[:7], codes, Labels.from_array(ids[:7]), Labels.from_array(ids)


def allow_items(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let torch run out of memory for tiles with more items; return the tiles that were tried."""
    tried = []
    relevant = gpu._relevant

    def limited(query: Tensor, items: Tensor) -> Tensor:
        tried.append(len(items))
        if len(items) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return relevant(query, items)

    monkeypatch.setattr(gpu, "_relevant", limited)
    return tried


def test_smaller_tiles_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = small_problem()
    expected = count_pairs(*problem)
    monkeypatch.setattr(gpu, "_SMALLEST_BUDGET", 1)
    tried = allow_items(monkeypatch, 300)
    items, relevant = gpu.count(*problem, device="cpu", budget=2**23)
    assert tried[:5] == [ITEMS, 668, 334, 167, 167]
    np.testing.assert_array_equal(items, expected.items)
    np.testing.assert_array_equal(relevant, expected.relevant)


def test_too_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_items(monkeypatch, 0)
    with pytest.raises(HashbenchError, match="out of memory on cpu: .* at least 16 MiB") as error:
        gpu.count(*small_problem(), device="cpu")
    assert error.value.exit_code == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    with pytest.raises(UsageError, match="torch sees no GPU"):
        count_pairs(*small_problem(), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_the_same() -> None:
    problem = small_problem()
    counts, expected = count_pairs(*problem, device="cuda"), count_pairs(*problem)
    np.testing.assert_array_equal(counts.items, expected.items)
    np.testing.assert_array_equal(counts.relevant, expected.relevant)


def test_the_cpu_needs_no_torch() -> None:
    script = (
        "import sys, numpy, hashbench.evaluation as e; e.evaluate([[1, -1]], [[1, 1]], [0], [0]); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
