"""Data frames of an evaluation: curves, and a table per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashbench.codes import unpack_bits
from hashbench.evaluation.counts.binary import Counts
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.counts.product import ProductRankings
from hashbench.evaluation.inputs import Average, Cutoff
from hashbench.evaluation.metrics import EXPECTED, hits_at

BOUNDS = ("expected", "lowest", "highest")  # in the order of EXPECTED, LOWEST, HIGHEST


def default_ranks(database: int) -> list[int]:
    """Return about a hundred ranks up to the size of the database, evenly spaced on a logarithmic scale."""
    ranks: list[int] = np.unique(np.geomspace(1, database, 100).round().astype(int)).tolist()
    return ranks


def curve_by_rank(
    rankings: Counts | ProductRankings,
    ranks: Sequence[Cutoff],
    retrieved: Sequence[int],
    relevant: NDArray[np.float64],
    counted: NDArray[np.bool_],
) -> pd.DataFrame:
    """Return precision and recall at ranks, of which each retrieves some items; see `Evaluation`."""
    sizes, index = np.unique(retrieved, return_inverse=True)
    hits = rankings.each(lambda items, hits: hits_at(items, hits, sizes.tolist())[:, EXPECTED])
    precision, recall = hits / sizes[:, None], share(hits, relevant)  # [ranks, queries]
    return pd.DataFrame(
        {
            "rank": ranks,
            "precision": precision[:, counted].mean(axis=1)[index],
            "recall": recall[:, counted].mean(axis=1)[index],
        }
    )


def curve_by_radius(counts: Counts, counted: NDArray[np.bool_], average: Average) -> pd.DataFrame:
    """Return the precision and recall of the counted queries by radius; see `Evaluation.curve_by_radius`."""
    items = np.cumsum(counts.items[counted], axis=1)
    relevant = np.cumsum(counts.relevant[counted], axis=1)
    if average == "micro":
        items, relevant = items.sum(axis=0, keepdims=True), relevant.sum(axis=0, keepdims=True)
    precision = share(relevant, items).mean(axis=0)
    recall = share(relevant, relevant[:, -1:]).mean(axis=0)
    radius = np.arange(len(precision))
    return pd.DataFrame({"radius": radius, "precision": precision, "recall": recall})


def by_class(labels: Labels, values: NDArray[np.float64], counted: NDArray[np.bool_]) -> pd.DataFrame:
    """Return means of values [3, queries] per class of the counted queries; see `Evaluation.per_class`."""
    if labels.columns is None:
        ids = labels.packed[:, 0]
        classes = np.unique(ids).tolist()
        member = ids[:, None] == np.unique(ids)  # [queries, classes]
    else:
        classes = [*range(labels.columns)]
        member = unpack_bits(labels.packed, labels.columns) == 1
    member = member & counted[:, None]
    queries = member.sum(axis=0)
    means = (values @ member / np.maximum(queries, 1)).T  # [classes, 3]
    table: pd.DataFrame = pd.DataFrame(means, pd.Index(classes, name="class", dtype=object), list(BOUNDS))
    table.insert(0, "queries", queries)
    table = table[queries > 0].copy()
    total = int(counted.sum())
    table.loc["macro"] = [total, *table[list(BOUNDS)].mean()]
    table.loc["micro"] = [total, *values[:, counted].mean(axis=1)]
    table["queries"] = table["queries"].astype(int)
    return table


def share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """Return part / whole, with 0 for an empty whole."""
    return np.asarray(part / np.maximum(whole, 1), np.float64)
