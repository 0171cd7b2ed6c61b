"""From pairs of codes to counts per distance: the only step of an evaluation that looks at every pair."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.errors import UsageError
from hashbench.evaluation.compiled import compiled
from hashbench.evaluation.labels import Labels

# A block of this many items stays in the cache while a block of queries passes over it.
_ITEMS_PER_BLOCK = 4096
_QUERIES_PER_BLOCK = 64

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
        for name, array in (("items", self.items), ("relevant", self.relevant)):
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
    query_codes: BinaryCodes, database_codes: BinaryCodes, query_labels: Labels, database_labels: Labels
) -> Counts:
    """Count items and relevant items by Hamming distance, for each query.

    Time is O(queries · items), memory O(queries · bits): no matrix of distances and no sort. Uses as many
    threads as Numba would; the environment variable NUMBA_NUM_THREADS limits them.

    Args:
        query_codes: Codes of the queries.
        database_codes: Codes of the database, of the same length in bits.
        query_labels: Labels of the queries.
        database_labels: Labels of the database, in the same form.
    """
    kernel = _kernel(query_codes.packed.shape[1], query_labels.packed.shape[1], query_labels.by_class)
    histogram = np.zeros((len(query_codes), 2 * (query_codes.bits + 1)), np.int64)
    items = np.ravel(database_codes.packed), np.ravel(database_labels.packed)
    queries = np.ascontiguousarray(query_codes.packed), query_labels.packed

    def count(start: int) -> None:
        block = slice(start, start + rows)
        kernel(queries[0][block], queries[1][block], *items, histogram[block])

    threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    rows = min(_QUERIES_PER_BLOCK, -(-len(query_codes) // threads))
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(count, range(0, len(query_codes), rows)):
            pass
    relevant = histogram[:, 1::2].copy()
    return Counts(histogram[:, ::2] + relevant, relevant)


def _emit_popcount(_context: Any, _word: Any) -> Any:
    signature = numba.uint64(numba.uint64)
    return signature, lambda _context, builder, _signature, arguments: builder.ctpop(arguments[0])


_popcount: Any = intrinsic(_emit_popcount)


@functools.cache
def _kernel(code_words: int, label_words: int, by_class: bool) -> Kernel:
    """The counting loop, compiled for codes and labels of so many words, so that its inner loops unroll."""
    # Unsigned indices spare the compiler the test for negative ones, a third of the time of this loop.
    unsigned = numba.uint64
    zero, two, block_size = np.uint64(0), np.uint64(2), np.uint64(_ITEMS_PER_BLOCK)
    code_size, label_size = np.uint64(code_words), np.uint64(label_words)

    @compiled
    def count(
        query_codes: NDArray[np.uint64],  # [queries, code words]
        query_labels: NDArray[np.uint64],  # [queries, label words]
        codes: NDArray[np.uint64],  # [items * code words]
        labels: NDArray[np.uint64],  # [items * label words]
        histogram: NDArray[np.int64],  # [queries, 2 * (bits + 1)], column 2 * distance + relevant
    ) -> None:
        items = unsigned(len(codes)) // code_size
        for start in range(zero, items, block_size):
            stop = min(start + block_size, items)
            for query in range(len(query_codes)):
                code, label, row = query_codes[query], query_labels[query], histogram[query]
                for item in range(start, stop):
                    distance = zero
                    for word in range(code_size):
                        distance += _popcount(code[word] ^ codes[item * code_size + word])
                    if by_class:
                        relevant = label[zero] == labels[item]
                    else:
                        shared = zero
                        for word in range(label_size):
                            shared |= label[word] & labels[item * label_size + word]
                        relevant = shared != zero
                    row[two * distance + unsigned(relevant)] += 1

    kernel: Kernel = count
    return kernel
