"""Graded counts and metrics, against full matrices of pairs and all orders of small rankings."""

from __future__ import annotations

import math
from itertools import chain, permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from hashbench import ProductCodes, UsageError
from hashbench.evaluation import Counts, Evaluation, GradedCounts, evaluate

QUERIES, ITEMS = 70, 5_003  # more than one block of each, and not a multiple of the block size


@st.composite
def buckets(draw: st.DrawFn) -> list[list[int]]:
    """Draw the numbers of shared labels of the items at each distance, few enough to enumerate all orders."""
    grades = st.lists(st.integers(0, 3), max_size=4)
    return draw(st.lists(grades, min_size=1, max_size=3).filter(any))


def graded(rows: list[list[list[int]]]) -> GradedCounts:
    return GradedCounts(np.array([[np.bincount(bucket, minlength=4) for bucket in row] for row in rows]))


def orders(row: list[list[int]]) -> list[list[int]]:
    """Enumerate all orders of the items that sort them by distance."""
    return [list(chain.from_iterable(parts)) for parts in product(*(set(permutations(b)) for b in row))]


def gain(ranking: list[int], k: int) -> float:
    return math.fsum((2**g - 1) / math.log2(1 + rank) for rank, g in enumerate(ranking[:k], start=1))


def evaluation(shared: GradedCounts, *k: int, **others: Any) -> Evaluation:
    return Evaluation(shared.counts, k, graded=shared, **others)


@settings(max_examples=150, deadline=None)
@given(row=buckets(), data=st.data())
def test_every_metric_equals_its_enumeration(row: list[list[int]], data: st.DataObject) -> None:
    items = list(chain.from_iterable(row))
    k = data.draw(st.integers(1, len(items)))
    found = evaluation(graded([row]), k).to_dict()["metrics"]
    ideal = gain(sorted(items, reverse=True), k)
    # The orders of a bucket are equally likely, and each distinct one has the same number of permutations.
    for name, values in {
        f"ACG@{k}": [sum(ranking[:k]) / k for ranking in orders(row)],
        f"NDCG@{k}": [gain(ranking, k) / ideal if ideal else 0 for ranking in orders(row)],
    }.items():
        expected = {"expected": np.mean(values), "lowest": min(values), "highest": max(values)}
        assert found[name] == pytest.approx(expected, abs=1e-14)


@settings(max_examples=50, deadline=None)
@given(row=buckets(), data=st.data())
def test_bounds_hold_and_the_best_order_scores_one(row: list[list[int]], data: st.DataObject) -> None:
    items = list(chain.from_iterable(row))
    k = data.draw(st.integers(1, len(items)))
    for values in evaluation(graded([row]), k).to_dict()["metrics"].values():
        assert values["lowest"] <= values["expected"] <= values["highest"]
    best = evaluation(graded([[[grade] for grade in sorted(items, reverse=True)]]), k)
    assert best.ndcg(k) == pytest.approx(1 if any(items) else 0)


@pytest.mark.parametrize(("bits", "columns"), [(12, 2), (64, 21), (128, 100), (16, None)])
def test_counts_are_those_of_all_pairs(bits: int, columns: int | None) -> None:
    rng = np.random.default_rng(bits)
    query, database = rng.choice([-1, 1], (QUERIES, bits)), rng.choice([-1, 1], (ITEMS, bits))
    if columns is None:
        query_labels, database_labels = rng.integers(0, 2**60, QUERIES), rng.integers(0, 5, ITEMS)
        query_labels[::2] %= 5
        shared = (query_labels[:, None] == database_labels).astype(int)
    else:
        query_labels, database_labels = (
            rng.random((QUERIES, columns)) < 0.2,
            rng.random((ITEMS, columns)) < 0.2,
        )
        shared = query_labels.astype(int) @ database_labels.T.astype(int)
    ev = evaluate(query, database, query_labels, database_labels, k=(1, 100, "all"), graded=True)
    distance = (bits - query @ database.T) // 2
    expected = np.zeros_like(ev.graded.shared)
    np.add.at(expected, (np.arange(QUERIES)[:, None], distance, shared), 1)
    np.testing.assert_array_equal(ev.graded.shared, expected)
    plain = evaluate(query, database, query_labels, database_labels, k=(1, 100, "all")).to_dict()["metrics"]
    metrics = ev.to_dict()["metrics"]
    assert {name: metrics[name] for name in plain} == plain
    assert set(metrics) - set(plain) == {f"{name}@{k}" for name in ("NDCG", "ACG") for k in (1, 100, "all")}


