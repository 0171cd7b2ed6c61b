"""Graded metrics from graded counts, exact over all orders of items at equal distance.

Each metric is a sum over ranks of the gain of the item at the rank times the discount of the rank. Within a
bucket (the items at one distance), the expected gain at each rank is the mean gain of the bucket. The sum is
lowest if the gains increase with the rank and highest if they decrease. This also holds for the bucket that k
cuts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hashbench.evaluation.counts.kernels import compiled
from hashbench.evaluation.metrics import EXPECTED, HIGHEST, LOWEST


def average_cumulative_gains(shared: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return ACG@k, the mean over the top k of the number of labels shared with the query.

    Args:
        shared: Number of items in each bucket by number of shared labels, int64 [queries, buckets, grades].
        k: Number of items retrieved, 1 <= k <= size of the database.

    Returns:
        float64 [3, queries] with the rows EXPECTED, LOWEST, HIGHEST.
    """
    gains = np.arange(shared.shape[2], dtype=np.float64)
    return _cumulative_gains(shared, gains, np.arange(k + 1, dtype=np.float64)) / k


def normalized_discounted_cumulative_gains(shared: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return NDCG@k, which is DCG@k divided by the DCG@k of the best order of the whole database.

    DCG@k = Σ over ranks 1 to k of (2^shared − 1) / log2(1 + rank). NDCG@k is 0 if no item in the database is
    relevant.

    Args:
        shared: Number of items in each bucket by number of shared labels, int64 [queries, buckets, grades].
        k: Number of items retrieved, 1 <= k <= size of the database.

    Returns:
        float64 [3, queries] with the rows EXPECTED, LOWEST, HIGHEST.
    """
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(1 + np.arange(1, k + 1)))])
    by_grade = shared.sum(axis=1, keepdims=True)
    # Gains are divided by about the largest gain that a query can get, so that none overflows.
    highest = shared.shape[2] - 1 - np.argmax(by_grade[:, 0, ::-1] > 0, axis=1)
    result = np.empty((3, len(shared)))
    for grade in np.unique(highest):
        queries = highest == grade
        gains = np.exp2(np.arange(grade + 1) - grade) - np.exp2(-float(grade))
        part, whole = (counts[queries, :, : grade + 1] for counts in (shared, by_grade))
        best = _cumulative_gains(whole, gains, discounts)[HIGHEST]
        result[:, queries] = _cumulative_gains(part, gains, discounts) / np.where(best > 0, best, 1)
    return result


@compiled
def _cumulative_gains(
    shared: NDArray[np.int64], gains: NDArray[np.float64], discounts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return Σ over the ranks of gain times discount, float64 [3, queries].

    Args:
        shared: Number of items by grade, int64 [queries, buckets, grades].
        gains: Gain of each grade, nondecreasing, [grades].
        discounts: Sums of the discounts of the first 0, 1, …, k ranks, [k + 1].
    """
    result = np.empty((3, len(shared)))
    k, grades = len(discounts) - 1, len(gains)
    for query in range(len(shared)):
        rank = 0
        expected = lowest = highest = 0.0
        for bucket in range(shared.shape[1]):
            counts = shared[query, bucket]
            items, total = 0, 0.0
            for grade in range(grades):
                items += counts[grade]
                total += counts[grade] * gains[grade]
            if items == 0:
                continue
            end = min(rank + items, k)
            expected += total / items * (discounts[end] - discounts[rank])
            first = last = rank
            for grade in range(grades):
                stop = min(first + counts[grade], end)
                lowest += gains[grade] * (discounts[stop] - discounts[first])
                first = stop
                stop = min(last + counts[grades - 1 - grade], end)
                highest += gains[grades - 1 - grade] * (discounts[stop] - discounts[last])
                last = stop
            rank = end
            if rank == k:
                break
        result[EXPECTED, query] = expected
        # Without ties all three are equal up to rounding, which must not change their order.
        result[LOWEST, query] = min(lowest, expected)
        result[HIGHEST, query] = max(highest, expected)
    return result
