"""MLS3RDUH: Deep Unsupervised Hashing via Manifold based Local Semantic Similarity Structure Reconstructing.

Tu, Mao and Wei, IJCAI 2020. Written from the behaviour of the released code,
https://github.com/rongchengtu1/MLS3RDUH at commit 5c9a99f, which has no licence. The README in this folder
lists the differences between the released code and this file.

Shapes: B images of the batch, N training images.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod, TrainingSet
from hashbench.method.similarity import check_pairs_fit

NONE, FULL = 1e-4, 0.999  # a cosine below or above counts as 0 or 1


def reconstructed_similarity(
    features: Tensor, neighbours: int, manifold_neighbours: int, alpha: float = 0.99
) -> Tensor:
    """Compute the similarities of images: their cosine, unless the manifold confirms or rejects neighbours.

    Of the nearest neighbours of an image by cosine, those that are also its neighbours on the manifold are
    confirmed, and the others rejected. The manifold similarity is a random walk on the graph of mutual
    neighbours. Images without an edge in the graph keep their cosines.

    Args:
        features: Features [N, F].
        neighbours: Number of nearest neighbours by cosine.
        manifold_neighbours: Number of nearest neighbours on the manifold, of which the image itself is one.
        alpha: Probability that the random walk continues, below 1.

    Returns:
        A symmetric matrix [N, N]: 1 for confirmed pairs, −1 for rejected ones, 2 · cosine − 1 for others.
    """
    units = F.normalize(features)
    similarity = units @ units.T
    proximity = similarity.clone().fill_diagonal_(-torch.inf)  # an image is no neighbour of itself
    near = _largest(proximity, neighbours)
    edges = torch.where(near & near.T & (proximity > NONE), proximity, 0)
    linked = edges.any(1).nonzero().flatten()  # R of the N images
    manifold = _manifold_similarity(edges[linked][:, linked], alpha)
    near = _largest(proximity[linked][:, linked], neighbours).fill_diagonal_(False)  # [R, R]
    # Images that no path connects have the manifold similarity 0, and are no neighbours.
    confirmed = _largest(manifold, manifold_neighbours) & (manifold > 0)
    block = similarity[linked][:, linked]
    similarity[linked[:, None], linked] = torch.where(near, confirmed.to(block.dtype), block)
    ones, zeros = similarity > FULL, similarity < NONE
    similarity[zeros | zeros.T] = 0
    similarity[ones | ones.T] = 1  # a pair that one image confirms and the other rejects is confirmed
    return 2 * similarity - 1


def _largest(values: Tensor, count: int) -> Tensor:
    """Return a mask of the largest values in each row."""
    largest = values.topk(min(count, values.shape[1])).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, largest, True)


def _manifold_similarity(edges: Tensor, alpha: float) -> Tensor:
    """Return (1 − alpha) · (I − alpha · A)⁻¹, where A are the edges [R, R] normalized by degrees."""
    scale = edges.sum(1).rsqrt()
    graph = torch.eye(len(edges)).to(edges) - alpha * scale[:, None] * edges * scale
    # The eigenvalues of A are at most 1, so that the matrix is positive definite.
    return (1 - alpha) * torch.cholesky_inverse(torch.linalg.cholesky(graph))


def log_cosh_loss(hash: Tensor, similarity: Tensor) -> Tensor:
    """Return the mean log cosh of the difference between similarities of codes and their targets.

    Args:
        hash: Relaxed codes [B, bits] in −1..1.
        similarity: Targets [B, B] of the inner products of the codes, divided by the bits.

    Returns:
        A scalar.
    """
    difference = hash @ hash.T / hash.shape[1] - similarity
    return (difference + F.softplus(-2 * difference)).mean() - math.log(2)  # without overflow


class MLS3RDUH(FeatureMethod):
    """MLS3RDUH: a linear head with tanh, trained on the reconstructed similarities of all training images."""

    views: ClassVar[int] = 1
    uses_indices: ClassVar[bool] = True

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        near_fraction: float = Field(
            default=0.06, ge=0, le=1, description="Fraction of training images that are neighbours by cosine."
        )
        manifold_fraction: float = Field(
            default=0.09,
            ge=0,
            le=1,
            description="Fraction of training images that are neighbours on the manifold.",
        )
        alpha: float = Field(
            default=0.99,
            ge=0,
            lt=1,
            description="Probability that the random walk on the manifold continues.",
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.fc = nn.Linear(backbone.feature_dim, bits)

    def prepare(self, training: TrainingSet) -> None:
        """Compute the similarities of all training images."""
        check_pairs_fit("mls3rduh", len(training))  # before features are computed, which may take long
        settings, features = self.hyperparameters, training.features()
        near, manifold = (
            int(len(features) * part) for part in (settings.near_fraction, settings.manifold_fraction)
        )
        self.similarity = reconstructed_similarity(features, near, manifold, settings.alpha)  # [N, N]

    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Return the loss for the features [B, F] of a batch with the rows `indices` [B]."""
        similarity = self.similarity[indices[:, None], indices]
        return {"loss": log_cosh_loss(self.encode_features(features[0]), similarity)}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return relaxed codes [B, bits] in −1..1."""
        return torch.tanh(self.fc(features))
