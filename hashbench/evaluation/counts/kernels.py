"""Counting loop on the CPU, from bytes of codes and labels to a histogram per query.

Codes and labels are stored as byte planes: uint8 [planes, n], where plane p contains byte p of every item.
Each step of the loops therefore processes as many items at a time as a vector register has bytes, for codes
of any length:

1. For a chunk of items, write `2 * distance + relevant` of each item into a buffer that stays in the cache.
2. Count the values in the buffer. Memory takes about one increment per cycle, so this is the slowest step.
   Columns of one byte are read as pairs, two items at a time, and a table has an entry for every pair.
3. Once per block of items, add that table to the histogram.

All indices are unsigned, so that the compiler omits the checks for negative ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

_Function = TypeVar("_Function", bound=Callable[..., Any])

LONGEST_CODE = 2**15 - 1  # bits; the largest column must fit into 16 bits
_LONGEST_BYTE_CODE = 127  # bits; the largest column must fit into 8 bits

_VALUES = 2**16  # number of 16-bit values, which index the table
_CHUNK = 4096  # items
# The table counts in 16 bits, so a block has fewer items than 2**16.
_BLOCK = 15 * _CHUNK

_ZERO, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)
_BYTE_VALUES = np.uint64(256)
_unsigned: Any = numba.uint64


def compiled(function: _Function) -> _Function:
    """Compile a function with Numba on its first call, without the global interpreter lock.

    The machine code is cached on disk. Without a writable cache folder, for which Numba raises an error, or
    without a home folder, as in some containers, where Numba would create a folder named ~, the function is
    compiled in every process.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        if not numba.config.CACHE_DIR:  # type: ignore[attr-defined]
            Path.home()
        loop = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        loop = numba.njit(**options)(function)
    return cast("_Function", loop)


def _emit_popcount(_context: Any, word: Any) -> Any:
    return word(word), lambda _context, builder, _signature, arguments: builder.ctpop(arguments[0])


popcount: Any = intrinsic(_emit_popcount)  # number of set bits of an unsigned integer, in its type


def byte_rows(packed: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    """Return the bytes of packed bits, uint8 [n, bytes]: an even number of bytes, the lowest first.

    Args:
        packed: uint64 [n, words], C-contiguous or not; bits from `bits` on are 0.
        bits: Number of significant bits, 1 or more.
    """
    octets = np.ascontiguousarray(packed, "<u8").view(np.uint8)
    return np.ascontiguousarray(octets[:, : 2 * -(-bits // 16)])


def byte_planes(packed: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    """Return the bytes of packed bits as planes, uint8 [bytes, n]; see `byte_rows`."""
    return np.ascontiguousarray(byte_rows(packed, bits).T)


def column_buffer(bits: int) -> NDArray[np.unsignedinteger[Any]]:
    """Allocate the buffer of `count` for codes of this length in bits."""
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
        by_class: True if the labels are class ids, False if they are multi-hot.
        columns: A `column_buffer`.
        histogram: Output [queries, 2 * (bits + 1)]; each item adds 1 to column 2 * distance + relevant.
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
                if size % items_per_value:  # the last item has no partner
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
    """Set `columns` to 1 for the relevant items from `start` on and to 0 for the others."""
    size = _unsigned(len(columns))
    columns[:] = 0
    for plane in range(_ZERO, _unsigned(len(label)), _TWO):
        own, own_next = label[plane], label[plane + _ONE]
        for item in range(size):
            other, other_next = labels[plane, start + item], labels[plane + _ONE, start + item]
            if by_class:  # bits that differ
                columns[item] |= own ^ other | own_next ^ other_next
            else:  # bits that are shared
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
    """Count the values in `table`, which has an entry for each value."""
    for index in range(_unsigned(len(values))):
        table[_unsigned(values[index])] += np.uint16(1)


@compiled
def _move(table: NDArray[np.uint16], row: NDArray[np.int64]) -> None:
    """Add the counts of the table to the columns of `row` and reset the table."""
    for column in range(_unsigned(len(row))):
        row[column] += table[column]
        table[column] = 0


@compiled
def _move_pairs(table: NDArray[np.uint16], row: NDArray[np.int64]) -> None:
    """Add the counts of a table of pairs to the columns of both bytes of each pair, and reset the table."""
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
