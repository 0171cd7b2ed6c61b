"""The counting loop on the CPU: from bytes of codes and labels to a histogram per query.

Codes and labels lie in byte planes: uint8 [planes, n], where plane p holds byte p of every item. So each step
of the loops treats as many items at a time as a vector register has bytes, whatever the length of the codes:

1. For a chunk of items, write `2 * distance + relevant` of each into a buffer that stays in the cache.
2. Count what the buffer holds. Memory takes about one increment a cycle, so this is the slowest step. Columns
   of one byte are read as pairs, two items at a time, and a table has a place for every pair.
3. Once for a block of items, add that table to the histogram.

All indices are unsigned, which spares the compiler the tests for negative ones.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

from hashbench.evaluation.counts.compiled import compiled

LONGEST_CODE = 2**15 - 1  # in bits: the largest column must fit 16 bits
_LONGEST_BYTE_CODE = 127  # in bits: the largest column must fit 8 bits

_VALUES = 2**16  # of 16 bits, which number the places of the table
_CHUNK = 4096  # items
# The table counts in 16 bits, so a block has fewer items than 2**16.
_BLOCK = 15 * _CHUNK

_ZERO, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)
_BYTE_VALUES = np.uint64(256)
_unsigned: Any = numba.uint64


def _emit_popcount(_context: Any, word: Any) -> Any:
    return word(word), lambda _context, builder, _signature, arguments: builder.ctpop(arguments[0])


popcount: Any = intrinsic(_emit_popcount)  # the number of bits set in an unsigned integer, of its type


def byte_rows(packed: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    """The bytes of packed bits: uint8 [n, bytes], an even number that holds `bits`, the lowest first.

    Args:
        packed: uint64 [n, words], C-contiguous or not; no bit past the last one is set.
        bits: Number of bits that matter, 1 or more.
    """
    octets = np.ascontiguousarray(packed, "<u8").view(np.uint8)
    return np.ascontiguousarray(octets[:, : 2 * -(-bits // 16)])


def byte_planes(packed: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    """The same as planes: uint8 [bytes, n]; see `byte_rows`."""
    return np.ascontiguousarray(byte_rows(packed, bits).T)


def column_buffer(bits: int) -> NDArray[np.unsignedinteger[Any]]:
    """What `count` works in, for codes of so many bits."""
    return np.empty(_CHUNK, np.uint8 if bits <= _LONGEST_BYTE_CODE else np.uint16)


@compiled
def count(
    query_codes: NDArray[np.uint8],
    query_labels: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    by_class: bool,
    columns: NDArray[np.unsignedinteger[Any]],
    histogram: NDArray[np.int64],
) -> None:
    """Count the items of each distance and relevance, for each query.

    Args:
        query_codes: Rows of bytes [queries, code bytes].
        query_labels: Rows of bytes [queries, label bytes].
        codes: Byte planes [code bytes, items].
        labels: Byte planes [label bytes, items].
        by_class: Whether the labels are class ids; else multi-hot.
        columns: A `column_buffer`.
        histogram: [queries, 2 * (bits + 1)]; what is counted is added to column 2 * distance + relevant.
    """
    items, chunk = _unsigned(codes.shape[1]), _unsigned(len(columns))
    values = columns.view(np.uint16)
    items_per_value = chunk // _unsigned(len(values))
    table = np.zeros(_VALUES, np.uint16)
    for block in range(_ZERO, items, np.uint64(_BLOCK)):
        block_end = min(block + np.uint64(_BLOCK), items)
        for query in range(_unsigned(len(query_codes))):
            row = histogram[query]
            for start in range(block, block_end, chunk):
                size = min(chunk, block_end - start)
                part = columns[:size]
                _write_relevance(query_labels[query], labels, start, by_class, part)
                _add_distances(query_codes[query], codes, start, part)
                _tally(values[: size // items_per_value], table)
                if size % items_per_value:  # the last one has nothing to pair with
                    row[_unsigned(part[size - _ONE])] += 1
            if items_per_value == _ONE:
                _move(table, row)
            else:
                _move_pairs(table, row)


@compiled
def _write_relevance(
    label: NDArray[np.uint8],  # [label bytes], of the query
    labels: NDArray[np.uint8],  # [label bytes, items]
    start: int,
    by_class: bool,
    columns: NDArray[np.unsignedinteger[Any]],
) -> None:
    """Set `columns` to 1 for the relevant ones of the items from `start` on, else to 0."""
    size = _unsigned(len(columns))
    columns[:] = 0
    for plane in range(_ZERO, _unsigned(len(label)), _TWO):
        own, own_next = label[plane], label[plane + _ONE]
        for item in range(size):
            other, other_next = labels[plane, start + item], labels[plane + _ONE, start + item]
            if by_class:  # what differs
                columns[item] |= own ^ other | own_next ^ other_next
            else:  # what is shared
                columns[item] |= own & other | own_next & other_next
    for item in range(size):
        columns[item] = (columns[item] == 0) == by_class


@compiled
def _add_distances(
    code: NDArray[np.uint8],  # [code bytes], of the query
    codes: NDArray[np.uint8],  # [code bytes, items]
    start: int,
    columns: NDArray[np.unsignedinteger[Any]],
) -> None:
    """Add twice the distance of the items from `start` on to `columns`."""
    for plane in range(_ZERO, _unsigned(len(code)), _TWO):
        own, own_next = code[plane], code[plane + _ONE]
        for item in range(_unsigned(len(columns))):
            distance = _unsigned(popcount(np.uint8(own ^ codes[plane, start + item])))
            distance += _unsigned(popcount(np.uint8(own_next ^ codes[plane + _ONE, start + item])))
            columns[item] += _TWO * distance


@compiled
def _tally(values: NDArray[np.uint16], table: NDArray[np.uint16]) -> None:
    """Count the values: `table` has a place for each."""
    for index in range(_unsigned(len(values))):
        table[_unsigned(values[index])] += np.uint16(1)


@compiled
def _move(table: NDArray[np.uint16], row: NDArray[np.int64]) -> None:
    """Add what the table counts to the columns of `row`, and empty it."""
    for column in range(_unsigned(len(row))):
        row[column] += table[column]
        table[column] = 0


@compiled
def _move_pairs(table: NDArray[np.uint16], row: NDArray[np.int64]) -> None:
    """The same for a table of pairs: each counts for the column of its one byte and of its other byte."""
    columns = _unsigned(len(row))
    sums = np.zeros(len(row), np.uint32)
    for one in range(columns):
        total = np.uint32(0)
        for other in range(columns):
            place = one * _BYTE_VALUES + other
            pairs = np.uint32(table[place])
            table[place] = 0
            sums[other] += pairs
            total += pairs
        row[one] += np.int64(total)
    for other in range(columns):
        row[other] += np.int64(sums[other])
