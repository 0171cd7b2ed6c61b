"""Rankings of product codes: real-valued distances are sorted, and exactly equal ones form a bucket."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from hashbench.codes import ProductCodes
from hashbench.evaluation.counts.binary import Function, Kernel
from hashbench.evaluation.counts.kernels import compiled
from hashbench.evaluation.counts.relevance import Relevance

# Memory of a thread that ranks several queries at a time, in addition to 25 bytes per item for sorting.
_BYTES = 8 * 2**20
_BYTES_PER_PAIR = 32
_BYTES_PER_COORDINATE = 16

# Sorting is fastest with twice as many bins as items. Bins larger than `_LARGE_BIN` are sorted separately.
_BINS_PER_ITEM = 2
_LARGE_BIN = 24

# With unsigned indices, the compiler omits the check for negative ones.
_unsigned: Any = numba.uint64


class ProductRankings:
    """Rankings of the database by asymmetric distance from each query.

    A distance is the sum over books of what `ProductCodes.tables` returns; by default, of the Euclidean
    distance, not squared, between the query's subvector and the codeword (SPQ, ICCV 2021; Retrieval.py of
    youngkyunJang/SPQ at 6908f54). It is computed in double precision and summed in the order of the books, so
    that equal codes have exactly equal distances.

    Counts of all distinct distances would need too much memory. Instead, `each` ranks the queries block by
    block, with the number of threads that Numba uses, and keeps only the results of the given function. A
    thread needs 8 MiB and 25 bytes per item or, if a single query needs more, up to 57 bytes per item.

    Attributes:
        queries: Number of queries.
        database: Number of items in the database.
        bits: Length of a code, in bits.
    """

    def __init__(self, query: NDArray[np.float32], codes: ProductCodes, relevance: Relevance) -> None:
        """Store references to the arguments; nothing is ranked yet.

        Args:
            query: Vectors of the queries [queries, books · dim].
            codes: Codes of the database.
            relevance: Which items are relevant, and which are excluded.
        """
        self.queries, self.bits, self._size = len(query), codes.bits, len(codes)
        self.database = self._size - (relevance.own is not None)
        self._relevance, labels = relevance, relevance.database_labels
        books, words, _ = codes.codebooks.shape
        self._query, self._codes = query, codes
        self._items = np.ravel(codes.indices), np.ravel(labels.packed)
        self._look_up = _kernel(books, words, labels.packed.shape[1], labels.by_class)

    def each(self, function: Function) -> NDArray[np.float64]:
        """Apply a function to the buckets of all queries; see `Counts.each`."""
        threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        size = _BYTES_PER_PAIR * self.database + _BYTES_PER_COORDINATE * self._codes.codebooks.size
        rows = max(1, min(_BYTES // size, -(-self.queries // threads)))

        def measure(start: int) -> NDArray[np.float64]:
            return function(*self._buckets(slice(start, start + rows)))

        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(measure, range(0, self.queries, rows))), axis=-1)

    def _buckets(self, block: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count items and relevant items by increasing distance, int64 [queries, buckets], padded with 0."""
        query = self._query[block]
        tables = self._codes.tables(query).reshape(len(query), -1)
        items = np.empty((len(tables), self.database), np.int64)
        relevant = np.empty_like(items)
        distances, shared = np.empty(self._size), np.empty(self._size, np.bool_)
        keys, ends = np.empty(self.database, np.uint64), np.empty(_BINS_PER_ITEM * self.database, np.uint32)
        most = 0
        labels = self._relevance.query_labels.packed[block]
        for row, (table, label) in enumerate(zip(tables, labels, strict=True)):
            self._look_up(table, label, *self._items, distances, shared)
            at = block.start + row
            if self._relevance.neighbours is not None:
                shared[self._relevance.neighbours[at]] = True
            if self._relevance.own is not None:  # the last item, which is then left out, takes its place
                for values in (distances, shared):
                    values[self._relevance.own[at]] = values[-1]
            _distribute(distances[: self.database], shared[: self.database], keys, ends)
            _sort(keys, ends)
            most = max(most, _group(keys, items[row], relevant[row]))
        return np.ascontiguousarray(items[:, :most]), np.ascontiguousarray(relevant[:, :most])


