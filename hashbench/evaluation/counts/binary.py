"""Counts of items per Hamming distance, the only step of an evaluation that visits every pair of codes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, as_array
from hashbench.errors import UsageError
from hashbench.evaluation.counts import kernels
from hashbench.evaluation.counts.labels import Labels

_QUERIES_PER_BLOCK = 64  # queries that share a block of items while it is in the cache

Kernel = Callable[..., None]
# Maps items and relevant items, int64 [queries, buckets], to rows of values, float64 [rows, queries].
Function = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Counts:
    """Numbers of items and of relevant items of the database at each distance from each query.

    All ranking metrics are functions of these counts. Counts of disjoint shards of a database can be added:
    `a + b`.

    Attributes:
        items: int64 [queries, bits + 1]; column d is the number of items at distance d.
        relevant: int64 [queries, bits + 1]; column d is the number of items at distance d that share a label
            with the query.

    Raises:
        UsageError: An array has another type or shape, there are no pairs, there are more relevant items
            than items, or the sums of the rows differ.
    """

    items: NDArray[np.int64]
    relevant: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name in ("items", "relevant"):
            array = as_array(getattr(self, name), f"counts: {name}")
            object.__setattr__(self, name, array)
            if array.dtype != np.int64 or array.ndim != 2:
                raise UsageError(
                    f"counts: expected {name} as int64 [queries, bits + 1], "
                    f"got {array.dtype} {list(array.shape)}"
                )
        if self.items.shape != self.relevant.shape:
            raise UsageError(
                f"counts: items {list(self.items.shape)} and relevant {list(self.relevant.shape)} differ"
            )
        if not self.items.any():
            raise UsageError("counts: expected at least one query and one item, got no pairs")
        if (self.relevant < 0).any() or (self.relevant > self.items).any():
            raise UsageError("counts: expected 0 <= relevant <= items at every distance")
        if np.ptp(self.items.sum(axis=1)):
            raise UsageError(
                "counts: expected the same number of items for every query, got rows of unequal sums"
            )

    def __add__(self, other: Counts) -> Counts:
        if self.items.shape != other.items.shape:
            raise UsageError(
                "counts of shards: expected the same queries and bits, "
                f"got {list(self.items.shape)} and {list(other.items.shape)}"
            )
        return Counts(self.items + other.items, self.relevant + other.relevant)

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.items)

    @property
    def database(self) -> int:
        """Number of items in the database."""
        return int(self.items[0].sum())

    @property
    def bits(self) -> int:
        """Length of a code, which is the largest distance."""
        return int(self.items.shape[1]) - 1

    def each(self, function: Function) -> NDArray[np.float64]:
        """Apply a function to the buckets of all queries, where a bucket is the items at one distance.

        Args:
            function: Maps the numbers of items and of relevant items of some of the queries, int64
                [queries, buckets] by increasing distance, to float64 [rows, queries].

        Returns:
            The results for all queries, float64 [rows, queries].
        """
        return function(self.items, self.relevant)


def count_pairs(
    query_codes: BinaryCodes,
    database_codes: BinaryCodes,
    query_labels: Labels,
    database_labels: Labels,
    device: str = "cpu",
) -> Counts:
    """Count items and relevant items by Hamming distance, for each query.

    Time is O(queries · items). Memory is O(queries · bits) plus a copy of the codes and labels: there is no
    matrix of distances and no sort. The number of threads is that of Numba, which the environment variable
    NUMBA_NUM_THREADS limits.

    Args:
        query_codes: Codes of the queries.
        database_codes: Codes of the database, of the same length in bits.
        query_labels: Labels of the queries.
        database_labels: Labels of the database, in the same form.
        device: "cpu", or "cuda" to count on a GPU with torch. The counts are identical.

    Raises:
        UsageError: The device is unknown, torch sees no GPU, or the codes are too long for the CPU (more
            than 32,767 bits).
        HashbenchError: The GPU is out of memory.
    """
    if device == "cuda":
        from hashbench.evaluation.counts import gpu  # torch takes a second to import

        return Counts(*gpu.count(query_codes, database_codes, query_labels, database_labels))
    if device != "cpu":
        raise UsageError(f"device: expected 'cpu' or 'cuda', got {device!r}")
    bits = query_codes.bits
    if bits > kernels.LONGEST_CODE:
        raise UsageError(f"codes: expected at most {kernels.LONGEST_CODE:,} bits, got {bits:,}")
    label_bits = _label_bits(query_labels, database_labels)
    queries = (
        kernels.byte_rows(query_codes.packed, bits),
        kernels.byte_rows(query_labels.packed, label_bits),
    )
    items = (
        kernels.byte_planes(database_codes.packed, bits),
        kernels.byte_planes(database_labels.packed, label_bits),
    )
    histogram = np.zeros((len(query_codes), 2 * (bits + 1)), np.int64)

    def count(block: slice) -> None:
        kernels.count(
            queries[0][block],
            queries[1][block],
            *items,
            query_labels.by_class,
            kernels.column_buffer(bits),
            histogram[block],
        )

    in_blocks(count, len(query_codes))
    relevant = histogram[:, 1::2].copy()
    return Counts(histogram[:, ::2] + relevant, relevant)


def in_blocks(count: Callable[[slice], None], queries: int) -> None:
    """Call a function for each block of queries, with the number of threads that Numba uses."""
    threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    rows = min(_QUERIES_PER_BLOCK, -(-queries // threads))
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(count, (slice(start, start + rows) for start in range(0, queries, rows))):
            pass


def _label_bits(query: Labels, database: Labels) -> int:
    """Return the significant bits of packed labels: one per label, or those of the largest class id."""
    if query.columns is not None:
        return query.columns
    return max(1, *(int(labels.packed.max(initial=0)).bit_length() for labels in (query, database)))
