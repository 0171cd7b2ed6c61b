"""Relevance of items to queries, by labels or by lists, and the items that are the queries themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, count_bits
from hashbench.evaluation.counts.binary import Counts, count_pairs
from hashbench.evaluation.counts.device import counting_device
from hashbench.evaluation.counts.graded import GradedCounts, count_graded_pairs
from hashbench.evaluation.counts.labels import Labels


@dataclass(frozen=True, eq=False)
class Relevance:
    """Relevant items, and items that are excluded.

    Attributes:
        query_labels: Labels of the queries.
        database_labels: Labels of the database, in the same form.
        neighbours: Rows of the database that are relevant to each query, int64 [queries, n]; no query then
            shares a label with an item.
        own: Row of the database that is the query itself, which is excluded, int64 [queries].
    """

    query_labels: Labels
    database_labels: Labels
    neighbours: NDArray[np.int64] | None = None
    own: NDArray[np.int64] | None = None

    @property
    def labels(self) -> Labels | None:
        """Labels of the queries; None if relevant items are listed."""
        return self.query_labels if self.neighbours is None else None

    def count(self, query: BinaryCodes, database: BinaryCodes, device: str) -> Counts:
        """Count items and relevant items by Hamming distance; see `count_pairs`."""
        device = counting_device(device, len(query) * len(database))
        counts = count_pairs(query, database, self.query_labels, self.database_labels, device=device)
        items, relevant = counts.items, counts.relevant
        if self.neighbours is not None:
            for rows in self.neighbours.T:
                _add(relevant, _distances(query, database, rows), np.int64(1))
        if self.own is not None:
            distances = _distances(query, database, self.own)
            _add(items, distances, np.int64(-1))
            _add(relevant, distances, -(self._shared_with_own(self.own) > 0).astype(np.int64))
        return Counts(items, relevant)

    def count_graded(self, query: BinaryCodes, database: BinaryCodes) -> GradedCounts:
        """Count items by distance and number of shared labels; see `count_graded_pairs`."""
        counts = count_graded_pairs(query, database, self.query_labels, self.database_labels)
        if self.own is None:
            return counts
        distances, shared = _distances(query, database, self.own), self._shared_with_own(self.own)
        counts.shared[np.arange(len(query)), distances, shared] -= 1
        return GradedCounts(counts.shared)

    def _shared_with_own(self, own: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of labels that each query shares with its own item; 1 for a listed neighbour."""
        if self.neighbours is not None:
            return np.asarray((self.neighbours == own[:, None]).any(axis=1), np.int64)
        query, items = self.query_labels.packed, self.database_labels.packed[own]
        if self.query_labels.columns is None:
            return np.asarray((query == items)[:, 0], np.int64)
        return count_bits(query & items)


def _distances(query: BinaryCodes, database: BinaryCodes, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distance of each query to one item, int64 [queries]."""
    return count_bits(query.packed ^ database.packed[rows])


def _add(
    counts: NDArray[np.int64], distances: NDArray[np.int64], values: np.int64 | NDArray[np.int64]
) -> None:
    counts[np.arange(len(counts)), distances] += values
