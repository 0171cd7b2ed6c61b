"""Metrics from counts per distance, exact over all orders of items at equal distance.

Notation, for one query: a *bucket* is the set of items at one distance. It contains `items` items (possibly
none), of which `relevant` are relevant. The nearer buckets contain `rank` items, of which `hits` are
relevant. Buckets that lie entirely in the top k contribute in closed form. Of the bucket that k cuts, `taken`
items are in the top k. The number of relevant ones among these depends on the order and lies between `fewest`
and `most`; if all orders are equally likely, it follows the hypergeometric distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hashbench.evaluation.counts.kernels import compiled
from hashbench.evaluation.inputs import Denominator

EXPECTED, LOWEST, HIGHEST = 0, 1, 2

Retrieved = int | Literal["R"]

# From this index on, the asymptotic series of the harmonic numbers is exact to double precision.
_SERIES_FROM = 64
# Weights below this fraction of the largest weight do not change a sum in double precision.
_NEGLIGIBLE = 1e-20


def average_precisions(
    items: NDArray[np.int64], relevant: NDArray[np.int64], k: Retrieved, denominator: Denominator
) -> NDArray[np.float64]:
    """Return the average precision of the top k: expected, lowest and highest over all orders of ties.

    AP@k = (1 / divisor) · Σ over the relevant items in the top k of the precision at their rank. If the
    divisor is 0, so is AP@k.

    Args:
        items: Number of items in each bucket, int64 [queries, buckets], by increasing distance.
        relevant: Number of relevant items in each bucket, int64 [queries, buckets].
        k: Number of items retrieved, 1 <= k <= size of the database; or "R", the number of relevant items of
            each query, which is then also the divisor.
        denominator: Divisor: "hits", the number of relevant items in the top k; "relevant",
            min(k, number of relevant items); or "all_relevant", the number of relevant items.

    Returns:
        float64 [3, queries] with the rows EXPECTED, LOWEST, HIGHEST.
    """
    result = np.empty((3, len(items)))
    if k == "R" or denominator == "all_relevant":
        most: int = np.iinfo(np.int64).max
    else:
        most = k if denominator == "relevant" else 0
    _average_precisions(items, relevant, _ranks(relevant, [k])[0], most, result)
    return result


def hits_at(
    items: NDArray[np.int64], relevant: NDArray[np.int64], ranks: Sequence[Retrieved]
) -> NDArray[np.float64]:
    """Return the number of relevant items in the top k: expected, lowest and highest over all orders of ties.

    Args:
        items: Number of items in each bucket, int64 [queries, buckets], by increasing distance.
        relevant: Number of relevant items in each bucket, int64 [queries, buckets].
        ranks: Numbers of items retrieved, k, in increasing order, 1 <= k <= size of the database; or ["R"],
            the number of relevant items of each query.

    Returns:
        float64 [ranks, 3, queries], where the second axis is EXPECTED, LOWEST, HIGHEST.
    """
    result = np.empty((len(ranks), 3, len(items)))
    _hits_at(items, relevant, _ranks(relevant, ranks), result)
    return result


def _ranks(relevant: NDArray[np.int64], ranks: Sequence[Retrieved]) -> NDArray[np.int64]:
    """Return the number of items retrieved for each query, int64 [ranks, queries]."""
    own = relevant.sum(axis=1)
    return np.array([own if k == "R" else np.full(len(own), k) for k in ranks], np.int64)


@compiled
def _average_precisions(
    items: NDArray[np.int64],
    relevant: NDArray[np.int64],
    ranks: NDArray[np.int64],  # number of items retrieved, [queries]
    most: int,  # limit of the divisor; 0 for hits
    result: NDArray[np.float64],
) -> None:
    for query in range(len(items)):
        k = ranks[query]
        bucket, rank, hits, n, r = _cut(items[query], relevant[query], k, 0, 0, 0)
        divisor = min(most, relevant[query].sum())
        expected, lowest, highest = _sums_before(items[query, :bucket], relevant[query, :bucket])
        expected = _expected_over_cut(rank, hits, n, r, k - rank, expected, divisor)
        lowest, highest = _bounds_over_cut(rank, hits, n, r, k - rank, lowest, highest, divisor)
        result[EXPECTED, query] = expected
        # Without ties all three are equal up to rounding, which must not change their order.
        result[LOWEST, query] = min(lowest, expected)
        result[HIGHEST, query] = max(highest, expected)


@compiled
def average_precisions_within(
    items: NDArray[np.int64], relevant: NDArray[np.int64], buckets: int
) -> NDArray[np.float64]:
    """Return the average precision over only the items in the first buckets.

    The divisor is the number of relevant items in these buckets. If there are none, the AP is 0.

    Args:
        items: Number of items in each bucket, int64 [queries, buckets], by increasing distance.
        relevant: Number of relevant items in each bucket, int64 [queries, buckets].
        buckets: Number of buckets to include; may exceed the number of buckets.

    Returns:
        float64 [3, queries] with the rows EXPECTED, LOWEST, HIGHEST.
    """
    result = np.empty((3, len(items)))
    for query in range(len(items)):
        hits = relevant[query, :buckets].sum()
        expected, lowest, highest = _sums_before(items[query, :buckets], relevant[query, :buckets])
        result[EXPECTED, query] = _ratio(expected, hits, 0)
        result[LOWEST, query] = _ratio(min(lowest, expected), hits, 0)
        result[HIGHEST, query] = _ratio(max(highest, expected), hits, 0)
    return result


@compiled
def _hits_at(
    items: NDArray[np.int64],
    relevant: NDArray[np.int64],
    ranks: NDArray[np.int64],
    result: NDArray[np.float64],
) -> None:
    for query in range(len(items)):
        bucket = rank = hits = 0
        for index in range(len(ranks)):
            k = ranks[index, query]
            bucket, rank, hits, n, r = _cut(items[query], relevant[query], k, bucket, rank, hits)
            fewest, most = _feasible(n, r, k - rank)
            result[index, EXPECTED, query] = hits + (k - rank) * (r / max(n, 1))
            result[index, LOWEST, query] = hits + fewest
            result[index, HIGHEST, query] = hits + most


@compiled
def _cut(
    items: NDArray[np.int64], relevant: NDArray[np.int64], k: int, bucket: int, rank: int, hits: int
) -> tuple[int, int, int, int, int]:
    """Return the bucket that k cuts: its index, rank, hits, items and relevant items (0, 0 if none is cut).

    The search starts from the given bucket, whose rank (at most k) and hits are known.
    """
    while bucket < len(items) and rank + items[bucket] <= k:
        rank += items[bucket]
        hits += relevant[bucket]
        bucket += 1
    if rank == k:
        return bucket, rank, hits, 0, 0
    return bucket, rank, hits, items[bucket], relevant[bucket]


@compiled
def _feasible(items: int, relevant: int, taken: int) -> tuple[int, int]:
    """Return the lowest and highest possible number of relevant items among those taken from a bucket."""
    return max(0, taken - (items - relevant)), min(relevant, taken)


@compiled
def _sums_before(items: NDArray[np.int64], relevant: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the expected, lowest and highest Σ of precisions at the relevant items of whole buckets."""
    rank = hits = 0
    expected = lowest = highest = 0.0
    for bucket in range(len(items)):
        n, r = items[bucket], relevant[bucket]
        if r:
            expected += _expected_sum(rank, hits, n, r)
            lowest += _run_sum(rank + n - r, hits, r)
            highest += _run_sum(rank, hits, r)
        rank += n
        hits += r
    return expected, lowest, highest


