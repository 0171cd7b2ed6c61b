from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.errors import UsageError
from hashbench.evaluation import Counts, Labels, count_pairs, evaluate

QUERIES, ITEMS = 70, 5_003  # more than one chunk of each, and not a multiple of the chunk size


def random_codes(rng: np.random.Generator, n: int, bits: int) -> NDArray[np.int8]:
    return rng.choice(np.array([-1, 1], np.int8), (n, bits))


def plain_counts(
    query: NDArray[np.int8], database: NDArray[np.int8], relevant: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count pairs with a full matrix of distances."""
    bits = query.shape[1]
    distance = (bits - query.astype(int) @ database.T.astype(int)) // 2
    items = np.stack([np.bincount(row, minlength=bits + 1) for row in distance])
    hits = np.stack(
        [np.bincount(row[mask], minlength=bits + 1) for row, mask in zip(distance, relevant, strict=True)]
    )
    return items, hits


@pytest.mark.parametrize(
    ("bits", "columns"), [(1, 3), (12, 2), (48, 81), (64, 21), (127, 16), (128, 100), (200, 500), (1024, 17)]
)
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


@pytest.mark.parametrize("bits", [16, 128])  # columns of one byte and of two bytes
@pytest.mark.parametrize("items", [1, 2, 4_096, 4_097, 61_440, 61_441, 122_881])  # chunks and blocks
def test_whole_and_broken_blocks(bits: int, items: int) -> None:
    rng = np.random.default_rng(items)
    query, database = random_codes(rng, 2, bits), random_codes(rng, items, bits)
    query_ids, database_ids = np.array([0, 2]), rng.integers(0, 3, items)
    counts = evaluate(query, database, query_ids, database_ids).counts
    expected = plain_counts(query, database, query_ids[:, None] == database_ids)
    np.testing.assert_array_equal(counts.items, expected[0])
    np.testing.assert_array_equal(counts.relevant, expected[1])


@pytest.mark.parametrize("bits", [64, 128])
def test_more_equal_items_than_a_table_counts(bits: int) -> None:
    items = 2**17 + 1
    codes = BinaryCodes(np.full((items, bits // 64), 2**64 - 1, np.uint64), bits)
    same = Labels(np.zeros((items, 1), np.uint64), None)
    counts = count_pairs(codes[:1], codes, Labels(same.packed[:1], None), same)
    assert counts.items[0, 0] == counts.relevant[0, 0] == counts.items.sum() == items
    opposite = BinaryCodes(np.zeros((1, bits // 64), np.uint64), bits)
    counts = count_pairs(opposite, codes, Labels(same.packed[:1], None), same)
    assert counts.items[0, bits] == counts.relevant[0, bits] == counts.items.sum() == items


def test_class_ids_of_every_size() -> None:
    ids = np.array([[0, 1, 255, 256, 65_535, 65_536, 2**32, 2**56 + 1, 2**63, 2**64 - 1]], np.uint64).T
    codes = BinaryCodes(np.arange(len(ids), dtype=np.uint64)[:, None], 4)
    counts = count_pairs(codes, codes, Labels(ids, None), Labels(ids, None))
    np.testing.assert_array_equal(
        counts.relevant, [[1, 0, 0, 0, 0]] * len(ids)
    )  # each item finds only itself
    small = Labels(ids % np.uint64(256), None)  # the class of a query may be larger than any in the database
    counts = count_pairs(codes, codes, Labels(ids, None), small)
    np.testing.assert_array_equal(counts.relevant.sum(axis=1), (ids == small.packed.T).sum(axis=1))


def test_arrays_that_are_not_contiguous() -> None:
    rng = np.random.default_rng(2)
    packed = rng.integers(0, 2**63, (301, 4), np.uint64)
    labels = rng.integers(0, 4, (602, 3), np.uint64)
    codes, classes = BinaryCodes(packed[::-1, ::2], 128), Labels(labels[::2, 1:2], None)
    rows = slice(None, None, 40)
    counts = count_pairs(codes[rows], codes, Labels(classes.packed[rows], None), classes)
    signs = codes.to_signs()
    items, relevant = plain_counts(signs[rows], signs, classes.packed[rows] == classes.packed.T)
    np.testing.assert_array_equal(counts.items, items)
    np.testing.assert_array_equal(counts.relevant, relevant)


def test_what_cannot_be_counted() -> None:
    codes, ids = BinaryCodes(np.zeros((1, 512), np.uint64), 32_768), Labels(np.zeros((1, 1), np.uint64), None)
    with pytest.raises(UsageError, match="at most 32,767 bits"):
        count_pairs(codes, codes, ids, ids)
    with pytest.raises(UsageError, match="expected 'cpu' or 'cuda', got 'tpu'"):
        count_pairs(codes, codes, ids, ids, device="tpu")


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
    with pytest.raises(UsageError, match=r"got \[2, 3\] and \[2, 4\]"):
        Counts(one, one) + Counts(other, other)
