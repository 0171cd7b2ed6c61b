"""Counts of pairs on a GPU: by a Triton kernel, or with torch by matrix products of signs and `bincount`.

The kernel counts many pairs faster. The products need no compilation, and Triton is not everywhere. Both
give the counts of the CPU: distances in floating point are whole numbers that it represents exactly, and a
number of shared labels is only compared with 0.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashbench.codes import BinaryCodes
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation.counts.labels import Labels

_BUDGET = 2**30  # bytes
_SMALLEST_BUDGET = 2**24
_QUERIES = 256  # number of queries in a tile, enough for matrix products at full speed

_KERNEL_PAIRS = 10**8  # for fewer pairs, the kernel is not compiled, which takes seconds once per machine
_KERNEL_BITS = 4096  # a histogram of longer codes exceeds the shared memory of common GPUs

# Memory for the products, relevance and columns of a pair, `bincount` included; for a decoded bit of an item.
_BYTES_PER_PAIR = 24
_BYTES_PER_BIT = 8

# Products of ±1 and their partial sums are within ±bits; float16 represents all whole numbers up to 2,048.
_LONGEST_HALF = 2048


class Pairs(NamedTuple):
    """Codes and labels of the queries and of the database."""

    query_codes: BinaryCodes
    database_codes: BinaryCodes
    query_labels: Labels
    database_labels: Labels


def count(
    query_codes: BinaryCodes,
    database_codes: BinaryCodes,
    query_labels: Labels,
    database_labels: Labels,
    device: str = "cuda",
    budget: int = _BUDGET,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count items and relevant items by Hamming distance, for each query; see `count_pairs`.

    Args:
        query_codes: Codes of the queries.
        database_codes: Codes of the database, of the same length in bits.
        query_labels: Labels of the queries.
        database_labels: Labels of the database, in the same form.
        device: A torch device.
        budget: Approximate memory of the device to use in addition to the queries and the counts, in bytes.
            If it is not available, half of it is tried, down to 16 MiB.

    Returns:
        Two arrays int64 [queries, bits + 1].

    Raises:
        UsageError: The device is a GPU and torch sees none.
        HashbenchError: The device is out of memory.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            "device='cuda': torch sees no GPU; check `nvidia-smi` and torch's CUDA build, or use 'cpu'"
        )
    kernel = (
        torch.device(device).type == "cuda"
        and len(query_codes) * len(database_codes) >= _KERNEL_PAIRS
        and query_codes.bits <= _KERNEL_BITS
        and find_spec("triton") is not None
    )
    histogram_of = kernel_histogram if kernel else product_histogram
    pairs = Pairs(query_codes, database_codes, query_labels, database_labels)
    while True:
        try:
            histogram = histogram_of(pairs, device, budget)
            break
        except torch.cuda.OutOfMemoryError:
            if budget // 2 < _SMALLEST_BUDGET:
                raise HashbenchError(
                    f"out of memory on {device}: counting pairs needs at least {budget // 2**20} MiB; "
                    "stop other programs on this device, or use device='cpu'"
                ) from None
            budget //= 2
    relevant = histogram[:, 1::2].copy()
    return histogram[:, ::2] + relevant, relevant


def kernel_histogram(pairs: Pairs, device: str, budget: int) -> NDArray[np.int64]:
    """Count pairs with the Triton kernel; see `product_histogram` for the result."""
    from hashbench.evaluation.counts.gpu_kernel import add_counts  # not every torch comes with Triton

    def load(packed: NDArray[np.uint64]) -> Tensor:
        return torch.tensor(packed.view(np.int64), device=device)

    query, database, query_labels, database_labels = pairs
    histogram = torch.zeros(len(query), 2 * (query.bits + 1), dtype=torch.int64, device=device)
    queries, labels = load(query.packed), load(query_labels.packed)
    item_bytes = 2 * (database.packed[:1].nbytes + database_labels.packed[:1].nbytes)  # in both orders
    tile = max(1, min(budget // item_bytes, 2**30))
    for start in range(0, len(database), tile):
        rows = slice(start, start + tile)
        items, item_labels = (load(side.packed[rows]).T.contiguous() for side in (database, database_labels))
        add_counts(histogram, queries, items, labels, item_labels, query_labels.by_class)
    return histogram.cpu().numpy()


def product_histogram(pairs: Pairs, device: str, budget: int) -> NDArray[np.int64]:
    """Count pairs by query and by 2 * distance + relevant, int64 [queries, 2 * (bits + 1)]; see `count`."""
    query, database, query_labels, database_labels = pairs
    bits, columns = query.bits, 2 * (query.bits + 1)
    half = torch.device(device).type != "cpu" and bits <= _LONGEST_HALF
    dtype = torch.float16 if half else torch.float32  # float16 matrix products are slow on a CPU

    def load(codes: BinaryCodes, labels: Labels, rows: slice) -> tuple[Tensor, Tensor]:
        """Return codes of ±1 [n, bits], and class ids int64 [n] or labels of 0 and 1 [n, classes]."""
        signs = 2 * _bits(codes.packed[rows], bits, device).to(dtype) - 1
        if labels.columns is None:
            return signs, torch.tensor(labels.packed[rows, 0].view(np.int64), device=device)
        return signs, _bits(labels.packed[rows], labels.columns, device).to(dtype)

    starts = range(0, len(query), _QUERIES)
    blocks = [load(query, query_labels, slice(start, start + _QUERIES)) for start in starts]
    counts = [signs.new_zeros(len(signs) * columns, dtype=torch.int64) for signs, _ in blocks]
    width = bits + (query_labels.columns or 0)
    tile = max(1, budget // (_QUERIES * _BYTES_PER_PAIR + width * _BYTES_PER_BIT))
    for start in range(0, len(database), tile):
        items, item_labels = load(database, database_labels, slice(start, start + tile))
        for (signs, labels), count in zip(blocks, counts, strict=True):
            # A product is bits - 2 * distance.
            index = (signs @ items.T).to(torch.int32).neg_().add_(bits)  # [queries, items]
            index += _relevant(labels, item_labels)
            index += torch.arange(len(index), dtype=torch.int32, device=index.device)[:, None] * columns
            count += torch.bincount(index.flatten(), minlength=len(count))
    return torch.cat(counts).reshape(len(query), columns).cpu().numpy()


def _relevant(query: Tensor, items: Tensor) -> Tensor:
    """Return a mask of the pairs that share a label, bool [queries, items]."""
    if query.ndim == 1:
        return query[:, None] == items
    return query @ items.T > 0  # a sum of zeros and ones may be rounded, but never to 0


def _bits(packed: NDArray[np.uint64], bits: int, device: str) -> Tensor:
    """Unpack the bits of codes or labels into zeros and ones, uint8 [n, bits]."""
    octets = torch.tensor(np.ascontiguousarray(packed, "<u8").view(np.uint8), device=device)
    ones = octets[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=device) & 1  # [n, bytes, 8]
    return ones.flatten(1)[:, :bits]
