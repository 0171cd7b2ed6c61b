"""AGH: Hashing with Graphs, Liu, Wang, Kumar and Chang, ICML 2011.

Written from the formulas of the paper. The README in this folder says where the released code,
https://github.com/ColumbiaDVMM/Anchor-Graph-Hashing, is followed.

Shapes: N images of F features, A anchors, R eigenvectors.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hashbench.backbones import Backbone
from hashbench.errors import UsageError
from hashbench.method.anchors import anchor_bandwidth, anchor_weights, kmeans
from hashbench.method.base import ShallowMethod


def spectral_projection(weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute the projection of anchor weights to the smoothest eigenvectors of the anchor graph.

    With the weights Z and the diagonal matrix Λ of their column sums, two images are as similar as Z Λ⁻¹ Zᵀ
    says. The constant eigenvector is left out. The columns of Z times the projection sum to 0, have a mean
    square of 1 and are uncorrelated.

    Args:
        weights: Weights [N, A] of `anchor_weights`.
        count: Number R of eigenvectors.

    Returns:
        The projection [A, R] and the eigenvalues [R], in decreasing order. The sign of an eigenvector is
        arbitrary; here, its entry of the largest magnitude is positive.
    """
    precise = weights.double()
    sums = precise.sum(0)
    scale = torch.where(sums > 0, sums.rsqrt(), 0)  # an anchor may have no image
    similarity = scale[:, None] * (precise.T @ precise) * scale
    # The eigenvalue 1 of the constant eigenvector is set to 0. If the graph is not connected, others have the
    # eigenvalue 1, too, and would mix with it.
    constant = F.normalize(sums.sqrt(), dim=0)
    values, vectors = torch.linalg.eigh(similarity - torch.outer(constant, constant))
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * largest.sign()
    positive = values.clamp_min(torch.finfo(values.dtype).eps)  # a graph may have fewer eigenvectors
    projection = len(weights) ** 0.5 * scale[:, None] * vectors / positive.sqrt()
    return projection.to(weights), values.to(weights)


def layer_thresholds(weights: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the thresholds of the second layer.

    The second bit of a column y of the embedding is the sign of y − b⁺ where y > 0, and of b⁻ − y elsewhere.
    Among the thresholds for which these values g sum to 0, b⁺ and b⁻ minimize gᵀ L g with the Laplacian
    L = I − Z Λ⁻¹ Zᵀ of the graph.

    Args:
        weights: Weights Z [N, A] of `anchor_weights`.
        embedding: Eigenvectors [N, R], each with a sum of 0.

    Returns:
        b⁺ and b⁻, each [R].
    """
    precise, values = weights.double(), embedding.double()
    above = (values > 0).double()
    below = 1 - above
    odds = above.sum(0) / below.sum(0)
    # As the values sum to 0, b⁻ follows from b⁺, and g is linear in b⁺: g = free − b⁺ · slope.
    rest = values.abs().sum(0) / below.sum(0)
    free, slope = values.abs() - rest * below, above - odds * below
    sums = precise.sum(0).clamp_min(torch.finfo(precise.dtype).tiny)[:, None]
    laplacian = slope - precise @ (precise.T @ slope / sums)
    curvature = (slope * laplacian).sum(0)
    # If no edge leads from one half to the other, every b⁺ is as good; the mean splits its half.
    mean = (values * above).sum(0) / above.sum(0)
    connected = curvature > 1e-12 * slope.square().sum(0)
    positive = torch.where(connected, (free * laplacian).sum(0) / curvature, mean)
    return positive.to(embedding), (positive * odds - rest).to(embedding)


class AGH(ShallowMethod):
    """AGH: signs of eigenvectors of an anchor graph, with one or two bits per eigenvector."""

    anchors: Tensor
    bandwidth: Tensor
    projection: Tensor
    thresholds: Tensor

    class Hyperparameters(ShallowMethod.Hyperparameters):
        """Hyperparameters with the defaults of the paper."""

        layers: Literal[1, 2] = Field(default=2, description="Number of bits per eigenvector.")
        anchors: int = Field(default=300, ge=2, description="Number of anchors, the centres of k-means.")
        nearest: int = Field(default=3, ge=1, description="Number of nearest anchors with a weight.")

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        count, layers = hyperparameters.anchors, hyperparameters.layers
        if bits % layers:
            raise UsageError(
                f"agh: expected an even number of bits for two layers, got {bits}; "
                "change --bits or pass --set layers=1"
            )
        self.register_buffer("anchors", torch.zeros(count, backbone.feature_dim))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("projection", torch.zeros(count, bits // layers))
        self.register_buffer("thresholds", torch.zeros(2, bits // layers))

    def fit(self, features: Tensor) -> None:
        """Compute the anchors of the features [N, F], the eigenvectors of their graph and the thresholds."""
        settings = self.hyperparameters
        anchors = kmeans(features, settings.anchors)
        count = self.bits // settings.layers
        if count >= len(anchors):
            raise UsageError(
                f"agh: expected more anchors than the {count} eigenvectors, got {len(anchors)}; choose fewer "
                "--bits, more training images or a larger --set anchors=…"
            )
        bandwidth = anchor_bandwidth(features, anchors, settings.nearest)
        weights = anchor_weights(features, anchors, settings.nearest, bandwidth).double()
        projection, _ = spectral_projection(weights, count)
        if settings.layers == 2:
            self.thresholds = torch.stack(layer_thresholds(weights, weights @ projection)).to(features)
        # Fewer images than anchors: the missing anchors are infinitely far from every image.
        missing = (0, 0, 0, settings.anchors - len(anchors))
        self.anchors = F.pad(anchors, missing, value=torch.inf)
        self.projection = F.pad(projection, missing).to(features)
        self.bandwidth = bandwidth

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the eigenvectors at features [B, F], and with two layers what decides the second bits.

        Returns:
            Values [B, bits]; with two layers, the second half has the distances of the eigenvectors in the
            first half to their thresholds.
        """
        weights = anchor_weights(features, self.anchors, self.hyperparameters.nearest, self.bandwidth)
        values = weights @ self.projection
        if self.hyperparameters.layers == 1:
            return values
        positive, negative = self.thresholds
        return torch.cat([values, torch.where(values > 0, values - positive, negative - values)], dim=1)
