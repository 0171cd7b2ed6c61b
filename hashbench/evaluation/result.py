"""The result of an evaluation: every metric of one set of counts."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashbench.errors import UsageError
from hashbench.evaluation.counts import Counts
from hashbench.evaluation.metrics import EXPECTED, HIGHEST, LOWEST, average_precisions, hits_at

Cutoff = int | Literal["all"]
Denominator = Literal["hits", "relevant"]
NoRelevant = Literal["zero", "skip"]
Average = Literal["macro", "micro"]

_DEFAULT_RANKS = 100


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Retrieval metrics of one set of counts; a metric is the mean over the counted queries.

    Where items tie in distance, a metric is its expectation over all orders of the tied items. `k` of a
    method is a number of items retrieved or "all"; beyond the size of the database it means the database.

    Attributes:
        counts: Items and relevant items per distance.
        k: The cut-offs that `to_dict` reports; every method takes any other one as well.
        radius: Hamming radius of `precision_within_radius`, in bits.
        denominator: What AP@k divides by: "hits", the relevant items in the top k, or "relevant",
            min(k, all relevant items).
        no_relevant: Queries without a relevant item in the database score 0 ("zero") or are left out of every
            mean ("skip").

    Raises:
        UsageError: A setting has no such value, or no query is left to average.
    """

    counts: Counts
    k: Sequence[Cutoff] = (1000, "all")
    radius: int = 2
    denominator: Denominator = "hits"
    no_relevant: NoRelevant = "zero"

    def __post_init__(self) -> None:
        if isinstance(self.k, str | numbers.Integral):
            raise UsageError(f"k: expected a list such as (1000, 'all'), found {self.k!r}")
        for k in self.k:
            self._items(k)
        if not _is_integer(self.radius) or self.radius < 0:
            raise UsageError(f"radius: expected a number of bits, 0 or more, found {self.radius!r}")
        _check_choice("denominator", self.denominator, get_args(Denominator))
        _check_choice("no_relevant", self.no_relevant, get_args(NoRelevant))
        if not self._counted.any():
            raise UsageError("no_relevant='skip' leaves no query: none has a relevant item in the database")

    @property
    def queries_without_relevant(self) -> int:
        """Number of queries with no relevant item in the database."""
        return int((self._relevant == 0).sum())

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
        return replace(self, counts=self.counts.without_distances()).mean_average_precision(k)

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
        return float(_share(relevant, items)[self._counted].mean())

    def curve_by_rank(self, ranks: Sequence[int] | None = None) -> pd.DataFrame:
        """Expected precision and recall of the top k for each k of `ranks`.

        Args:
            ranks: Numbers of items retrieved; by default about a hundred from 1 to the size of the database,
                evenly spaced on a logarithmic scale.

        Returns:
            Columns rank, precision, recall; a row for each rank.
        """
        if ranks is None:
            spaced = np.geomspace(1, self.counts.database, _DEFAULT_RANKS)
            ranks = np.unique(spaced.round().astype(int)).tolist()
        rows = [(rank, self.precision(rank), self.recall(rank)) for rank in ranks]
        curve: pd.DataFrame = pd.DataFrame(rows, columns=["rank", "precision", "recall"])
        return curve

    def curve_by_radius(self, average: Average = "macro") -> pd.DataFrame:
        """Precision and recall of the items within each Hamming radius.

        Args:
            average: "macro": the mean over queries of their precision (an empty ball counts 0) and recall;
                "micro": precision and recall of all pairs of a query and an item together.

        Returns:
            Columns radius, precision, recall; a row for each radius from 0 to bits.
        """
        _check_choice("average", average, get_args(Average))
        items = np.cumsum(self.counts.items[self._counted], axis=1)
        relevant = np.cumsum(self.counts.relevant[self._counted], axis=1)
        if average == "micro":
            items, relevant = items.sum(axis=0, keepdims=True), relevant.sum(axis=0, keepdims=True)
        precision = _share(relevant, items).mean(axis=0)
        recall = _share(relevant, relevant[:, -1:]).mean(axis=0)
        radius = np.arange(len(precision))
        curve: pd.DataFrame = pd.DataFrame({"radius": radius, "precision": precision, "recall": recall})
        return curve

    def to_dict(self) -> dict[str, Any]:
        """Settings and metrics, ready for JSON; each metric as {"expected", "lowest", "highest"}."""
        within = self.precision_within_radius
        metrics = {f"mAP@{k}": self._means(self._average_precisions(k)) for k in self.k}
        metrics |= {f"P@{k}": self._means(self._precisions(k)) for k in self.k}
        metrics |= {f"R@{k}": self._means(self._recalls(k)) for k in self.k}
        metrics[f"P@H<={self.radius}"] = {"expected": within, "lowest": within, "highest": within}
        settings = {
            "k": [k if k == "all" else int(k) for k in self.k],
            "radius": int(self.radius),
            "denominator": self.denominator,
            "no_relevant": self.no_relevant,
            "bits": self.counts.bits,
            "queries": self.counts.queries,
            "queries_without_relevant": self.queries_without_relevant,
            "database": self.counts.database,
        }
        return {"settings": settings, "metrics": metrics}

    @property
    def _relevant(self) -> NDArray[np.int64]:
        relevant: NDArray[np.int64] = self.counts.relevant.sum(axis=1)
        return relevant

    @property
    def _counted(self) -> NDArray[np.bool_]:
        return (self._relevant > 0) | (self.no_relevant == "zero")

    def _items(self, k: Cutoff) -> int:
        """How many items `k` retrieves."""
        if k == "all":
            return self.counts.database
        if not _is_integer(k) or k < 1:
            raise UsageError(f"k: expected a number of items, 1 or more, or 'all', found {k!r}")
        return min(int(k), self.counts.database)

    def _average_precisions(self, k: Cutoff) -> NDArray[np.float64]:
        return average_precisions(self.counts, self._items(k), self.denominator == "relevant")

    def _precisions(self, k: Cutoff) -> NDArray[np.float64]:
        return hits_at(self.counts, self._items(k)) / self._items(k)

    def _recalls(self, k: Cutoff) -> NDArray[np.float64]:
        return _share(hits_at(self.counts, self._items(k)), self._relevant)

    def _means(self, values: NDArray[np.float64]) -> dict[str, float]:
        means = values[:, self._counted].mean(axis=1)
        return {
            "expected": float(means[EXPECTED]),
            "lowest": float(means[LOWEST]),
            "highest": float(means[HIGHEST]),
        }


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Part of the whole, 0 where there is no whole."""
    return np.asarray(part / np.maximum(whole, 1), np.float64)


def _is_integer(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name}: expected {' or '.join(map(repr, choices))}, found {value!r}")
