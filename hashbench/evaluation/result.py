"""The result of an evaluation: all metrics of the rankings given by one set of codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashbench.errors import UsageError
from hashbench.evaluation.counts.binary import Counts
from hashbench.evaluation.counts.graded import GradedCounts
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.counts.product import ProductRankings
from hashbench.evaluation.frames import BOUNDS, by_class, curve_by_radius, curve_by_rank, default_ranks, share
from hashbench.evaluation.graded import average_cumulative_gains, normalized_discounted_cumulative_gains
from hashbench.evaluation.inputs import (
    Average,
    Cutoff,
    Cutoffs,
    Denominator,
    NoRelevant,
    check_cutoff,
    check_settings,
    read_cutoffs,
)
from hashbench.evaluation.metrics import (
    EXPECTED,
    Retrieved,
    average_precisions,
    average_precisions_within,
    hits_at,
)
from hashbench.runtime.arguments import check_choice, check_type
from hashbench.runtime.summary import Summarized


class _Reported(NamedTuple):
    relevant: NDArray[np.float64]  # number of relevant items, [queries]
    largest: NDArray[np.float64]  # number of items in the largest bucket, [queries]
    average_precisions: dict[Retrieved, NDArray[np.float64]]  # number of items retrieved -> [3, queries]
    hits: dict[Retrieved, NDArray[np.float64]]  # number of items retrieved -> [3, queries]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Summarized):
    """Retrieval metrics of one set of rankings. A metric is the mean over the counted queries.

    If items are at the same distance, a metric is its expectation over all orders of the tied items. The
    argument `k` of a method is a number of items retrieved or "all"; a number larger than the database means
    the whole database. "R" is the number of relevant items of the query: P@R is R-precision, and mAP@R is the
    MAP@R of metric learning, which divides by R whatever `denominator` is (Musgrave et al., ECCV 2020).

    Attributes:
        rankings: The ranking of the database for each query: counts per Hamming distance, or product codes,
            which are ranked again for every cut-off that is not in `k`.
        k: The cut-offs that `to_dict` reports. The methods accept any cut-off.
        radius: Hamming radius, in bits, of the precision and the mAP within a radius.
        denominator: Divisor of AP@k: "hits", the number of relevant items in the top k; "relevant",
            min(k, number of relevant items); or "all_relevant", the number of relevant items.
        no_relevant: Queries without a relevant item in the database score 0 ("zero") or are excluded from
            every mean ("skip").
        graded: The counts of `rankings` by number of shared labels, which `ndcg` and `acg` need.
        query_labels: The labels of the queries, which `per_class` needs.

    Raises:
        UsageError: A setting is invalid, no query is left to average, or the graded counts belong to other
            rankings.
    """

    rankings: Counts | ProductRankings
    k: Sequence[Cutoff] = (1000, "all")
    radius: int = 2
    denominator: Denominator = "hits"
    no_relevant: NoRelevant = "zero"
    graded: GradedCounts | None = None
    query_labels: Labels | None = None

    def __post_init__(self) -> None:
        check_type("rankings", self.rankings, Counts, ProductRankings)
        check_type("graded", self.graded, GradedCounts, type(None))
        check_type("query_labels", self.query_labels, Labels, type(None))
        for name, value in check_settings(self.k, self.radius, self.denominator, self.no_relevant).items():
            object.__setattr__(self, name, value)
        if self.graded is not None and not (
            np.array_equal(self.graded.counts.items, self.counts.items)
            and np.array_equal(self.graded.counts.relevant, self.counts.relevant)
        ):
            raise UsageError(
                "graded: the graded counts belong to other rankings; pass `graded.counts` as rankings"
            )
        if not self.counted.any():
            raise UsageError("no_relevant='skip' leaves no query: none has a relevant item in the database")

    @property
    def counts(self) -> Counts:
        """Numbers of items and of relevant items per Hamming distance.

        Raises:
            UsageError: The codes are product codes.
        """
        if not isinstance(self.rankings, Counts):
            raise UsageError("product codes have no Hamming distances, and therefore no counts and no radius")
        return self.rankings

    @property
    def queries_without_relevant(self) -> int:
        """Number of queries with no relevant item in the database."""
        return int((self._relevant == 0).sum())

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Mask of the queries that the means include, bool [queries]; see `no_relevant`."""
        return np.asarray((self._relevant > 0) | (self.no_relevant == "zero"))

    def average_precision(self, k: Cutoff) -> NDArray[np.float64]:
        """Return the expected AP@k of each query, float64 [queries]; 0 for queries without relevant items.

        AP@k = (1 / divisor) · Σ over the relevant items in the top k of the precision at their rank, where
        `denominator` selects the divisor. AP@k is 0 if the top k contains no relevant item.
        """
        expected: NDArray[np.float64] = self._average_precisions(k)[EXPECTED]
        return expected

    def mean_average_precision(self, k: Cutoff) -> float:
        """Return the expected mAP@k, the mean of `average_precision`."""
        return self._means(self._average_precisions(k))["expected"]

    def bounds(self, k: Cutoff) -> tuple[float, float]:
        """Return the lowest and the highest mAP@k that any order of tied items could give."""
        means = self._means(self._average_precisions(k))
        return means["lowest"], means["highest"]

    def chance(self, k: Cutoff) -> float:
        """Return the expected mAP@k of a random ranking of the same database, as identical codes give."""
        items = np.full((self.rankings.queries, 1), self.rankings.database, np.int64)
        tied = Counts(items, self._relevant.astype(np.int64)[:, None])
        return replace(self, rankings=tied, graded=None).mean_average_precision(k)

    @property
    def largest_ties(self) -> NDArray[np.float64]:
        """Fraction of the database in the largest group of tied items, float64 [queries]."""
        return np.asarray(self._reported.largest / self.rankings.database)

    def precision(self, k: Cutoff) -> float:
        """Return the expected fraction of the top k that is relevant."""
        return self._means(self._precisions(k))["expected"]

    def recall(self, k: Cutoff) -> float:
        """Return the expected fraction of the relevant items that is in the top k; 0 if a query has none."""
        return self._means(self._recalls(k))["expected"]

    @property
    def precision_within_radius(self) -> float:
        """Fraction of the items within `radius` bits of the query that is relevant; 0 if there are none."""
        ball = slice(self.radius + 1)
        relevant, items = self.counts.relevant[:, ball].sum(axis=1), self.counts.items[:, ball].sum(axis=1)
        return float(share(relevant, items)[self.counted].mean())

    @property
    def average_precision_within_radius(self) -> NDArray[np.float64]:
        """Expected AP over only the items within `radius` bits of each query, float64 [queries].

        The divisor is the number of relevant items within the radius, whatever `denominator` is. If there
        are none, the AP is 0.
        """
        expected: NDArray[np.float64] = self._average_precisions_within_radius[EXPECTED]
        return expected

    @property
    def mean_average_precision_within_radius(self) -> float:
        """Expected mAP@H<=radius, the mean of `average_precision_within_radius`."""
        return self._means(self._average_precisions_within_radius)["expected"]

    @property
    def bounds_within_radius(self) -> tuple[float, float]:
        """Lowest and highest mAP@H<=radius that any order of tied items could give."""
        means = self._means(self._average_precisions_within_radius)
        return means["lowest"], means["highest"]

    def ndcg(self, k: Cutoff) -> float:
        """Return the expected NDCG@k, with gain 2^shared labels − 1 and discount 1 / log2(1 + rank).

        Raises:
            UsageError: The evaluation is not graded.
        """
        return self._means(self._ndcgs(k))["expected"]

    def acg(self, k: Cutoff) -> float:
        """Return the expected ACG@k (average cumulative gain), the mean number of shared labels in the top k.

        Raises:
            UsageError: The evaluation is not graded.
        """
        return self._means(self._acgs(k))["expected"]

    def curve_by_rank(self, ranks: Cutoffs | None = None) -> pd.DataFrame:
        """Return the expected precision and recall of the top k for each k in `ranks`.

        Args:
            ranks: Numbers of items retrieved; by default about a hundred from 1 to the size of the database,
                evenly spaced on a logarithmic scale.

        Returns:
            A data frame with the columns rank, precision and recall and one row per rank.
        """
        ranks = read_cutoffs(default_ranks(self.rankings.database) if ranks is None else ranks, "ranks")
        retrieved = [self._items(rank) for rank in ranks]
        return curve_by_rank(self.rankings, ranks, retrieved, self._relevant, self.counted)

    def curve_by_radius(self, average: Average = "macro") -> pd.DataFrame:
        """Return the precision and recall of the items within each Hamming radius.

        Args:
            average: "macro": mean of the precision (0 if there are no items within the radius) and recall of
                each query; "micro": precision and recall over all query-item pairs together.

        Returns:
            A data frame with the columns radius, precision and recall and one row per radius from 0 to bits.
        """
        check_choice("average", average, get_args(Average))
        return curve_by_radius(self.counts, self.counted, average)

    def per_class(self, k: Cutoff = "all") -> pd.DataFrame:
        """Return mAP@k per class of the queries; a query counts in each of its classes.

        Returns:
            A data frame with the columns queries, expected, lowest and highest; one row per class that has a
            counted query, then "macro", the mean over these classes, and "micro", the mean over the queries.

        Raises:
            UsageError: There are no labels.
        """
        if self.query_labels is None:
            raise UsageError("per_class needs the labels of the queries; evaluate with labels")
        return by_class(self.query_labels, self._average_precisions(k), self.counted)

    def to_dict(self) -> dict[str, Any]:
        """Return settings and metrics, ready for JSON; each metric as {"expected", "lowest", "highest"}."""
        functions = {"mAP": self._average_precisions, "P": self._precisions, "R": self._recalls}
        metrics = {f"{name}@{k}": self._means(rows(k)) for name, rows in functions.items() for k in self.k}
        if self.graded is not None:
            numbers = [k for k in self.k if k != "R"]
            metrics |= {f"NDCG@{k}": self._means(self._ndcgs(k)) for k in numbers}
            metrics |= {f"ACG@{k}": self._means(self._acgs(k)) for k in numbers}
        if isinstance(self.rankings, Counts):
            metrics[f"P@H<={self.radius}"] = dict.fromkeys(BOUNDS, self.precision_within_radius)
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

    def _summary(self) -> dict[str, object]:
        metrics = self.to_dict()["metrics"].items()
        return {
            "queries": f"{self.rankings.queries:,}",
            "database": f"{self.rankings.database:,}",
            **{name: "{expected:.4f} ({lowest:.4f} to {highest:.4f})".format(**m) for name, m in metrics},
        }

    @cached_property
    def _reported(self) -> _Reported:
        """Results of the single pass over the rankings that covers all cut-offs in `k`."""
        numbers = sorted({self._items(k) for k in self.k if k != "R"})
        groups: list[list[Retrieved]] = [[*numbers], ["R"] if "R" in self.k else []]
        cutoffs = [k for group in groups for k in group]

        def measure(items: NDArray[np.int64], relevant: NDArray[np.int64]) -> NDArray[np.float64]:
            parts = [average_precisions(items, relevant, k, self.denominator) for k in cutoffs]
            parts += [hits for group in groups if group for hits in hits_at(items, relevant, group)]
            return np.vstack([relevant.sum(axis=1), items.max(axis=1), *parts])

        rows = self.rankings.each(measure)
        averages, hits = rows[2:].reshape(2, len(cutoffs), 3, -1)
        return _Reported(
            rows[0], rows[1], dict(zip(cutoffs, averages, strict=True)), dict(zip(cutoffs, hits, strict=True))
        )

    @property
    def _relevant(self) -> NDArray[np.float64]:
        return self._reported.relevant

    def _items(self, k: Cutoff) -> int:
        """Return the number of items that `k` retrieves, which "R" does not determine."""
        k = check_cutoff(k)
        if k == "R":
            raise UsageError(
                "k: expected a number of items or 'all', got 'R', which this metric does not take"
            )
        return self.rankings.database if k == "all" else min(k, self.rankings.database)

    def _retrieved(self, k: Cutoff) -> Retrieved:
        return "R" if isinstance(k, str) and k == "R" else self._items(k)

    def _average_precisions(self, k: Cutoff) -> NDArray[np.float64]:
        """Return AP@k, float64 [3, queries]."""
        retrieved = self._retrieved(k)
        if retrieved in self._reported.average_precisions:
            return self._reported.average_precisions[retrieved]
        return self.rankings.each(
            lambda items, relevant: average_precisions(items, relevant, retrieved, self.denominator)
        )

    def _hits_at(self, k: Cutoff) -> NDArray[np.float64]:
        """Return the numbers of relevant items in the top k, float64 [3, queries]."""
        retrieved = self._retrieved(k)
        if retrieved in self._reported.hits:
            return self._reported.hits[retrieved]
        return self.rankings.each(lambda items, relevant: hits_at(items, relevant, [retrieved])[0])

    def _precisions(self, k: Cutoff) -> NDArray[np.float64]:
        retrieved = self._retrieved(k)
        return self._recalls(k) if retrieved == "R" else np.asarray(self._hits_at(k) / retrieved)

    def _recalls(self, k: Cutoff) -> NDArray[np.float64]:
        return share(self._hits_at(k), self._relevant)

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
        return {name: float(means[row]) for row, name in enumerate(BOUNDS)}
