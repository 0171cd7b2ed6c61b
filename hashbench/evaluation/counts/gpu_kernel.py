"""The loop over pairs of codes on a GPU, a Triton kernel; Triton comes with torch on Linux.

A program compares a few queries with a range of items, block by block, and adds its counts to the result
at the end. The counts of a block are made in shared memory, by `tl.histogram`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

_PAIRS = 4096  # pairs of a block
_MOST_BINS = 1024  # of all queries of a program, up to which more queries share the items that were read
_BLOCKS = 64  # blocks of a program


def add_counts(
    histogram: Tensor,
    queries: Tensor,
    items: Tensor,
    query_labels: Tensor,
    item_labels: Tensor,
    by_class: bool,
) -> None:
    """Add the number of pairs to the column 2 * distance + relevant of each query.

    Args:
        histogram: int64 [queries, 2 * (bits + 1)], which fits in shared memory up to 4,096 bits.
        queries: Packed codes, int64 [queries, words].
        items: Packed codes, int64 [words, items], with fewer than 2**31 items.
        query_labels: Class ids or packed multi-hot labels, int64 [queries, words].
        item_labels: The same of the items, int64 [words, items].
        by_class: Labels are class ids.
    """
    columns = histogram.shape[1]
    bins = triton.next_power_of_2(columns)
    together = max(1, _MOST_BINS // bins)
    block = _PAIRS // together
    grid = (-(-len(queries) // together), -(-items.shape[1] // (block * _BLOCKS)))
    _add_counts[grid](
        *(histogram, queries, items, query_labels, item_labels),
        *(len(queries), items.shape[1], columns),
        WORDS=len(items),
        LABEL_WORDS=len(item_labels),
        BY_CLASS=by_class,
        BINS=bins,
        QUERIES=together,
        BLOCK=block,
        BLOCKS=_BLOCKS,
        num_warps=8,
    )


@triton.jit
def _add_counts(
    histogram,
    queries,
    items,
    query_labels,
    item_labels,
    n_queries,
    n_items,
    columns,
    WORDS: tl.constexpr,
    LABEL_WORDS: tl.constexpr,
    BY_CLASS: tl.constexpr,
    BINS: tl.constexpr,
    QUERIES: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    row = tl.arange(0, QUERIES)[:, None]
    query = tl.program_id(0) * QUERIES + row
    first = tl.program_id(1) * BLOCK * BLOCKS
    counts = tl.zeros([QUERIES * BINS], tl.int32)
    for start in range(first, tl.minimum(first + BLOCK * BLOCKS, n_items), BLOCK):
        item = start + tl.arange(0, BLOCK)[None, :]
        distance = tl.zeros([QUERIES, BLOCK], tl.int32)
        for word in range(WORDS):
            code = _load(queries, query * WORDS + word, query < n_queries)
            other = _load(items, item + word * tl.cast(n_items, tl.int64), item < n_items)
            distance += _popcount(code ^ other)
        shared = tl.zeros([QUERIES, BLOCK], tl.uint64)
        for word in range(LABEL_WORDS):
            label = _load(query_labels, query * LABEL_WORDS + word, query < n_queries)
            other = _load(item_labels, item + word * tl.cast(n_items, tl.int64), item < n_items)
            if BY_CLASS:
                shared |= (label == other).to(tl.uint64)
            else:
                shared |= label & other
        bin = row * BINS + 2 * distance + (shared != 0).to(tl.int32)
        valid = (query < n_queries) & (item < n_items)
        counts += tl.histogram(
            bin.reshape([QUERIES * BLOCK]), QUERIES * BINS, valid.reshape([QUERIES * BLOCK])
        )
    counts = counts.reshape([QUERIES, BINS])
    column = tl.arange(0, BINS)[None, :]
    place = histogram + tl.cast(query, tl.int64) * columns + column
    tl.atomic_add(place, counts.to(tl.int64), (query < n_queries) & (column < columns), "relaxed")


@triton.jit
def _load(words, place, valid):
    return tl.load(words + place, valid, 0).to(tl.uint64, bitcast=True)


@triton.jit
def _popcount(words):
    """Count the ones of each word, in fields of 2, 4 and 8 bits, which the product adds up."""
    words -= (words >> 1) & 0x5555555555555555
    words = (words & 0x3333333333333333) + ((words >> 2) & 0x3333333333333333)
    words = (words + (words >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((words * 0x0101010101010101) >> 56).to(tl.int32)
