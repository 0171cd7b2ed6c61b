"""Exactness of metrics, against all orders for small counts and exact integers for large ones."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashbench.evaluation import Counts, Evaluation
from hashbench.evaluation.inputs import Denominator


@st.composite
def buckets(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Draw (items, relevant) per distance, few enough to enumerate all orders."""
    sizes = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any))
    return [(n, draw(st.integers(0, n))) for n in sizes]


def rankings(counted: list[tuple[int, int]]) -> list[list[bool]]:
    """Enumerate the relevance of each rank over all placements of relevant items; all are equally likely."""
    blocks = [
        [[place in chosen for place in range(n)] for chosen in combinations(range(n), r)] for n, r in counted
    ]
    return [list(chain.from_iterable(parts)) for parts in product(*blocks)]


def average_precision(ranking: list[bool], k: int, denominator: str) -> Fraction:
    hits, total = 0, Fraction(0)
    for rank, relevant in enumerate(ranking[:k], start=1):
        hits += relevant
        total += Fraction(hits, rank) * relevant
    divisor = {"hits": hits, "relevant": min(k, sum(ranking)), "all_relevant": sum(ranking)}[denominator]
    return total / divisor if divisor else Fraction(0)


def row(counted: list[tuple[int, int]]) -> Counts:
    items, relevant = np.array(counted, np.int64).T
    return Counts(items[None], relevant[None])


@settings(max_examples=150, deadline=None)
@given(counted=buckets(), data=st.data(), denominator=st.sampled_from(["hits", "relevant", "all_relevant"]))
def test_every_metric_equals_its_enumeration(
    counted: list[tuple[int, int]], data: st.DataObject, denominator: Denominator
) -> None:
    k = data.draw(st.integers(1, sum(n for n, _ in counted)))
    radius = data.draw(st.integers(0, len(counted)))
    ev = Evaluation(row(counted), (k, "R"), radius, denominator)
    found = ev.to_dict()["metrics"]
    assert Evaluation(row(counted), (k,), radius, denominator).bounds("R") == ev.bounds("R")
    orders = rankings(counted)
    ball = sum(n for n, _ in counted[: radius + 1])
    scores = [average_precision(order, k, denominator) for order in orders]
    hits = [Fraction(sum(order[:k])) for order in orders]
    relevant = sum(orders[0])
    hits_at_r = [Fraction(sum(order[:relevant]), max(relevant, 1)) for order in orders]
    for name, values in {
        f"mAP@{k}": scores,
        f"P@{k}": [hit / k for hit in hits],
        f"R@{k}": [hit / max(relevant, 1) for hit in hits],
        "mAP@R": [average_precision(order, relevant, "all_relevant") for order in orders],
        "P@R": hits_at_r,
        "R@R": hits_at_r,
        f"mAP@H<={radius}": [average_precision(order, ball, "hits") for order in orders],
    }.items():
        expected = {"expected": sum(values) / len(values), "lowest": min(values), "highest": max(values)}
        assert found[name] == pytest.approx({key: float(value) for key, value in expected.items()}, abs=1e-14)


def harmonic(start: int, count: int) -> float:
    return math.fsum(1 / (start + i) for i in range(1, count + 1))


def bucket_sum(rank: int, hits: int, n: int, r: int) -> float:
    return math.fsum(r / n * (hits + 1 + (i - 1) * (r - 1) / (n - 1)) / (rank + i) for i in range(1, n + 1))


def run_sum(rank: int, hits: int, r: int) -> float:
    return math.fsum((hits + j) / (rank + j) for j in range(1, r + 1))


@pytest.mark.parametrize(
    "sizes", [[(120_000, 30_000), (80_000, 70_001)], [(70, 3), (199_930, 20)], [(1, 1), (200_000, 2)]]
)
def test_large_whole_buckets(sizes: list[tuple[int, int]]) -> None:
    (n1, r1), (n2, r2) = sizes
    ev = Evaluation(row(sizes))
    total = r1 + r2
    first = bucket_sum(0, 0, n1, r1) if n1 > 1 else float(r1)
    assert ev.mean_average_precision("all") == pytest.approx(
        (first + bucket_sum(n1, r1, n2, r2)) / total, rel=1e-12
    )
    lowest = (run_sum(n1 - r1, 0, r1) + run_sum(n1 + n2 - r2, r1, r2)) / total
    highest = (run_sum(0, 0, r1) + run_sum(n1, r1, r2)) / total
    assert ev.bounds("all") == pytest.approx((lowest, highest), rel=1e-12)


@pytest.mark.parametrize(
    ("rank", "hits", "n", "r", "k"),
    [
        (0, 0, 200_000, 300, 5_000),
        (3_000, 700, 60_000, 20_000, 5_000),
        (10, 0, 199_990, 2, 100_000),
        (63, 9, 9_000, 8_999, 5_000),
    ],
)
def test_large_cut_bucket(rank: int, hits: int, n: int, r: int, k: int) -> None:
    taken = k - rank
    fewest, most = max(0, taken - (n - r)), min(r, taken)
    weight = math.comb(r, fewest) * math.comb(n - r, taken - fewest)
    all_orders = math.comb(n, taken)
    before = bucket_sum(0, 0, rank, hits) if rank else 0.0
    first = harmonic(rank, taken)
    second = math.fsum((i - 1) / (rank + i) for i in range(1, taken + 1))
    terms = []
    for x in range(fewest, most + 1):
        inside = x / taken * ((hits + 1) * first + (x - 1) / (taken - 1) * second)
        terms.append(weight / all_orders * (before + inside) / (hits + x) if hits + x else 0.0)
        weight = weight * (r - x) * (taken - x) // ((x + 1) * (n - r - taken + x + 1))
    counted = [(rank, hits), (n, r)] if rank else [(n, r)]
    assert Evaluation(row(counted)).mean_average_precision(k) == pytest.approx(math.fsum(terms), rel=1e-11)
