"""PQ: Product Quantization for Nearest Neighbor Search, Jégou, Douze and Schmid, TPAMI 2011.

Shapes: N images of F features, M books of W words of dimension D = F / M, rounded up.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hashbench.backbones import Backbone
from hashbench.codes import ProductCodes
from hashbench.method.base import ShallowMethod
from hashbench.method.product import Words, assign_codewords, count_books, fit_codebooks, product_codes


class PQ(ShallowMethod):
    """PQ: subvectors of the features, replaced by their nearest codewords."""

    codebooks: Tensor

    class Hyperparameters(ShallowMethod.Hyperparameters):
        """Hyperparameters; the recipes for the datasets of the papers have 256 words, as the paper has."""

        words: Words = Field(default=16, description="Number of codewords per book, a power of 2.")

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        books = count_books(type(self).__name__.lower(), bits, hyperparameters.words)
        dim = -(-backbone.feature_dim // books)
        self.register_buffer("codebooks", torch.zeros(books, hyperparameters.words, dim))

    def fit(self, features: Tensor) -> None:
        """Compute the codebooks of the features [N, F]."""
        books, words, _ = self.codebooks.shape
        self.codebooks = fit_codebooks(self.encode_features(features), books, words)

    def encode_features(self, features: Tensor) -> Tensor:
        """Return features [B, F] as subvectors of equal size [B, M·D], with zeros at the end."""
        books, _, dim = self.codebooks.shape
        return F.pad(features, (0, books * dim - features.shape[1]))

    def codes(self, values: Tensor) -> ProductCodes:
        """Return the nearest codewords of features [B, M·D]."""
        words = assign_codewords(values.detach().to(self.codebooks), self.codebooks)
        return product_codes(words, self.codebooks, "squared_l2")

    def query_codes(self, values: Tensor) -> NDArray[np.float32]:
        """Return the features [B, M·D] unquantized, for asymmetric distances to codewords."""
        features: NDArray[np.float32] = values.detach().cpu().numpy()
        return features
