"""Retrieval with the codes of a run: the images nearest to its queries, and which queries to show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, Codes, ProductCodes, count_bits
from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError
from hashbench.evaluation.inputs import read_vectors
from hashbench.results.stored_run import StoredRun


def require_data(run: StoredRun, dataset: Dataset) -> None:
    """Check that a dataset is that of a run.

    Raises:
        HashbenchError: The fingerprints differ.
    """
    if dataset.fingerprint != run.record.split.sha256:
        raise HashbenchError(
            f"{dataset.name}@{dataset.protocol} here is not the data of {run.record.run_id}: expected the "
            f"fingerprint {run.record.split.sha256[:8]}…, got {dataset.fingerprint[:8]}…; pass the folder of "
            "the run's data by --data-root or --lists"
        )


def query_metric(run: StoredRun, metric: str | None) -> str:
    """Return the name of a mAP of a run: the given one, if the run has it, else the first."""
    metric = metric or run.record.first_metric
    if not metric.startswith("mAP") or metric not in run.record.metrics:
        metric = next(name for name in run.record.metrics if name.startswith("mAP"))
    return metric


def query_values(run: StoredRun, metric: str) -> NDArray[np.float64]:
    """Return the AP of each query for a mAP [queries], NaN for those that the mean leaves out.

    Raises:
        HashbenchError: The AP is not known.
    """
    values = run.average_precisions(metric)
    if values is None:
        raise HashbenchError(
            f"{run.folder} has no AP of its queries by the installed evaluator; run it again with --force"
        )
    return values


def evenly_spaced(values: NDArray[np.float64], count: int) -> list[int]:
    """Return queries evenly spaced in their order by value, highest first, without those that are NaN."""
    order = np.argsort(-values, kind="stable")[: np.count_nonzero(~np.isnan(values))]
    ranks = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(query) for query in order[ranks]]


class Nearest(NamedTuple):
    """The images nearest to a query; arrays are [top]."""

    images: NDArray[np.intp]
    distances: NDArray[Any]
    relevant: NDArray[np.bool_]


class Search:
    """The codes of a run, for the search of the images nearest to a query."""

    def __init__(self, run: StoredRun) -> None:
        """Read the codes.

        Raises:
            HashbenchError: The codes are missing or cannot be read.
        """
        (self.query, self.database), self.known = run.codes(), run.relevant()

    def nearest(self, query: int, top: int) -> Nearest:
        """Return the images nearest to a query, those at equal distances in the order of the database."""
        distances = _distances(self.query, self.database, query)
        images = np.argsort(distances, kind="stable")[:top]
        return Nearest(images, distances[images], _relevant(self.known, query, images))


def _distances(query: Codes | NDArray[Any], database: Codes, index: int) -> NDArray[Any]:
    """Return the distances of the database from one query [n], as in `hashbench.evaluate`."""
    if isinstance(database, ProductCodes):
        (table,) = database.tables(read_vectors(query, database)[[index]])
        return np.asarray(table[np.arange(len(table)), database.indices].sum(axis=1))
    assert isinstance(query, BinaryCodes)  # `StoredRun.codes` returns both or neither as BinaryCodes
    distances = count_bits(database.packed ^ query.packed[index])
    return distances.astype(np.min_scalar_type(database.bits))  # small integers are sorted faster


def _relevant(known: Mapping[str, NDArray[Any]], query: int, images: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return a mask [n] of the images that are relevant to a query, by the result of `StoredRun.relevant`."""
    if "neighbours" in known:
        return np.isin(images, known["neighbours"][query])
    label, labels = known["query_labels"][query], known["database_labels"][images]
    return np.asarray(labels == label if labels.ndim == 1 else (labels & label).any(axis=1))