@compiled
def _expected_over_cut(
    rank: int, hits: int, items: int, relevant: int, taken: int, nearer: float, divisor: int
) -> float:
    """Return the mean of AP over x, the number of relevant items among those taken from the cut bucket.

    The hypergeometric weights are computed by recurrence outward from the mode, where they are largest, until
    they are negligible, and are normalized by their sum. This avoids factorials and covers only a few
    standard deviations.
    """
    others = items - relevant - taken
    mode = (taken + 1) * (relevant + 1) // (items + 2)
    total = weighted = 0.0
    x, weight = mode, 1.0
    while weight > _NEGLIGIBLE:
        total += weight
        weighted += weight * _ratio(nearer + _expected_sum(rank, hits, taken, x), hits + x, divisor)
        weight *= float(relevant - x) * (taken - x) / (float(x + 1) * (others + x + 1))
        x += 1
    x, weight = mode, 1.0
    while True:
        weight *= float(x) * (others + x) / (float(relevant - x + 1) * (taken - x + 1))
        x -= 1
        if weight <= _NEGLIGIBLE:
            return weighted / total
        total += weight
        weighted += weight * _ratio(nearer + _expected_sum(rank, hits, taken, x), hits + x, divisor)


@compiled
def _bounds_over_cut(
    rank: int, hits: int, items: int, relevant: int, taken: int, low: float, high: float, divisor: int
) -> tuple[float, float]:
    """Return the lowest and highest AP over all feasible x. Fewer hits can score higher."""
    fewest, most = _feasible(items, relevant, taken)
    lowest, highest = math.inf, -math.inf
    end = rank + taken
    last, first = _harmonic(end - fewest, fewest), _harmonic(rank, fewest)
    for x in range(fewest, most + 1):
        # The values of `_run_sum` for x items at the end and at the start of those taken.
        lowest = min(lowest, _ratio(low + x - (end - x - hits) * last, hits + x, divisor))
        highest = max(highest, _ratio(high + x - (rank - hits) * first, hits + x, divisor))
        last += 1.0 / (end - x)
        first += 1.0 / (rank + x + 1)
    return lowest, highest


