"""Counts of items per Hamming distance and number of shared labels, from which graded metrics follow."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, as_array
from hashbench.errors import UsageError
from hashbench.evaluation.counts.binary import Counts, Kernel, in_blocks
from hashbench.evaluation.counts.kernels import compiled, popcount
from hashbench.evaluation.counts.labels import Labels

# A block of this many items stays in the cache for a whole block of queries.
_ITEMS_PER_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class GradedCounts:
    """Numbers of items of the database at each distance from each query, by number of shared labels.

    Counts of disjoint shards of a database can be added: `a + b`.

    Attributes:
        shared: int64 [queries, bits + 1, grades]; [:, d, g] is the number of items at distance d that share g
            labels with the query.

    Raises:
        UsageError: The array has another type or shape, there are no pairs, a count is negative, or the
            number of items differs between queries.
    """

    shared: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", as_array(self.shared, "graded counts"))
        if self.shared.dtype != np.int64 or self.shared.ndim != 3:
            raise UsageError(
                "graded counts: expected int64 [queries, bits + 1, grades], "
                f"got {self.shared.dtype} {list(self.shared.shape)}"
            )
        if (self.shared < 0).any():
            raise UsageError("graded counts: expected numbers of 0 or more, got a negative one")
        _ = self.counts  # its constructor checks the rest

    def __add__(self, other: GradedCounts) -> GradedCounts:
        if self.shared.shape[:2] != other.shared.shape[:2]:
            raise UsageError(
                "graded counts of shards: expected the same queries and bits, "
                f"got {list(self.shared.shape[:2])} and {list(other.shared.shape[:2])}"
            )
        # The items of one shard may have more labels than those of the other.
        more, fewer = (self, other) if self.shared.shape[2] >= other.shared.shape[2] else (other, self)
        total = more.shared.copy()
        total[:, :, : fewer.shared.shape[2]] += fewer.shared
        return GradedCounts(total)

    @functools.cached_property
    def counts(self) -> Counts:
        """Numbers of items, and of those that share at least one label, per distance."""
        return Counts(self.shared.sum(axis=2), self.shared[:, :, 1:].sum(axis=2))


def count_graded_pairs(
    query_codes: BinaryCodes, database_codes: BinaryCodes, query_labels: Labels, database_labels: Labels
) -> GradedCounts:
    """Count items by Hamming distance and by number of shared labels, for each query.

    Time is O(queries · items). Memory is 8 · queries · (bits + 1) · grades bytes, independent of the number
    of items, where grades is one more than the largest possible number of shared labels. For 2,100 queries,
    64 bits and 14 grades, this is 15 MB. The number of threads is that of Numba.

    Args:
        query_codes: Codes of the queries.
        database_codes: Codes of the database, of the same length in bits.
        query_labels: Labels of the queries; two equal class ids are one shared label.
        database_labels: Labels of the database, in the same form.
    """
    by_class = query_labels.by_class
    most = 1 if by_class else min(_most_labels(query_labels.packed), _most_labels(database_labels.packed))
    kernel = _kernel(query_codes.packed.shape[1], query_labels.packed.shape[1], by_class)
    shared = np.zeros((len(query_codes), query_codes.bits + 1, most + 1), np.int64)
    items = np.ravel(database_codes.packed), np.ravel(database_labels.packed)
    queries = np.ascontiguousarray(query_codes.packed), query_labels.packed

    def count(block: slice) -> None:
        kernel(queries[0][block], queries[1][block], *items, shared[block])

    in_blocks(count, len(query_codes))
    return GradedCounts(shared)


@compiled
def _most_labels(packed: NDArray[np.uint64]) -> int:
    """Return the largest number of labels of an item; `packed` as in `Labels`."""
    most = np.uint64(0)
    for item in range(len(packed)):
        labels = np.uint64(0)
        for word in packed[item]:
            labels += popcount(word)
        most = max(most, labels)
    return int(most)


@functools.cache
def _kernel(code_words: int, label_words: int, by_class: bool) -> Kernel:
    """Compile the counting loop for codes and labels of fixed sizes, so that its inner loops unroll."""
    # With unsigned indices, the compiler omits the check for negative ones.
    unsigned = numba.uint64
    zero, block_size = np.uint64(0), np.uint64(_ITEMS_PER_BLOCK)
    code_size, label_size = np.uint64(code_words), np.uint64(label_words)

    @compiled
    def count(
        query_codes: NDArray[np.uint64],  # [queries, code words]
        query_labels: NDArray[np.uint64],  # [queries, label words]
        codes: NDArray[np.uint64],  # [items * code words]
        labels: NDArray[np.uint64],  # [items * label words]
        histogram: NDArray[np.int64],  # [queries, bits + 1, grades]
    ) -> None:
        items = unsigned(len(codes)) // code_size
        for start in range(zero, items, block_size):
            stop = min(start + block_size, items)
            for query in range(len(query_codes)):
                code, label, row = query_codes[query], query_labels[query], histogram[query]
                for item in range(start, stop):
                    distance = shared = zero
                    for word in range(code_size):
                        distance += popcount(code[word] ^ codes[item * code_size + word])
                    if by_class:
                        shared = unsigned(label[zero] == labels[item])
                    else:
                        for word in range(label_size):
                            shared += popcount(label[word] & labels[item * label_size + word])
                    row[distance, shared] += 1

    kernel: Kernel = count
    return kernel
