"""CIMON: Towards High-quality Hash Codes, Luo et al., IJCAI 2021.

Written from the behaviour of the released code, https://github.com/luoxiao12/CIMON at commit 4107234, which
has no licence. The README in this folder lists the differences between the released code and this file.

Shapes: B images of the batch, N training images.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from sklearn.cluster import SpectralClustering
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hashbench.backbones import Backbone
from hashbench.errors import UsageError
from hashbench.method.base import FeatureMethod, TrainingSet
from hashbench.method.losses import nt_xent
from hashbench.method.similarity import (
    CosineDistances,
    HalfGaussians,
    check_pairs_fit,
    cosine_distances,
    fit_half_gaussians,
    semantic_loss,
)


def pseudo_similarity(
    features: Tensor, cluster_labels: Tensor, threshold: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Compute the similarities of all pairs of images, and weights that say how reliable they are.

    Args:
        features: Features [N, F].
        cluster_labels: Cluster of each image, int64 [N].
        threshold: Largest cosine distance of similar images.

    Returns:
        Similarities [N, N], 1 or −1, and weights [N, N] in 0..1; see `_pair_targets`.
    """
    units = F.normalize(features)
    return _pair_targets(cosine_distances(units), cluster_labels, threshold, _fit(units))


def _fit(units: Tensor) -> HalfGaussians:
    # As in the released code, the zeros of the diagonal widen the left half but are in no bin.
    return fit_half_gaussians(CosineDistances(units, square=True), first_edge=0)


def _pair_targets(
    distances: Tensor, cluster_labels: Tensor, threshold: float, fit: HalfGaussians
) -> tuple[Tensor, Tensor]:
    """Return the similarities of a square matrix of distances, and their weights.

    The weight grows with the part of the Gaussian between the distance and the threshold. It is 0 if the
    clusters contradict the similarity.
    """
    similar = distances <= threshold
    limit = distances.new_tensor(threshold, dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny  # no Gaussian reaches a threshold that is far from its mode
    # Subtracting the upper tails of the right half is exact also where both are close to 0.
    below, below_limit = (_tail(d - fit.mode, fit.std_left) for d in (distances.double(), limit))
    above, above_limit = (_tail(fit.mode - d, fit.std_right) for d in (distances.double(), limit))
    confidence = torch.where(
        similar,
        (below_limit - below) / below_limit.clamp(min=tiny),
        (above_limit - above) / above_limit.clamp(min=tiny),
    ).clamp(0, 1)
    agree = (cluster_labels[:, None] == cluster_labels) == similar
    return torch.where(similar, 1.0, -1.0).to(distances), torch.where(agree, confidence, 0).to(distances)


def _tail(deviation: Tensor, std: float) -> Tensor:
    """Return the probability that a Gaussian with mean 0 is below a deviation."""
    tail: Tensor = torch.special.ndtr(deviation / max(std, 1e-12))
    return tail


class CIMON(FeatureMethod):
    """CIMON: a linear head with tanh, trained on confident similarities and to agree between two views."""

    uses_indices: ClassVar[bool] = True

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        threshold: float = Field(
            default=0.1, ge=0, le=2, description="Largest cosine distance of similar images."
        )
        clusters: int = Field(
            default=70, ge=2, description="Number of clusters that must agree with the similarities."
        )
        contrastive_weight: float = Field(
            default=0.3, ge=0, description="Weight of the contrastive loss between the views."
        )
        temperature: float = Field(
            default=0.5, gt=0, description="Temperature of the softmax of the contrastive loss."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.fc = nn.Linear(backbone.feature_dim, bits)

    def prepare(self, training: TrainingSet) -> None:
        """Keep the features of the training images, and compute their clusters and distances."""
        clusters, images = self.hyperparameters.clusters, len(training)
        check_pairs_fit("cimon", images)  # before features are computed, which may take long
        if clusters >= images:
            raise UsageError(
                f"cimon: expected fewer clusters than the {images} training images, got {clusters}; lower "
                "--set clusters=…"
            )
        self.units = F.normalize(training.features())  # [N, F]
        # It draws from the global generator of NumPy, which is seeded.
        spectral = SpectralClustering(clusters, assign_labels="discretize")
        labels = spectral.fit_predict(self.units.cpu().numpy())
        self.clusters = torch.from_numpy(labels).to(self.units.device)  # [N]
        self.gaussians = _fit(self.units)

    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of two views of the images in the rows `indices` [B]."""
        settings = self.hyperparameters
        distances = cosine_distances(self.units[indices])
        targets = _pair_targets(distances, self.clusters[indices], settings.threshold, self.gaussians)
        view1, view2 = (self.encode_features(view) for view in features)
        # The released code has targets for each view, and compares the codes of each view with both.
        semantic = 2 * (semantic_loss(view1, *targets) + semantic_loss(view2, *targets))
        contrastive = nt_xent(view1, view2, settings.temperature)
        loss = semantic + settings.contrastive_weight * contrastive
        return {"loss": loss, "semantic": semantic, "contrastive": contrastive}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return relaxed codes [B, bits] in −1..1."""
        return torch.tanh(self.fc(features))
