"""Paired tests over queries: could the difference of two means over the same queries be chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
FEWEST = 20  # queries that are tested: fewer say little of others, and the interval would be too narrow
_CHUNK = 2**22  # numbers of resampled queries held at once
DIGITS = 12  # that count: another version of NumPy or Numba may add in another order

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""A value of each query [queries] by one method, and by another."""

PairedTest = Literal["bootstrap", "permutation"]

DESCRIBED: dict[PairedTest, str] = {
    "bootstrap": "paired bootstrap over the queries, 95 %",
    "permutation": "paired permutation test over the queries, 5 %",
}
"""The tests, as notes below a table name them."""


@dataclass(frozen=True)
class Difference:
    """The difference of two means over the same queries.

    Attributes:
        mean: First minus second.
        lowest: Lower end of the 95 % interval of the bootstrap; None if there was no test.
        highest: Upper end of it; None if there was no test.
        p: Two-sided p-value of no difference; None if there was no test.
        test: The test that `p` and `distinguishable` are of.
        untested: Why there was no test; None if there was one.
    """

    mean: float
    lowest: float | None
    highest: float | None
    p: float | None
    test: PairedTest
    untested: str | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether the test tells the means apart: the interval leaves out 0, or p is less than 5 %."""
        if self.lowest is None or self.highest is None or self.p is None:
            return False
        return self.p < 0.05 if self.test == "permutation" else not self.lowest <= 0 <= self.highest


def paired_test(
    pairs: Sequence[Pair], test: PairedTest = "bootstrap", resamples: int = RESAMPLES
) -> list[Difference]:
    """Compare pairs of means over queries.

    The bootstrap draws the queries with replacement, as many as there are; both means of a pair are taken
    over the same draw, which is what pairs them (Efron's percentile interval). The permutation test swaps the
    two values of a query at random, which gives the differences that chance would make if the methods were
    alike; the interval beside it is the bootstrap's. Draws have a fixed seed: the same values give the same
    result.

    Either says how far the difference would vary with other queries of the same kind; not how far it varies
    with another training, which the spread over seeds shows. Fewer than `FEWEST` queries are not tested, nor
    is a difference that is the same for every query, since no resample of it varies.

    Args:
        pairs: A value for each query [queries], and the same of what it is compared with; none is NaN.
        test: The test.
        resamples: Number of draws.

    Returns:
        First minus second, for each pair.
    """
    differences = [np.round(first - second, DIGITS) for first, second in pairs]
    found: dict[int, Difference] = {}
    by_queries: dict[int, list[int]] = {}
    for index, values in enumerate(differences):
        if why := _untestable(values):
            mean = float(np.round(values.mean(), DIGITS))
            found[index] = Difference(mean, None, None, None, test, why)
        else:
            by_queries.setdefault(len(values), []).append(index)
    for indices in by_queries.values():  # drawing is most of the work, and the same for all of a length
        rows = np.stack([differences[index] for index in indices])
        found |= zip(indices, _bootstrap(rows, resamples), strict=True)
    results = [found[index] for index in range(len(pairs))]
    if test == "bootstrap":
        return results
    return [
        replace(result, p=_permutation(values, resamples), test=test) if result.untested is None else result
        for result, values in zip(results, differences, strict=True)
    ]


def _untestable(differences: NDArray[np.float64]) -> str | None:
    """Return why differences [queries] cannot be tested, or None if they can."""
    if len(differences) < FEWEST:
        return f"{len(differences)} queries, fewer than {FEWEST}"
    return None if np.ptp(differences) else "the difference is the same for every query"


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
    return [Difference(mean, low, high, chance, "bootstrap") for mean, low, high, chance in values.tolist()]


def _draws(random: np.random.Generator, count: int, queries: int) -> NDArray[np.float64]:
    """Weights of the queries in `count` resamples, float64 [queries, count]; a column sums to 1."""
    drawn = random.integers(queries, size=(count, queries)) + queries * np.arange(count)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
    return np.asarray(times.T / queries)


def _permutation(differences: NDArray[np.float64], resamples: int) -> float:
    """Return the p-value of differences [queries]: to swap the values of a query changes its sign."""
    from scipy.stats import permutation_test  # here, as it takes a second to import

    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=resamples,
        batch=max(1, _CHUNK // len(differences)),
        rng=np.random.default_rng(0),
    )
    return float(np.round(result.pvalue, DIGITS))
