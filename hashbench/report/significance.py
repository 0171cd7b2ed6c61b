"""Paired tests over queries of whether the difference of two means may be due to chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
MIN_QUERIES = 20  # with fewer queries, the interval would be too narrow
DIGITS = 12  # that count, since other versions of NumPy or Numba may add in a different order
_CHUNK = 2**22  # numbers of resampled queries in memory at once

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The values of each query [queries] for one method and for another."""

PairedTest = Literal["bootstrap", "permutation"]

DESCRIBED: dict[PairedTest, str] = {
    "bootstrap": "paired bootstrap over the queries, 95 %",
    "permutation": "paired permutation test over the queries, 5 %",
}
"""Description of each test for the notes below a table."""


@dataclass(frozen=True)
class Difference:
    """The difference of two means over the same queries.

    Attributes:
        mean: First minus second.
        lowest: Lower end of the bootstrap's 95 % interval; None if there was no test.
        highest: Upper end of the bootstrap's 95 % interval; None if there was no test.
        p: Two-sided p-value of the null hypothesis of no difference; None if there was no test.
        test: The test that gave `p` and decides `distinguishable`.
        untested: Reason why there was no test; None if there was one.
    """

    mean: float
    lowest: float | None
    highest: float | None
    p: float | None
    test: PairedTest
    untested: str | None = None

    @property
    def distinguishable(self) -> bool:
        """Return True if the test distinguishes the means: the interval excludes 0, or p is below 5 %."""
        if self.lowest is None or self.highest is None or self.p is None:
            return False
        return self.p < 0.05 if self.test == "permutation" else not self.lowest <= 0 <= self.highest


def paired_test(
    pairs: Sequence[Pair], test: PairedTest = "bootstrap", resamples: int = RESAMPLES
) -> list[Difference]:
    """Compare pairs of means over queries.

    The bootstrap draws as many queries as there are, with replacement; both means of a pair use the same
    draw, which pairs them (Efron's percentile interval). The permutation test swaps the two values of a query
    at random, which gives the distribution of the difference if the methods were equal; its interval is that
    of the bootstrap. The random seed is fixed, so the same values give the same result.

    Both tests show how the difference would vary with other queries of the same kind. They do not show how it
    varies between trainings; the standard deviation over seeds does. Fewer than `MIN_QUERIES` queries are not
    tested, nor is a difference that is the same for every query, since it does not vary between resamples.

    Args:
        pairs: The values of each query [queries] for two methods; none is NaN.
        test: The test.
        resamples: Number of resamples.

    Returns:
        The difference, first minus second, of each pair.
    """
    differences = [np.round(first - second, DIGITS) for first, second in pairs]
    found: dict[int, Difference] = {}
    by_queries: dict[int, list[int]] = {}
    for index, values in enumerate(differences):
        if untested := _untestable(values):
            mean = float(np.round(values.mean(), DIGITS))
            found[index] = Difference(mean, None, None, None, test, untested)
        else:
            by_queries.setdefault(len(values), []).append(index)
    for indices in by_queries.values():  # pairs with the same number of queries share the draws
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
    if len(differences) < MIN_QUERIES:
        return f"{len(differences)} queries, fewer than {MIN_QUERIES}"
    return None if np.ptp(differences) else "the difference is the same for every query"


def _bootstrap(differences: NDArray[np.float64], resamples: int) -> list[Difference]:
    """Compute the mean, interval and p-value of differences [pairs, queries]."""
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
    # Rounded, since the order of additions depends on the number of threads.
    values = np.round([differences.mean(axis=1), lowest, highest, p], DIGITS).T
    return [Difference(mean, low, high, chance, "bootstrap") for mean, low, high, chance in values.tolist()]


def _draws(random: np.random.Generator, count: int, queries: int) -> NDArray[np.float64]:
    """Draw the weights of the queries in `count` resamples [queries, count]; each column sums to 1."""
    drawn = random.integers(queries, size=(count, queries)) + queries * np.arange(count)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries)
    return np.asarray(times.T / queries)


def _permutation(differences: NDArray[np.float64], resamples: int) -> float:
    """Return the p-value of differences [queries], whose signs change when the values of a query swap."""
    from scipy.stats import permutation_test  # takes a second to import

    result = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=resamples,
        batch=max(1, _CHUNK // len(differences)),
        rng=np.random.default_rng(0),
    )
    return float(np.round(result.pvalue, DIGITS))
