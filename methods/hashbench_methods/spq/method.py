"""SPQ: Self-supervised Product Quantization for Deep Unsupervised Image Retrieval, Jang and Cho, ICCV 2021.

Follows the released code, https://github.com/youngkyunJang/SPQ at commit 6908f54 (MIT): `main_SPQ.py`,
`utils.py`, `Retrieval.py`. The README in this folder lists the differences between the paper, the released
code and this file.

Shapes: B images, K books of W words of dimension D.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.codes import ProductCodes
from hashbench.method.base import FeatureMethod
from hashbench.method.losses import nt_xent
from hashbench.method.product import Words, assign_codewords, count_books, product_codes


def soft_quantize(features: Tensor, codebooks: Tensor, scale: float = 5.0) -> Tensor:
    """Replace each subvector of a feature by the softmax-weighted mean of the codewords of its book.

    Args:
        features: Features [B, K·D].
        codebooks: Codewords [K, W, D].
        scale: Factor of the squared distances in the softmax; larger values give harder assignments.

    Returns:
        Quantized features [B, K·D].
    """
    subvectors = features.view(len(features), len(codebooks), 1, -1)  # [B, K, 1, D]
    distances = (subvectors - codebooks).square().sum(-1)  # [B, K, W]
    weights = torch.softmax(-scale * distances, dim=-1)
    return torch.einsum("bkw,kwd->bkd", weights, codebooks).flatten(1)


def cross_quantized_contrastive_loss(
    xa: Tensor, xb: Tensor, za: Tensor, zb: Tensor, temperature: float = 0.5
) -> Tensor:
    """Contrast the features of each view with the quantized features of the other view.

    Args:
        xa: Features [B, K·D] of the first view.
        xb: Features [B, K·D] of the second view.
        za: Quantized features [B, K·D] of the first view.
        zb: Quantized features [B, K·D] of the second view.
        temperature: Divisor of the cosine similarities.

    Returns:
        A scalar, the sum of both directions, each of which is a mean over 2B rows.
    """
    return nt_xent(xa, zb, temperature) + nt_xent(xb, za, temperature)


class SPQ(FeatureMethod):
    """SPQ: features and codebooks, learned jointly for product codes."""

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        words: Words = Field(default=16, description="Number of codewords per book, a power of 2.")
        dim: int = Field(default=16, gt=0, description="Dimension of a codeword.")
        quantization_scale: float = Field(default=5.0, gt=0, description="Hardness of the soft quantization.")
        temperature: float = Field(
            default=0.5, gt=0, description="Temperature of the softmax over similarities."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        words, dim = hyperparameters.words, hyperparameters.dim
        books = count_books("spq", bits, words)
        self.projection = nn.Linear(backbone.feature_dim, 512)
        self.head = nn.Linear(512, books * dim)
        nn.init.xavier_uniform_(self.head.weight)
        # As in the released code, all books are initialized as one matrix, whose width determines the range.
        concatenated = nn.init.xavier_uniform_(torch.empty(words, books * dim))
        self.codebooks = nn.Parameter(concatenated.view(words, books, dim).transpose(0, 1).contiguous())

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the loss for the features [B, F] of two views."""
        settings = self.hyperparameters
        xa, xb = (self.encode_features(view) for view in features)
        za, zb = (soft_quantize(x, self.codebooks, settings.quantization_scale) for x in (xa, xb))
        return {"loss": cross_quantized_contrastive_loss(xa, xb, za, zb, settings.temperature)}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the features [B, K·D] before quantization."""
        values: Tensor = self.head(F.relu(self.projection(features)))
        return values

    def codes(self, values: Tensor) -> ProductCodes:
        """Return the nearest codewords of features [B, K·D]."""
        words = assign_codewords(values.detach().to(self.codebooks.device), self.codebooks.detach())
        return product_codes(words, self.codebooks)

    def query_codes(self, values: Tensor) -> NDArray[np.float32]:
        """Return the features [B, K·D] unquantized, for asymmetric distances to codewords."""
        features: NDArray[np.float32] = values.detach().cpu().numpy()
        return features
