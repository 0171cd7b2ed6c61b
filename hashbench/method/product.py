"""Product quantization, for methods with product codes.

Shapes: N rows, M books of W words of dimension D.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from hashbench.codes import ProductCodes, ProductDistance
from hashbench.errors import UsageError
from hashbench.method.anchors import kmeans

# Maximum number of distances to codewords in memory: 2**24 float32, 64 MiB. 200,000 images and 8 books of 256
# words have 24 times as many.
MAX_DISTANCES = 2**24


def _power_of_two(words: int) -> int:
    if words & (words - 1):
        raise ValueError("the number of codewords must be a power of 2")
    return words


Words = Annotated[int, Field(ge=2, le=65536), AfterValidator(_power_of_two)]


def count_books(method: str, bits: int, words: int) -> int:
    """Return the number of books of codes of a length.

    Args:
        method: Name of the method, for the message.
        bits: Code length.
        words: Number of codewords per book, a power of 2.

    Raises:
        UsageError: The bits are no multiple of those of a book.
    """
    bits_per_book = words.bit_length() - 1
    books, rest = divmod(bits, bits_per_book)
    if rest:
        raise UsageError(
            f"{method}: expected a multiple of {bits_per_book} bits, as books of {words} words have, "
            f"got {bits}; change --bits or --set words=…"
        )
    return books


def fit_codebooks(features: Tensor, books: int, words: int) -> Tensor:
    """Compute the codewords of each book by k-means of its subvectors.

    If there are fewer features than words, the codewords repeat; only the first of equal ones is assigned.

    Args:
        features: Features [N, M·D].
        books: Number M of books.
        words: Number W of words.

    Returns:
        Codewords [M, W, D].
    """
    codebooks = torch.stack([kmeans(part, words) for part in features.chunk(books, dim=1)])
    return codebooks[:, torch.arange(words, device=features.device) % codebooks.shape[1]]


def assign_codewords(features: Tensor, codebooks: Tensor) -> Tensor:
    """Assign each subvector of a feature to its nearest codeword, the first one in case of a tie.

    Memory is bounded: if there are more than `MAX_DISTANCES` distances, the rows are processed in parts.

    Args:
        features: Features [N, M·D].
        codebooks: Codewords [M, W, D].

    Returns:
        Indices of codewords, int64 [N, M].
    """
    rows = max(1, MAX_DISTANCES // codebooks[..., 0].numel())
    return torch.cat([_nearest(part, codebooks) for part in torch.split(features, rows)])


def product_codes(indices: Tensor, codebooks: Tensor, distance: ProductDistance = "l2") -> ProductCodes:
    """Return codes of indices [N, M] of codewords [M, W, D]; they do not change if training continues."""
    dtype: type[np.unsignedinteger[Any]] = np.uint8 if codebooks.shape[1] <= 256 else np.uint16
    return ProductCodes(
        indices.cpu().numpy().astype(dtype), codebooks.detach().cpu().numpy().copy(), distance
    )


def _nearest(features: Tensor, codebooks: Tensor) -> Tensor:
    """Assign all rows at once: features [N, M·D], codewords [M, W, D] -> int64 [N, M]."""
    books, _, dim = codebooks.shape
    subvectors = features.view(len(features), books, dim).transpose(0, 1)  # [M, N, D]
    # Computing distances by a matrix product would round.
    distances = torch.cdist(subvectors, codebooks, compute_mode="donot_use_mm_for_euclid_dist")  # [M, N, W]
    return distances.argmin(-1).T
