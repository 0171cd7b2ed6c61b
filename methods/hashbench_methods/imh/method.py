"""IMH: Inductive Hashing on Manifolds, Shen, Shen, Shi, van den Hengel and Tang, CVPR 2013.

Follows https://github.com/CISiPLab/cisip-FIRe at commit e8826c4 (BSD-3-Clause), a later implementation. The
README in this folder lists the differences.

Shapes: N images of F features, P base points, D dimensions of the embedding.
"""

from __future__ import annotations

import torch
from pydantic import Field
from sklearn.manifold import TSNE
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from hashbench.backbones import Backbone
from hashbench.method.anchors import anchor_weights, kmeans
from hashbench.method.base import ShallowMethod


def inductive_embedding(
    features: Tensor,
    base_points: Tensor,
    base_embedding: Tensor,
    neighbours: int = 5,
    bandwidth: float | Tensor = 512.0,
) -> Tensor:
    """Embed images as the weighted mean of the embeddings of their nearest base points.

    The weight of a base point at distance d is proportional to exp(−d² / `bandwidth`).

    Args:
        features: Features [N, F].
        base_points: Base points [P, F].
        base_embedding: Embedding [P, D] of the base points.
        neighbours: Number of nearest base points.
        bandwidth: Divisor of the squared distances.

    Returns:
        The embedding [N, D].
    """
    return anchor_weights(features, base_points, neighbours, bandwidth) @ base_embedding


class IMH(ShallowMethod):
    """IMH: signs of a t-SNE embedding of base points, extended to all images."""

    base_points: Tensor
    base_embedding: Tensor

    class Hyperparameters(ShallowMethod.Hyperparameters):
        """Hyperparameters with the defaults of FIRe."""

        base_points: int = Field(
            default=400, ge=2, description="Number of base points, the centres of k-means."
        )
        neighbours: int = Field(default=5, ge=1, description="Number of nearest base points with a weight.")
        bandwidth: float = Field(default=512.0, gt=0, description="Divisor of the squared distances.")
        perplexity: float = Field(default=30.0, gt=0, description="Perplexity of t-SNE.")
        early_exaggeration: float = Field(default=12.0, ge=1, description="Early exaggeration of t-SNE.")

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        count = hyperparameters.base_points
        self.register_buffer("base_points", torch.zeros(count, backbone.feature_dim))
        self.register_buffer("base_embedding", torch.zeros(count, bits))

    def fit(self, features: Tensor) -> None:
        """Compute base points of the features [N, F] by k-means, and their embedding by exact t-SNE."""
        settings = self.hyperparameters
        points = kmeans(features, settings.base_points, iterations=200)
        tsne = TSNE(
            self.bits,
            perplexity=min(settings.perplexity, (len(points) - 1) / 3),
            early_exaggeration=settings.early_exaggeration,
            init="pca" if self.bits <= min(points.shape) else "random",
            method="exact",
            random_state=int(torch.randint(2**31, ())),
        )
        embedding = torch.from_numpy(tsne.fit_transform(points.cpu().numpy())).to(features)
        # Fewer images than base points: the missing ones are infinitely far from every image.
        missing = (0, 0, 0, settings.base_points - len(points))
        self.base_points = F.pad(points, missing, value=torch.inf)
        self.base_embedding = F.pad(embedding, missing)

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the embedding [B, bits] of features [B, F]."""
        settings = self.hyperparameters
        return inductive_embedding(
            features, self.base_points, self.base_embedding, settings.neighbours, settings.bandwidth
        )