@functools.cache
def _kernel(books: int, words: int, label_words: int, by_class: bool) -> Kernel:
    """Compile the loop over pairs for fixed numbers of books and words, so that its inner loops unroll."""
    zero = np.uint64(0)
    book_count, word_count, label_size = np.uint64(books), np.uint64(words), np.uint64(label_words)

    @compiled
    def look_up(
        table: NDArray[np.float64],  # [books * words], distances of the query to the codewords
        label: NDArray[np.uint64],  # [label words], of the query
        codes: NDArray[np.unsignedinteger[Any]],  # [items * books]
        labels: NDArray[np.uint64],  # [items * label words]
        distances: NDArray[np.float64],  # [items]
        relevant: NDArray[np.bool_],  # [items]
    ) -> None:
        items = _unsigned(len(distances))
        for item in range(zero, items):
            distance = 0.0
            for book in range(book_count):
                distance += table[book * word_count + _unsigned(codes[item * book_count + book])]
            distances[item] = distance
        for item in range(zero, items):
            if by_class:
                relevant[item] = label[zero] == labels[item]
            else:
                shared = zero
                for word in range(label_size):
                    shared |= label[word] & labels[item * label_size + word]
                relevant[item] = shared != zero

    kernel: Kernel = look_up
    return kernel


@compiled
def _distribute(
    distances: NDArray[np.float64],
    relevant: NDArray[np.bool_],
    keys: NDArray[np.uint64],
    ends: NDArray[np.uint32],
) -> None:
    """Distribute items by distance into bins of equal width.

    Args:
        distances: Distances [items], nonnegative.
        relevant: Relevance [items].
        keys: Output [items], one key per item, bin by bin: the bits of the distance, whose order as integers
            is that of the distances, with the relevance as the last bit.
        ends: Output [bins], the number of items up to the end of each bin.
    """
    one = np.uint64(1)
    nearest, farthest = distances.min(), distances.max()
    scale = (len(ends) - 1) / (farthest - nearest) if farthest > nearest else 0.0
    ends[:] = 0
    for distance in distances:
        ends[np.uint64((distance - nearest) * scale)] += np.uint32(1)
    before = np.uint32(0)
    for index in range(len(ends)):
        size = ends[index]
        ends[index] = before
        before += size
    bits = distances.view(np.uint64)
    for item in range(_unsigned(len(distances))):
        place = np.uint64((distances[item] - nearest) * scale)
        keys[np.uint64(ends[place])] = bits[item] << one | np.uint64(relevant[item])
        ends[place] += np.uint32(1)


@compiled
def _sort(keys: NDArray[np.uint64], ends: NDArray[np.uint32]) -> None:
    """Sort the output of `_distribute` by distance in place; equal distances are in any order."""
    one = np.uint64(1)
    start = np.uint32(0)
    for end in ends:
        if end - start > _LARGE_BIN:
            keys[start:end].sort()
        start = end
    # Insertion sort: a key moves only past larger distances, which are few and in its own bin.
    for item in range(one, _unsigned(len(keys))):
        key, place = keys[item], np.uint64(item)
        while place > 0 and keys[place - one] > key | one:
            keys[place] = keys[place - one]
            place -= one
        keys[place] = key


@compiled
def _group(keys: NDArray[np.uint64], items: NDArray[np.int64], relevant: NDArray[np.int64]) -> int:
    """Count items and relevant items at each distance.

    Args:
        keys: Keys [items], sorted by distance.
        items: Output [buckets], the number of items at each distance, followed by zeros.
        relevant: Output [buckets], the number of relevant items at each distance, followed by zeros.

    Returns:
        The number of distinct distances.
    """
    one, none = np.uint64(1), np.int64(0)
    bucket, count, hits = np.uint64(0), none, none
    distance = keys[0] >> one
    for key in keys:
        if key >> one != distance:
            items[bucket], relevant[bucket] = count, hits
            bucket, count, hits = bucket + one, none, none
            distance = key >> one
        count += 1
        hits += np.int64(key & one)
    items[bucket], relevant[bucket] = count, hits
    bucket += one
    items[bucket:] = relevant[bucket:] = 0
    return int(bucket)
