"""From pairs of codes to counts per distance: the only step of an evaluation that looks at every pair."""

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

_QUERIES_PER_BLOCK = 64  # pass together over a block of items, which stays in the cache

Kernel = Callable[..., None]
# Makes rows of numbers, float64 [rows, queries], from items and relevant items, int64 [queries, buckets].
Function = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Counts:
    """How many items of the database, and how many relevant ones, lie at each distance from each query.

    This is all that any ranking metric depends on. Counts of disjoint shards of a database add up: `a + b`.

    Attributes:
        items: int64 [queries, bits + 1]; column d counts the items at distance d.
        relevant: int64 [queries, bits + 1]; those of them that share a label with the query.

    Raises:
        UsageError: Another type or shape, no pairs, more relevant items than items, or rows of unequal sums.
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
                    f"found {array.dtype} {list(array.shape)}"
                )
        if self.items.shape != self.relevant.shape:
            raise UsageError(
                f"counts: items {list(self.items.shape)} and relevant {list(self.relevant.shape)} differ"
            )
        if not self.items.any():
            raise UsageError("counts: expected at least one query and one item, found no pairs")
        if (self.relevant < 0).any() or (self.relevant > self.items).any():
            raise UsageError("counts: expected 0 <= relevant <= items at every distance")
        if np.ptp(self.items.sum(axis=1)):
            raise UsageError("counts: every query must meet the same database, found rows of unequal sums")

    def __add__(self, other: Counts) -> Counts:
        if self.items.shape != other.items.shape:
            raise UsageError(
                "counts of shards add up only over the same queries and bits, "
                f"found {list(self.items.shape)} and {list(other.items.shape)}"
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
        """Apply a function to the buckets of all queries, a bucket being the items at one distance.

        Args:
            function: Takes items and relevant items, int64 [queries, buckets] by rising distance, of some of
                the queries; gives float64 [rows, queries].

        Returns:
            float64 [rows, queries], of all queries.
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

    Time is O(queries · items); memory is O(queries · bits) and a copy of the codes and labels: no matrix of
    distances and no sort. Uses as many threads as Numba would; the environment variable NUMBA_NUM_THREADS
    limits them.

    Args:
        query_codes: Codes of the queries.
        database_codes: Codes of the database, of the same length in bits.
        query_labels: Labels of the queries.
        database_labels: Labels of the database, in the same form.
        device: "cpu", or "cuda" to count on a GPU by torch; the counts are the same.

    Raises:
        UsageError: There is no such device, torch sees no GPU, or the codes are too long for the CPU
            (32,767 bits).
        HashbenchError: The memory of the GPU does not suffice.
    """
    if device == "cuda":
        from hashbench.evaluation.counts import gpu  # torch takes a second to import

        return Counts(*gpu.count(query_codes, database_codes, query_labels, database_labels))
    if device != "cpu":
        raise UsageError(f"device: expected 'cpu' or 'cuda', found {device!r}")
    bits = query_codes.bits
    if bits > kernels.LONGEST_CODE:
        raise UsageError(f"codes: expected at most {kernels.LONGEST_CODE:,} bits, found {bits:,}")
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
    """Call a function for every block of queries, in as many threads as Numba would use."""
    threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    rows = min(_QUERIES_PER_BLOCK, -(-queries // threads))
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(count, (slice(start, start + rows) for start in range(0, queries, rows))):
            pass


def _label_bits(query: Labels, database: Labels) -> int:
    """How many bits of the packed labels matter: one a label, or those of the largest class id."""
    if query.columns is not None:
        return query.columns
    return max(1, *(int(labels.packed.max(initial=0)).bit_length() for labels in (query, database)))
