"""Whether a difference of two means over the same queries could be chance: the paired bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK = 2**22  # numbers of resampled queries held at once
DIGITS = 12  # that count: another version of NumPy or Numba may add in another order

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""A value of each query [queries] by one method, and by another."""


@dataclass(frozen=True)
class Difference:
    """The difference of two means over the same queries.

    Attributes:
        mean: First minus second.
        lowest: Lower end of the 95 % interval.
        highest: Upper end of it.
        p: Two-sided p-value of no difference.
    """

    mean: float
    lowest: float
    highest: float
    p: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.lowest <= 0 <= self.highest


def paired_bootstrap(pairs: Sequence[Pair], resamples: int = RESAMPLES) -> list[Difference]:
    """Compare pairs of means over queries, by resampling the queries (Efron's percentile interval).

    Both means of a pair are taken over the same resampled queries, which is what pairs them. The draw has a
    fixed seed: the same values give the same result. It says how far the difference would vary with other
    queries of the same kind; not how far it varies with another training, which the spread over seeds shows.

    Args:
        pairs: A value for each query [queries], and the same of what it is compared with.
        resamples: Number of times that the queries are drawn anew, as many as there are, with replacement.

    Returns:
        First minus second, for each pair.
    """
    by_queries: dict[int, list[int]] = {}
    for place, (first, _) in enumerate(pairs):
        by_queries.setdefault(len(first), []).append(place)
    found: dict[int, Difference] = {}
    for places in by_queries.values():  # drawing is most of the work, and the same for all of a length
        differences = np.stack([pairs[place][0] - pairs[place][1] for place in places])
        differences = np.round(differences, DIGITS)
        found |= zip(places, _bootstrap(differences, resamples), strict=True)
    return [found[place] for place in range(len(pairs))]


def _bootstrap(differences: NDArray[np.float64], resamples: int) -> list[Difference]:
    """Mean, interval and p-value of differences [pairs, queries]."""
    queries = differences.shape[1]
    random = np.random.default_rng(0)
    rows = max(1, _CHUNK // queries)
    means = np.concatenate(
        [
            differences @ _draws(random, min(rows, resamples - start), queries)
            for start in range(0, resamples, rows)
        ],
        axis=1,
    )  # [pairs, resamples]
    lowest, highest = np.quantile(means, (0.025, 0.975), axis=1)
    not_above, not_below = ((side.sum(axis=1) + 1) / (resamples + 1) for side in (means <= 0, means >= 0))
    p = np.minimum(1, 2 * np.minimum(not_above, not_below))
    # Rounded, since another number of threads adds in another order.
    values = np.round([differences.mean(axis=1), lowest, highest, p], DIGITS).T
    return [Difference(*map(float, row)) for row in values]


def _draws(random: np.random.Generator, count: int, queries: int) -> NDArray[np.float64]:
    """Weights of the queries in `count` resamples, float64 [queries, count]; a column sums to 1."""
    drawn = random.integers(queries, size=(count, queries)) + queries * np.arange(count)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
    return np.asarray(times.T / queries)
