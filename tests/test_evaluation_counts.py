from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hashbench.errors import UsageError
from hashbench.evaluation import Counts, evaluate

QUERIES, ITEMS = 70, 5_003  # more than one block of either, and not a whole number of them


def random_codes(rng: np.random.Generator, n: int, bits: int) -> NDArray[np.int8]:
    return rng.choice(np.array([-1, 1], np.int8), (n, bits))


def plain_counts(
    query: NDArray[np.int8], database: NDArray[np.int8], relevant: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """By a whole matrix of distances."""
    bits = query.shape[1]
    distance = (bits - query.astype(int) @ database.T.astype(int)) // 2
    items = np.stack([np.bincount(row, minlength=bits + 1) for row in distance])
    hits = np.stack(
        [np.bincount(row[mask], minlength=bits + 1) for row, mask in zip(distance, relevant, strict=True)]
    )
    return items, hits


@pytest.mark.parametrize(("bits", "columns"), [(12, 2), (48, 81), (64, 21), (128, 100), (200, 1000)])
def test_multi_hot_labels(bits: int, columns: int) -> None:
    rng = np.random.default_rng(bits)
    query, database = random_codes(rng, QUERIES, bits), random_codes(rng, ITEMS, bits)
    share = 1 / max(columns**0.5, 2)
    query_labels, database_labels = (
        rng.random((QUERIES, columns)) < share,
        rng.random((ITEMS, columns)) < share,
    )
    counts = evaluate(query, database, query_labels, database_labels).counts
    items, relevant = plain_counts(
        query, database, query_labels.astype(int) @ database_labels.T.astype(int) > 0
    )
    np.testing.assert_array_equal(counts.items, items)
    np.testing.assert_array_equal(counts.relevant, relevant)
    assert (counts.queries, counts.database, counts.bits) == (QUERIES, ITEMS, bits)


@pytest.mark.parametrize("bits", [12, 128])
def test_class_ids(bits: int) -> None:
    rng = np.random.default_rng(bits)
    query, database = random_codes(rng, QUERIES, bits), random_codes(rng, ITEMS, bits)
    query_ids, database_ids = rng.integers(0, 1000, QUERIES), rng.integers(0, 1000, ITEMS).astype(float)
    counts = evaluate(query, database, query_ids, database_ids).counts
    items, relevant = plain_counts(query, database, query_ids[:, None] == database_ids)
    np.testing.assert_array_equal(counts.items, items)
    np.testing.assert_array_equal(counts.relevant, relevant)


def test_class_ids_and_their_multi_hot_form_agree() -> None:
    rng = np.random.default_rng(0)
    query, database = random_codes(rng, 9, 16), random_codes(rng, 300, 16)
    query_ids, database_ids = rng.integers(0, 10, 9), rng.integers(0, 10, 300)
    by_id = evaluate(query, database, query_ids, database_ids).counts
    multi_hot = evaluate(query, database, np.eye(10)[query_ids], np.eye(10)[database_ids]).counts
    np.testing.assert_array_equal(by_id.relevant, multi_hot.relevant)


def test_counts_of_shards_add_up() -> None:
    rng = np.random.default_rng(1)
    query, database = random_codes(rng, 9, 16), random_codes(rng, 301, 16)
    query_ids, database_ids = rng.integers(0, 10, 9), rng.integers(0, 10, 301)
    whole = evaluate(query, database, query_ids, database_ids).counts
    shards = [evaluate(query, database[i::3], query_ids, database_ids[i::3]).counts for i in range(3)]
    total = shards[0] + shards[1] + shards[2]
    np.testing.assert_array_equal(total.items, whole.items)
    np.testing.assert_array_equal(total.relevant, whole.relevant)


@pytest.mark.parametrize(
    ("items", "relevant", "message"),
    [
        ([[1.0]], [[1]], "items as int64"),
        ([1], [1], "items as int64"),
        ([[1, 1]], [[1]], "differ"),
        ([[0, 0]], [[0, 0]], "no pairs"),
        ([[2, 1]], [[1, 2]], "0 <= relevant <= items"),
        ([[2, 1]], [[-1, 0]], "0 <= relevant <= items"),
        ([[2, 1], [2, 2]], [[0, 0], [0, 0]], "unequal sums"),
    ],
)
def test_impossible_counts(items: list[Any], relevant: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Counts(np.array(items), np.array(relevant))


def test_counts_of_other_queries_or_bits_do_not_add_up() -> None:
    one, other = np.ones((2, 3), np.int64), np.ones((2, 4), np.int64)
    with pytest.raises(UsageError, match=r"found \[2, 3\] and \[2, 4\]"):
        Counts(one, one) + Counts(other, other)
