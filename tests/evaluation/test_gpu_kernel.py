"""The Triton kernel counts as the CPU does: on a GPU, or else in Triton's interpreter."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hashbench.codes import BinaryCodes
from hashbench.evaluation import Labels, count_pairs
from hashbench.evaluation.counts import gpu

pytest.importorskip("triton")

DEVICE = "cpu" if os.environ["TRITON_INTERPRET"] == "1" else "cuda"
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="torch sees no GPU"
)


def random_labels(rng: np.random.Generator, n: int, columns: int | None) -> Labels:
    if columns is None:
        ids = np.array([0, 1, 256, 2**32, 2**63, 2**64 - 1], np.uint64)
        return Labels(ids[rng.integers(0, len(ids), (n, 1))], None)
    return Labels.from_array(rng.random((n, columns)) < 1 / columns**0.5)


def assert_counts_as_the_cpu(
    bits: int, queries: int, items: int, columns: int | None, budget: int = 2**20
) -> None:
    rng = np.random.default_rng(bits)
    query, database = (BinaryCodes.from_array(rng.random((n, bits)) < 0.5) for n in (queries, items))
    database.packed[: items // 3] = query.packed[0]  # many equal distances
    labels = random_labels(rng, queries, columns), random_labels(rng, items, columns)
    expected = count_pairs(query, database, *labels)
    histogram = gpu.kernel_histogram(gpu.Pairs(query, database, *labels), DEVICE, budget)
    np.testing.assert_array_equal(histogram[:, 1::2], expected.relevant)
    np.testing.assert_array_equal(histogram[:, ::2] + histogram[:, 1::2], expected.items)


@settings(max_examples=25, deadline=None)
@given(
    bits=st.integers(1, 4096),
    queries=st.integers(1, 9),
    items=st.integers(1, 500),
    columns=st.none() | st.integers(2, 200),
)
@example(bits=1, queries=1, items=1, columns=None)
@example(bits=63, queries=5, items=7, columns=64)
@example(bits=4096, queries=2, items=500, columns=65)
def test_any_length_labels_and_size(bits: int, queries: int, items: int, columns: int | None) -> None:
    assert_counts_as_the_cpu(bits, queries, items, columns)


@pytest.mark.parametrize("columns", [None, 81])
def test_several_programs_for_the_items_of_a_query(columns: int | None) -> None:
    assert_counts_as_the_cpu(bits=64, queries=6, items=140_001, columns=columns)


def test_a_tile_is_no_larger_than_the_budget() -> None:
    assert_counts_as_the_cpu(bits=100, queries=3, items=1000, columns=None, budget=2**12)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_large_problems_are_counted_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gpu, "product_histogram")
    rng = np.random.default_rng(0)
    codes, labels = BinaryCodes.from_array(rng.random((40_000, 64)) < 0.5), random_labels(rng, 40_000, None)
    counts, expected = (
        count_pairs(codes, codes, labels, labels, device=device) for device in ("cuda", "cpu")
    )
    np.testing.assert_array_equal(counts.items, expected.items)
    np.testing.assert_array_equal(counts.relevant, expected.relevant)
