"""SPQ: Self-supervised Product Quantization for Deep Unsupervised Image Retrieval, Jang and Cho, ICCV 2021.

Follows the released code, https://github.com/youngkyunJang/SPQ at commit 6908f54 (MIT): `main_SPQ.py`,
`utils.py`, `Retrieval.py`. This folder's README lists where paper, code and this file differ.

Shapes: B images, K books of W words of dimension D.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.codes import ProductCodes
from hashbench.errors import UsageError
from hashbench.method.base import FeatureMethod
from hashbench.method.losses import nt_xent

# Distances to codewords held at once: 2**24 float32, 64 MiB. 200,000 images and 8 books of 256 words have
# 24 times as many.
MAX_DISTANCES = 2**24


def soft_quantize(features: Tensor, codebooks: Tensor, scale: float = 5.0) -> Tensor:
    """Replace each piece of a feature by a mean of the codewords, weighted by how near they are.

    Args:
        features: Features [B, K·D].
        codebooks: Codewords [K, W, D].
        scale: Multiplies the squared distances under the softmax; the larger, the harder.

    Returns:
        Quantized features [B, K·D].
    """
    pieces = features.view(len(features), len(codebooks), 1, -1)  # [B, K, 1, D]
    distances = (pieces - codebooks).square().sum(-1)  # [B, K, W]
    weights = torch.softmax(-scale * distances, dim=-1)
    return torch.einsum("bkw,kwd->bkd", weights, codebooks).flatten(1)


def cross_quantized_contrastive_loss(
    xa: Tensor, xb: Tensor, za: Tensor, zb: Tensor, temperature: float = 0.5
) -> Tensor:
    """Contrast the features of one view with the quantized features of the other, both ways.

    Args:
        xa: Features [B, K·D] of the first view.
        xb: Features of the second view.
        za: Quantized features of the first view.
        zb: Quantized features of the second view.
        temperature: Divides the cosine similarities.

    Returns:
        A scalar: the sum of both ways, each a mean over 2B rows.
    """
    return nt_xent(xa, zb, temperature) + nt_xent(xb, za, temperature)


def assign_codewords(features: Tensor, codebooks: Tensor) -> Tensor:
    """The nearest codeword of each piece of a feature; of equally near ones the first.

    Memory is bounded: beyond `MAX_DISTANCES` distances, the rows are assigned in parts.

    Args:
        features: Features [B, K·D].
        codebooks: Codewords [K, W, D].

    Returns:
        Numbers of codewords, int64 [B, K].
    """
    rows = max(1, MAX_DISTANCES // codebooks[..., 0].numel())
    return torch.cat([_nearest(part, codebooks) for part in torch.split(features, rows)])


def _nearest(features: Tensor, codebooks: Tensor) -> Tensor:
    """All at once: features [B, K·D], codewords [K, W, D] -> int64 [B, K]."""
    books, _, dim = codebooks.shape
    pieces = features.view(len(features), books, dim).transpose(0, 1)  # [K, B, D]
    # The shortcut by a matrix product would round.
    distances = torch.cdist(pieces, codebooks, compute_mode="donot_use_mm_for_euclid_dist")  # [K, B, W]
    return distances.argmin(-1).T


class SPQ(FeatureMethod):
    """Features and codebooks, learned together; product codes."""

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Defaults are those of the released code."""

        words: int = Field(default=16, ge=2, le=65536, description="Codewords of a book, a power of 2.")
        dim: int = Field(default=16, gt=0, description="Dimension of a codeword.")
        quantization_scale: float = Field(default=5.0, gt=0, description="Hardness of the soft quantization.")
        temperature: float = Field(default=0.5, gt=0, description="Softmax of the similarities.")

        @field_validator("words")
        @classmethod
        def _power_of_two(cls, words: int) -> int:
            if words & (words - 1):
                raise ValueError("the number of codewords must be a power of 2")
            return words

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        words, dim = hyperparameters.words, hyperparameters.dim
        bits_per_book = words.bit_length() - 1
        books, rest = divmod(bits, bits_per_book)
        if rest:
            raise UsageError(
                f"spq: {bits} bits are no whole number of books of {words} words, {bits_per_book} bits each; "
                "choose another --bits or --set words=…"
            )
        self.projection = nn.Linear(backbone.feature_dim, 512)
        self.head = nn.Linear(512, books * dim)
        nn.init.xavier_uniform_(self.head.weight)
        # As released, where the books lie side by side in one matrix, whose width bounds the weights.
        side_by_side = nn.init.xavier_uniform_(torch.empty(words, books * dim))
        self.codebooks = nn.Parameter(side_by_side.view(words, books, dim).transpose(0, 1).contiguous())

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """The loss of the features [B, F] of two views."""
        settings = self.hyperparameters
        xa, xb = (self.encode_features(view) for view in features)
        za, zb = (soft_quantize(x, self.codebooks, settings.quantization_scale) for x in (xa, xb))
        return {"loss": cross_quantized_contrastive_loss(xa, xb, za, zb, settings.temperature)}

    def encode_features(self, features: Tensor) -> Tensor:
        """Features [B, K·D] before quantization."""
        values: Tensor = self.head(F.relu(self.projection(features)))
        return values

    def codes(self, values: Tensor) -> ProductCodes:
        """The nearest codewords of features [B, K·D]."""
        codebooks = self.codebooks.detach().clone()  # codes stay as they are if training goes on
        words = assign_codewords(values.detach().to(codebooks.device), codebooks)
        kind: type[np.unsignedinteger[Any]] = np.uint8 if self.hyperparameters.words <= 256 else np.uint16
        return ProductCodes(words.cpu().numpy().astype(kind), codebooks.cpu().numpy())

    def query_codes(self, values: Tensor) -> NDArray[np.float32]:
        """Features [B, K·D] as they are: distances to the database's codewords are asymmetric."""
        features: NDArray[np.float32] = values.detach().cpu().numpy()
        return features