@compiled
def _ratio(total: float, hits: int, divisor: int) -> float:
    """Return AP from the sum of precisions. A divisor of 0 means the number of hits."""
    divisor = divisor or hits
    return total / divisor if divisor else 0.0


@compiled
def _expected_sum(rank: int, hits: int, items: int, relevant: int) -> float:
    """Return the expected Σ of the precisions at the relevant items of a bucket.

    (r/n) Σ_{i=1..n} (hits + 1 + (i − 1)(r − 1)/(n − 1)) / (rank + i): the item at position i is relevant with
    probability r/n, and then (i − 1)(r − 1)/(n − 1) of the other relevant items are expected before it.
    """
    if relevant == 0:
        return 0.0
    harmonic = _harmonic(rank, items)
    slope = (relevant - 1) / max(items - 1, 1)
    return relevant / items * ((hits + 1) * harmonic + slope * (items - (rank + 1) * harmonic))


@compiled
def _run_sum(rank: int, hits: int, relevant: int) -> float:
    """Return Σ_{j=1..relevant} (hits + j) / (rank + j), for consecutive relevant items after `rank` items."""
    return relevant - (rank - hits) * _harmonic(rank, relevant)


@compiled
def _harmonic(start: int, count: int) -> float:
    """Return Σ_{i=1..count} 1 / (start + i)."""
    end, total = start + count, 0.0
    while start < min(end, _SERIES_FROM):
        start += 1
        total += 1.0 / start
    if start < end:
        total += math.log1p((end - start) / start) + _harmonic_rest(end) - _harmonic_rest(start)
    return total


@compiled
def _harmonic_rest(n: int) -> float:
    """Return H(n) − ln n − γ by its asymptotic series."""
    square = 1.0 / (float(n) * n)
    return 0.5 / n - square * (1 / 12 - square * (1 / 120 - square / 252))
