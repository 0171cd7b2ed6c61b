"""Rankings by product codes: real-valued distances are sorted, and exactly equal ones form a bucket."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from hashbench.codes import ProductCodes
from hashbench.evaluation.compiled import compiled
from hashbench.evaluation.counts import Function, Kernel
from hashbench.evaluation.labels import Labels

# Memory of a thread beside the inputs, but that it ranks one query at least: 24 bytes a pair.
_BYTES = 64 * 2**20
_BYTES_PER_PAIR = 24


class ProductRankings:
    """The database in the order of its asymmetric distances from each query.

    A distance is the sum over books of the Euclidean distance, not squared, between the query's piece and the
    codeword (as in the released code of SPQ, ICCV 2021). It is computed in double precision and summed in the
    order of the books, so that equal codes have exactly equal distances.

    There are too many distances to keep counts of them all: `each` ranks the queries block by block, in as
    many threads as Numba would use, and keeps what the given function makes of a block.

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
        self._words, self._labels, self._query_labels = np.ravel(codes.words), labels, query_labels
        self._kernel = _kernel(books, words, labels.packed.shape[1], labels.by_class)

    def each(self, function: Function) -> NDArray[np.float64]:
        """Apply a function to the buckets of all queries; see `Counts.each`."""
        threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        rows = max(1, min(_BYTES // (_BYTES_PER_PAIR * self.database), -(-self.queries // threads)))

        def measure(start: int) -> NDArray[np.float64]:
            return function(*self._buckets(slice(start, start + rows)))

        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(measure, range(0, self.queries, rows))), axis=-1)

    def _buckets(self, block: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items and relevant items by rising distance, int64 [queries, buckets], the rest of a row empty."""
        difference = self._pieces[block] - self._codebooks  # [queries, books, words, dim]
        tables = np.sqrt(np.square(difference).sum(-1)).reshape(len(difference), -1)
        keys = np.empty((len(difference), self.database), np.uint64)
        query_labels = self._query_labels.packed[block]
        self._kernel(tables, query_labels, self._words, np.ravel(self._labels.packed), keys)
        keys.sort(axis=1)
        items, relevant = np.zeros(keys.shape, np.int64), np.zeros(keys.shape, np.int64)
        buckets = _group(keys, items, relevant)
        return items[:, :buckets], relevant[:, :buckets]


@functools.cache
def _kernel(books: int, words: int, label_words: int, by_class: bool) -> Kernel:
    """The loop over pairs, compiled for so many books and words, so that its inner loops unroll."""
    unsigned: Any = numba.uint64
    zero, one = np.uint64(0), np.uint64(1)
    book_count, word_count, label_size = np.uint64(books), np.uint64(words), np.uint64(label_words)

    @compiled
    def sort_keys(
        tables: NDArray[np.float64],  # [queries, books * words], distances of a query to the codewords
        query_labels: NDArray[np.uint64],  # [queries, label words]
        codes: NDArray[np.unsignedinteger[Any]],  # [items * books]
        labels: NDArray[np.uint64],  # [items * label words]
        keys: NDArray[np.uint64],  # [queries, items]
    ) -> None:
        items = unsigned(keys.shape[1])
        for query in range(len(keys)):
            table, label, row = tables[query], query_labels[query], keys[query]
            distances = row.view(np.float64)
            for item in range(zero, items):
                distance = 0.0
                for book in range(book_count):
                    distance += table[book * word_count + unsigned(codes[item * book_count + book])]
                distances[item] = distance
            # The bits of numbers that are not negative are in the order of the numbers; relevance goes last.
            for item in range(zero, items):
                if by_class:
                    relevant = label[zero] == labels[item]
                else:
                    shared = zero
                    for word in range(label_size):
                        shared |= label[word] & labels[item * label_size + word]
                    relevant = shared != zero
                row[item] = row[item] << one | unsigned(relevant)

    kernel: Kernel = sort_keys
    return kernel


@compiled
def _group(keys: NDArray[np.uint64], items: NDArray[np.int64], relevant: NDArray[np.int64]) -> int:
    """Count equal distances of sorted keys into buckets; returns the largest number of buckets of a row."""
    one = np.uint64(1)
    most = 0
    for query in range(len(keys)):
        bucket, distance = -1, np.uint64(0)
        for key in keys[query]:
            if bucket < 0 or key >> one != distance:
                bucket += 1
                distance = key >> one
            items[query, bucket] += 1
            relevant[query, bucket] += np.int64(key & one)
        most = max(most, bucket + 1)
    return most
