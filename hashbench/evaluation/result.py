"""The result of an evaluation: every metric of the rankings of one set of codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashbench.codes import as_array
from hashbench.errors import UsageError
from hashbench.evaluation.counts.binary import Counts
from hashbench.evaluation.counts.graded import GradedCounts
from hashbench.evaluation.counts.product import ProductRankings
from hashbench.evaluation.graded import average_cumulative_gains, normalized_discounted_cumulative_gains
from hashbench.evaluation.metrics import EXPECTED, average_precisions, average_precisions_within, hits_at
from hashbench.runtime.arguments import as_count, check_choice, check_type

Cutoff = int | Literal["all"]
Denominator = Literal["hits", "relevant"]
NoRelevant = Literal["zero", "skip"]
Average = Literal["macro", "micro"]
Cutoffs = Iterable[Cutoff] | Cutoff | NDArray[np.integer[Any]]

_DEFAULT_RANKS = 100
_BOUNDS = ("expected", "lowest", "highest")  # in the order of EXPECTED, LOWEST, HIGHEST


class _Reported(NamedTuple):
    relevant: NDArray[np.float64]  # items, [queries]
    largest: NDArray[np.float64]  # items in the largest bucket, [queries]
    average_precisions: dict[int, NDArray[np.float64]]  # by number retrieved, [3, queries]
    hits: dict[int, NDArray[np.float64]]  # the same


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Retrieval metrics of one set of rankings; a metric is the mean over the counted queries.

    Where items tie in distance, a metric is its expectation over all orders of the tied items. `k` of a
    method is a number of items retrieved or "all"; beyond the size of the database it means the database.

    Attributes:
        rankings: What is known of the order of the database for each query: counts per Hamming distance, or
            product codes, which are ranked anew for what is not reported.
        k: The cut-offs that `to_dict` reports; every method takes any other one as well.
        radius: Hamming radius of `precision_within_radius` and `mean_average_precision_within_radius`, in
            bits.
        denominator: What AP@k divides by: "hits", the relevant items in the top k, or "relevant",
            min(k, all relevant items).
        no_relevant: Queries without a relevant item in the database score 0 ("zero") or are left out of every
            mean ("skip").
        graded: The counts of `rankings` by number of shared labels, which `ndcg` and `acg` need.

    Raises:
        UsageError: A setting has no such value, no query is left to average, or the graded counts are of
            other rankings.
    """

    rankings: Counts | ProductRankings
    k: Sequence[Cutoff] = (1000, "all")
    radius: int = 2
    denominator: Denominator = "hits"
    no_relevant: NoRelevant = "zero"
    graded: GradedCounts | None = None

    def __post_init__(self) -> None:
        check_type("rankings", self.rankings, Counts, ProductRankings)
        check_type("graded", self.graded, GradedCounts, type(None))
        for name, value in check_settings(self.k, self.radius, self.denominator, self.no_relevant).items():
            object.__setattr__(self, name, value)
        if self.graded is not None and not (
            np.array_equal(self.graded.counts.items, self.counts.items)
            and np.array_equal(self.graded.counts.relevant, self.counts.relevant)
        ):
            raise UsageError("graded: the graded counts are not of these rankings; pass `graded.counts` too")
        if not self.counted.any():
            raise UsageError("no_relevant='skip' leaves no query: none has a relevant item in the database")

    @property
    def counts(self) -> Counts:
        """Items and relevant items per Hamming distance.

        Raises:
            UsageError: The codes are product codes.
        """
        if not isinstance(self.rankings, Counts):
            raise UsageError("product codes have no Hamming distances, and so no counts and no radius")
        return self.rankings

    @property
    def queries_without_relevant(self) -> int:
        """Number of queries with no relevant item in the database."""
        return int((self._relevant == 0).sum())

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Whether a query has a part in the means, bool [queries]; `no_relevant` says which have none."""
        return np.asarray((self._relevant > 0) | (self.no_relevant == "zero"))

    def average_precision(self, k: Cutoff) -> NDArray[np.float64]:
        """Expected AP@k of each query, float64 [queries]; 0 for those without a relevant item.

        AP@k = (1 / divisor) · Σ over the relevant items in the top k of the precision at their rank;
        `denominator` says what divides. No hit in the top k gives 0.
        """
        expected: NDArray[np.float64] = self._average_precisions(k)[EXPECTED]
        return expected

    def mean_average_precision(self, k: Cutoff) -> float:
        """Expected mAP@k: the mean of `average_precision`."""
        return self._means(self._average_precisions(k))["expected"]

    def bounds(self, k: Cutoff) -> tuple[float, float]:
        """The lowest and the highest mAP@k that any order of tied items could give."""
        means = self._means(self._average_precisions(k))
        return means["lowest"], means["highest"]

    def chance(self, k: Cutoff) -> float:
        """Expected mAP@k of a random ranking of the same database: of codes that are all equal."""
        items = np.full((self.rankings.queries, 1), self.rankings.database, np.int64)
        tied = Counts(items, self._relevant.astype(np.int64)[:, None])
        return replace(self, rankings=tied, graded=None).mean_average_precision(k)

    @property
    def largest_ties(self) -> NDArray[np.float64]:
        """Share of the database in the largest group of equal distances from a query, float64 [queries]."""
        return np.asarray(self._reported.largest / self.rankings.database)

    def precision(self, k: Cutoff) -> float:
        """Expected share of relevant items in the top k."""
        return self._means(self._precisions(k))["expected"]

    def recall(self, k: Cutoff) -> float:
        """Expected share of a query's relevant items that the top k holds; 0 if it has none."""
        return self._means(self._recalls(k))["expected"]

    @property
    def precision_within_radius(self) -> float:
        """Share of relevant items within `radius` bits of the query; an empty ball counts 0."""
        ball = slice(self.radius + 1)
        relevant, items = self.counts.relevant[:, ball].sum(axis=1), self.counts.items[:, ball].sum(axis=1)
        return float(_share(relevant, items)[self.counted].mean())

    @property
    def average_precision_within_radius(self) -> NDArray[np.float64]:
        """Expected AP of only the items within `radius` bits of each query, float64 [queries].

        It divides by the relevant items in that ball, whatever `denominator` says; a ball without any is 0.
        """
        expected: NDArray[np.float64] = self._average_precisions_within_radius[EXPECTED]
        return expected

    @property
    def mean_average_precision_within_radius(self) -> float:
        """Expected mAP@H<=radius: the mean of `average_precision_within_radius`."""
        return self._means(self._average_precisions_within_radius)["expected"]

    @property
    def bounds_within_radius(self) -> tuple[float, float]:
        """The lowest and the highest mAP@H<=radius that any order of tied items could give."""
        means = self._means(self._average_precisions_within_radius)
        return means["lowest"], means["highest"]

    def ndcg(self, k: Cutoff) -> float:
        """Expected NDCG@k: gain 2^shared labels − 1, discount 1 / log2(1 + rank), over the best order's.

        Raises:
            UsageError: The evaluation is not graded.
        """
        return self._means(self._ndcgs(k))["expected"]

    def acg(self, k: Cutoff) -> float:
        """Expected ACG@k, the average cumulative gain: the mean number of shared labels in the top k.

        Raises:
            UsageError: The evaluation is not graded.
        """
        return self._means(self._acgs(k))["expected"]

    def curve_by_rank(self, ranks: Cutoffs | None = None) -> pd.DataFrame:
        """Expected precision and recall of the top k for each k of `ranks`.

        Args:
            ranks: Numbers of items retrieved; by default about a hundred from 1 to the size of the database,
                evenly spaced on a logarithmic scale.

        Returns:
            Columns rank, precision, recall; a row for each rank.
        """
        if ranks is None:
            spaced = np.geomspace(1, self.rankings.database, _DEFAULT_RANKS)
            ranks = np.unique(spaced.round().astype(int)).tolist()
        ranks = read_cutoffs(ranks, "ranks")
        retrieved, places = np.unique([self._items(rank) for rank in ranks], return_inverse=True)
        hits = self.rankings.each(
            lambda items, relevant: hits_at(items, relevant, retrieved.tolist())[:, EXPECTED]
        )  # [ranks, queries]
        precision, recall = hits / retrieved[:, None], _share(hits, self._relevant)
        curve: pd.DataFrame = pd.DataFrame(
            {
                "rank": ranks,
                "precision": precision[:, self.counted].mean(axis=1)[places],
                "recall": recall[:, self.counted].mean(axis=1)[places],
            }
        )
        return curve

    def curve_by_radius(self, average: Average = "macro") -> pd.DataFrame:
        """Precision and recall of the items within each Hamming radius.

        Args:
            average: "macro": the mean over queries of their precision (an empty ball counts 0) and recall;
                "micro": precision and recall of all pairs of a query and an item together.

        Returns:
            Columns radius, precision, recall; a row for each radius from 0 to bits.
        """
        check_choice("average", average, get_args(Average))
        items = np.cumsum(self.counts.items[self.counted], axis=1)
        relevant = np.cumsum(self.counts.relevant[self.counted], axis=1)
        if average == "micro":
            items, relevant = items.sum(axis=0, keepdims=True), relevant.sum(axis=0, keepdims=True)
        precision = _share(relevant, items).mean(axis=0)
        recall = _share(relevant, relevant[:, -1:]).mean(axis=0)
        radius = np.arange(len(precision))
        curve: pd.DataFrame = pd.DataFrame({"radius": radius, "precision": precision, "recall": recall})
        return curve

    def to_dict(self) -> dict[str, Any]:
        """Settings and metrics, ready for JSON; each metric as {"expected", "lowest", "highest"}."""
        metrics = {f"mAP@{k}": self._means(self._average_precisions(k)) for k in self.k}
        metrics |= {f"P@{k}": self._means(self._precisions(k)) for k in self.k}
        metrics |= {f"R@{k}": self._means(self._recalls(k)) for k in self.k}
        if self.graded is not None:
            metrics |= {f"NDCG@{k}": self._means(self._ndcgs(k)) for k in self.k}
            metrics |= {f"ACG@{k}": self._means(self._acgs(k)) for k in self.k}
        if isinstance(self.rankings, Counts):
            metrics[f"P@H<={self.radius}"] = dict.fromkeys(_BOUNDS, self.precision_within_radius)
            metrics[f"mAP@H<={self.radius}"] = self._means(self._average_precisions_within_radius)
        settings = {
            "k": list(self.k),
            "radius": self.radius,
            "denominator": self.denominator,
            "no_relevant": self.no_relevant,
            "bits": self.rankings.bits,
            "queries": self.rankings.queries,
            "queries_without_relevant": self.queries_without_relevant,
            "database": self.rankings.database,
        }
        return {"settings": settings, "metrics": metrics}

    @cached_property
    def _reported(self) -> _Reported:
        """What one pass over the rankings gives."""
        cutoffs = sorted({self._items(k) for k in self.k})

        def measure(items: NDArray[np.int64], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
            parts = [average_precisions(items, relevant, k, self._over_relevant) for k in cutoffs]
            parts += list(hits_at(items, relevant, cutoffs))
            return np.vstack([relevant.sum(axis=1), items.max(axis=1), *parts])

        rows = self.rankings.each(measure)
        averages, hits = rows[2:].reshape(2, len(cutoffs), 3, -1)
        return _Reported(
            rows[0], rows[1], dict(zip(cutoffs, averages, strict=True)), dict(zip(cutoffs, hits, strict=True))
        )

    @property
    def _over_relevant(self) -> bool:
        return self.denominator == "relevant"

    @property
    def _relevant(self) -> NDArray[np.float64]:
        return self._reported.relevant

    def _items(self, k: Cutoff) -> int:
        """How many items `k` retrieves."""
        k = check_cutoff(k)
        return self.rankings.database if k == "all" else min(k, self.rankings.database)

    def _average_precisions(self, k: Cutoff) -> NDArray[np.float64]:
        """AP@k, float64 [3, queries]."""
        retrieved = self._items(k)
        if retrieved in self._reported.average_precisions:
            return self._reported.average_precisions[retrieved]
        return self.rankings.each(
            lambda items, relevant: average_precisions(items, relevant, retrieved, self._over_relevant)
        )

    def _hits_at(self, k: Cutoff) -> NDArray[np.float64]:
        """Hits at k, float64 [3, queries]."""
        retrieved = self._items(k)
        if retrieved in self._reported.hits:
            return self._reported.hits[retrieved]
        return self.rankings.each(lambda items, relevant: hits_at(items, relevant, [retrieved])[0])

    def _precisions(self, k: Cutoff) -> NDArray[np.float64]:
        return np.asarray(self._hits_at(k) / self._items(k))

    def _recalls(self, k: Cutoff) -> NDArray[np.float64]:
        return _share(self._hits_at(k), self._relevant)

    @property
    def _average_precisions_within_radius(self) -> NDArray[np.float64]:
        buckets = min(self.radius, self.rankings.bits) + 1
        return average_precisions_within(self.counts.items, self.counts.relevant, buckets)

    def _ndcgs(self, k: Cutoff) -> NDArray[np.float64]:
        return normalized_discounted_cumulative_gains(self._shared, self._items(k))

    def _acgs(self, k: Cutoff) -> NDArray[np.float64]:
        return average_cumulative_gains(self._shared, self._items(k))

    @property
    def _shared(self) -> NDArray[np.int64]:
        if self.graded is None:
            raise UsageError("NDCG and ACG need the number of shared labels; evaluate with graded=True")
        return self.graded.shared

    def _means(self, values: NDArray[np.float64]) -> dict[str, float]:
        means = values[:, self.counted].mean(axis=1)
        return {name: float(means[row]) for row, name in enumerate(_BOUNDS)}


def check_settings(k: Cutoffs, radius: int, denominator: str, no_relevant: str) -> dict[str, Any]:
    """Return the settings of an `Evaluation` as it keeps them.

    Raises:
        UsageError: One has no such value.
    """
    check_choice("denominator", denominator, get_args(Denominator))
    check_choice("no_relevant", no_relevant, get_args(NoRelevant))
    return {
        "k": read_cutoffs(k, "k"),
        "radius": as_count(radius, "radius", "a number of bits, 0 or more", least=0),
        "denominator": denominator,
        "no_relevant": no_relevant,
    }


def read_cutoffs(values: Cutoffs, name: str) -> tuple[Cutoff, ...]:
    """Return cut-offs given as a list, an array or a tensor, or a single one.

    Raises:
        UsageError: There is none, or one is neither a number of items nor "all".
    """
    given: Any = values
    if hasattr(given, "tolist"):
        given = as_array(given, name).tolist()
    listed = [*given] if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not listed:
        raise UsageError(f"{name}: expected at least one cut-off, found none")
    return tuple(check_cutoff(value, name) for value in listed)


def check_cutoff(k: Cutoff, name: str = "k") -> Cutoff:
    """Return a cut-off, a number of items or "all".

    Raises:
        UsageError: It is neither.
    """
    if isinstance(k, str) and k == "all":
        return "all"
    return as_count(k, name, "a number of items, 1 or more, or 'all'", least=1)


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Part of the whole, 0 where there is no whole."""
    return np.asarray(part / np.maximum(whole, 1), np.float64)
