"""OPQ: Optimized Product Quantization for Approximate Nearest Neighbor Search, Ge, He, Ke and Sun, CVPR 2013.

Shapes: N images, M books of W words of dimension D.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from hashbench.backbones import Backbone
from hashbench.method.linear import random_rotation
from hashbench.method.product import assign_codewords, fit_codebooks
from hashbench_methods.pq import PQ


def optimized_rotation(features: Tensor, books: int, words: int, iterations: int) -> Tensor:
    """Find a rotation after which product quantization has a small error (the non-parametric method).

    Starting from a random rotation and the codebooks for it, two steps alternate: update the codewords for a
    fixed rotation by one step of k-means, and the rotation for fixed codewords (orthogonal Procrustes
    problem). Neither increases the error.

    Args:
        features: Features [N, M·D].
        books: Number M of books.
        words: Number W of words.
        iterations: Number of iterations.

    Returns:
        An orthogonal matrix [M·D, M·D], to be multiplied from the right.
    """
    rotation = random_rotation(features.shape[1]).to(features)
    rotated = features @ rotation
    codebooks = fit_codebooks(rotated, books, words)
    for _ in range(iterations):
        indices = assign_codewords(rotated, codebooks)
        codebooks = _means(rotated, indices, codebooks)
        chosen = codebooks[torch.arange(books, device=indices.device), indices].flatten(1)
        left, _, right = torch.linalg.svd(features.T @ chosen)
        rotation = left @ right
        rotated = features @ rotation
    return rotation


def _means(features: Tensor, indices: Tensor, codebooks: Tensor) -> Tensor:
    """Return the means [M, W, D] of the subvectors that are assigned to each codeword; unused ones stay."""
    books, words, dim = codebooks.shape
    rows = (indices + words * torch.arange(books, device=indices.device)).flatten()
    sums = torch.zeros_like(codebooks.flatten(0, 1)).index_add(0, rows, features.reshape(-1, dim))
    counts = torch.bincount(rows, minlength=books * words)[:, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), codebooks.flatten(0, 1)).view_as(codebooks)


class OPQ(PQ):
    """OPQ: subvectors of the rotated features, replaced by their nearest codewords."""

    rotation: Tensor

    class Hyperparameters(PQ.Hyperparameters):
        """Hyperparameters."""

        iterations: int = Field(default=20, ge=0, description="Iterations to find the rotation.")

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        books, _, dim = self.codebooks.shape
        self.register_buffer("rotation", torch.eye(books * dim))

    def fit(self, features: Tensor) -> None:
        """Compute the rotation of the features [N, F], and the codebooks of the rotated features."""
        books, words, _ = self.codebooks.shape
        padded = super().encode_features(features)
        self.rotation = optimized_rotation(padded, books, words, self.hyperparameters.iterations)
        super().fit(features)

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the rotated features [B, M·D] of features [B, F]."""
        return super().encode_features(features) @ self.rotation
