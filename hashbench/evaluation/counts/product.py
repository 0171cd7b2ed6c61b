"""Rankings by product codes: real-valued distances are sorted, and exactly equal ones form a bucket."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from hashbench.codes import ProductCodes
from hashbench.evaluation.counts.binary import Function, Kernel
from hashbench.evaluation.counts.compiled import compiled
from hashbench.evaluation.counts.labels import Labels

# Memory of a thread that ranks more than one query at a time, beside 25 bytes an item to sort them.
_BYTES = 8 * 2**20
_BYTES_PER_PAIR = 32
_BYTES_PER_COORDINATE = 16

# Twice as many bins as items make sorting fastest; bins of more items than this are sorted by themselves.
_BINS_PER_ITEM = 2
_LARGE_BIN = 24

# Unsigned indices spare the compiler the test for negative ones.
_unsigned: Any = numba.uint64


class ProductRankings:
    """The database in the order of its asymmetric distances from each query.

    A distance is the sum over books of the Euclidean distance, not squared, between the query's piece and the
    codeword (SPQ, ICCV 2021; Retrieval.py of youngkyunJang/SPQ at 6908f54). It is computed in double
    precision and summed in the order of the books, so that equal codes have exactly equal distances.

    There are too many distances to keep counts of them all: `each` ranks the queries block by block, in as
    many threads as Numba would use, and keeps what the given function makes of a block. A thread takes
    8 MiB beside 25 bytes an item or, if one query needs more, up to 57 bytes an item.

    Attributes:
        queries: Number of queries.
        database: Number of items in the database.
        bits: Length of a code, in bits.
    """

    def __init__(
        self, query: NDArray[np.float32], codes: ProductCodes, query_labels: Labels, labels: Labels
    ) -> None:
        """Keep references; nothing is ranked yet.

        Args:
            query: Vectors of the queries [queries, books · dim].
            codes: Codes of the database.
            query_labels: Labels of the queries.
            labels: Labels of the database, in the same form.
        """
        self.queries, self.database, self.bits = len(query), len(codes), codes.bits
        books, words, dim = codes.codebooks.shape
        self._pieces = query.reshape(-1, books, 1, dim)
        self._codebooks = codes.codebooks.astype(np.float64)
        self._items = np.ravel(codes.indices), np.ravel(labels.packed)
        self._query_labels = query_labels.packed
        self._look_up = _kernel(books, words, labels.packed.shape[1], labels.by_class)

    def each(self, function: Function) -> NDArray[np.float64]:
        """Apply a function to the buckets of all queries; see `Counts.each`."""
        threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        size = _BYTES_PER_PAIR * self.database + _BYTES_PER_COORDINATE * self._codebooks.size
        rows = max(1, min(_BYTES // size, -(-self.queries // threads)))

        def measure(start: int) -> NDArray[np.float64]:
            return function(*self._buckets(slice(start, start + rows)))

        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(measure, range(0, self.queries, rows))), axis=-1)

    def _buckets(self, block: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items and relevant items by rising distance, int64 [queries, buckets], the rest of a row empty."""
        difference = self._pieces[block] - self._codebooks  # [queries, books, words, dim]
        tables = np.sqrt(np.square(difference).sum(-1)).reshape(len(difference), -1)
        items = np.empty((len(tables), self.database), np.int64)
        relevant = np.empty_like(items)
        distances, shared = np.empty(self.database), np.empty(self.database, np.bool_)
        keys, ends = np.empty(self.database, np.uint64), np.empty(_BINS_PER_ITEM * self.database, np.uint32)
        most = 0
        for row, (table, label) in enumerate(zip(tables, self._query_labels[block], strict=True)):
            self._look_up(table, label, *self._items, distances, shared)
            _distribute(distances, shared, keys, ends)
            _sort(keys, ends)
            most = max(most, _group(keys, items[row], relevant[row]))
        return np.ascontiguousarray(items[:, :most]), np.ascontiguousarray(relevant[:, :most])


@functools.cache
def _kernel(books: int, words: int, label_words: int, by_class: bool) -> Kernel:
    """The loop over pairs, compiled for so many books and words, so that its inner loops unroll."""
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
    """Sort items roughly by distance, into bins of equal width.

    Args:
        distances: [items], not negative.
        relevant: [items].
        keys: [items]; becomes one key an item, bin by bin: the bits of its distance, which are in the order
            of the numbers, with its relevance as the last bit.
        ends: [bins]; becomes the number of items up to the end of each bin.
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
    """Sort by distance, in place, what `_distribute` leaves; equal distances in any order."""
    one = np.uint64(1)
    start = np.uint32(0)
    for end in ends:
        if end - start > _LARGE_BIN:
            keys[start:end].sort()
        start = end
    # By insertion: a key moves past larger distances only, which are in its own bin, and few.
    for item in range(one, _unsigned(len(keys))):
        key, place = keys[item], np.uint64(item)
        while place > 0 and keys[place - one] > key | one:
            keys[place] = keys[place - one]
            place -= one
        keys[place] = key


@compiled
def _group(keys: NDArray[np.uint64], items: NDArray[np.int64], relevant: NDArray[np.int64]) -> int:
    """Count items and relevant items of each distance.

    Args:
        keys: [items], sorted by distance.
        items: [buckets]; becomes the number of items at each distance, 0 past the last one.
        relevant: [buckets]; the same of relevant items.

    Returns:
        The number of distances.
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