def test_expected_ndcg_is_that_of_scikit_learn_which_averages_ties() -> None:
    rng = np.random.default_rng(5)
    query, database = rng.choice([-1, 1], (9, 12)), rng.choice([-1, 1], (300, 12))
    query_labels, database_labels = rng.random((9, 6)) < 0.4, rng.random((300, 6)) < 0.4
    shared = query_labels.astype(int) @ database_labels.T.astype(int)
    ev = evaluate(query, database, query_labels, database_labels, graded=True)
    for k in (7, 300):
        assert ev.ndcg(k) == pytest.approx(ndcg_score(2**shared - 1, query @ database.T, k=k))
    assert ev.acg("all") == pytest.approx(shared.mean())


def test_with_class_ids_acg_is_the_precision() -> None:
    rng = np.random.default_rng(6)
    query, database = rng.choice([-1, 1], (9, 12)), rng.choice([-1, 1], (300, 12))
    ev = evaluate(query, database, rng.integers(0, 4, 9), rng.integers(0, 4, 300), k=(50,), graded=True)
    metrics = ev.to_dict()["metrics"]
    assert metrics["ACG@50"] == pytest.approx(metrics["P@50"])


def test_queries_without_relevant_items() -> None:
    shared = graded([[[1, 3], [0]], [[0, 0], [0]]])
    zero, skip = evaluation(shared, 2), evaluation(shared, 2, no_relevant="skip")
    assert zero.acg(2) == pytest.approx(1)
    assert skip.acg(2) == pytest.approx(2)
    assert zero.ndcg(2) > 0
    assert skip.ndcg(2) == pytest.approx(2 * zero.ndcg(2))


def test_gains_do_not_overflow() -> None:
    labels = np.ones((3, 1500))
    labels[1:, 1:] = 0
    ev = evaluate(np.ones((1, 4)), np.ones((3, 4)), labels[:1], labels, graded=True)
    # One item shares all labels and is at each rank in a third of the orders. The other gains are negligible.
    assert ev.ndcg("all") == pytest.approx((1 + 1 / math.log2(3) + 1 / 2) / 3)
    assert ev.to_dict()["metrics"]["NDCG@all"]["lowest"] == pytest.approx(1 / 2)


def test_gains_do_not_vanish_beside_those_of_other_queries() -> None:
    labels = np.zeros((2, 1500))
    labels[0], labels[1, 0] = 1, 1
    ev = evaluate([[1, 1], [-1, -1]], [[1, 1], [-1, -1]], labels, labels, graded=True)
    assert ev.ndcg(1) == 1


def test_counts_of_shards_add_up_whatever_their_grades() -> None:
    rng = np.random.default_rng(1)
    query, database = rng.choice([-1, 1], (9, 16)), rng.choice([-1, 1], (301, 16))
    query_labels, database_labels = rng.random((9, 8)) < 0.6, rng.random((301, 8)) < 0.5
    database_labels[::3] &= np.arange(8) < 2  # the first shard has fewer grades
    whole = evaluate(query, database, query_labels, database_labels, graded=True).graded
    shards = [
        evaluate(query, database[i::3], query_labels, database_labels[i::3], graded=True).graded
        for i in range(3)
    ]
    assert shards[0].shared.shape[2] < shards[1].shared.shape[2]
    np.testing.assert_array_equal((shards[0] + shards[1] + shards[2]).shared, whole.shared)
    with pytest.raises(UsageError, match=r"got \[9, 17\] and \[1, 2\]"):
        whole + graded([[[1], [0]]])


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (np.ones((1, 1, 1)), "int64"),
        (np.ones((1, 1), int), "int64"),
        (np.array([[[2, -1]]]), "0 or more"),
        (np.zeros((1, 2, 2), int), "no pairs"),
        (np.array([[[1, 1]], [[1, 2]]]), "unequal sums"),
    ],
)
def test_impossible_counts(shared: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GradedCounts(shared)


def test_what_has_no_graded_metrics() -> None:
    shared = graded([[[1, 0], [2]]])
    for metric in ("ndcg", "acg"):
        with pytest.raises(UsageError, match="evaluate with graded=True"):
            getattr(Evaluation(shared.counts), metric)(1)
    other = Counts(np.array([[1, 2]]), np.array([[1, 1]]))
    with pytest.raises(UsageError, match="belong to other rankings"):
        Evaluation(other, graded=shared)
    assert 0 < evaluation(shared, 1).chance(1) < 1
    codes = ProductCodes(np.zeros((2, 1), np.uint8), np.zeros((1, 2, 1), np.float32))
    with pytest.raises(UsageError, match="expected binary codes, got product codes"):
        evaluate(codes, codes, [0, 1], [0, 1], graded=True)
