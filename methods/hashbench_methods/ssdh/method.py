"""SSDH: Semantic Structure-based Unsupervised Deep Hashing, Yang et al., IJCAI 2018.

Written from the behaviour of the released code, https://github.com/yangerkun/IJCAI2018_SSDH at 49d1938, which
has no licence. The README in this folder lists the differences between the released code and this file.

Shapes: B images of the batch, N training images.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod, TrainingSet
from hashbench.method.similarity import (
    CosineDistances,
    HalfGaussians,
    cosine_distances,
    fit_half_gaussians,
    semantic_loss,
)

FIRST_EDGE = -1e-8  # of the histogram, as in the released code: a distance of 0 is in the first bin


def distance_thresholds(distances: Tensor, alpha: float = 2.0, beta: float = 2.0) -> tuple[Tensor, Tensor]:
    """Fit the thresholds below which images are similar and above which they are dissimilar.

    Args:
        distances: Cosine distances of pairs of images, a vector.
        alpha: Standard deviations from the mode down to the left threshold.
        beta: Standard deviations from the mode up to the right threshold.

    Returns:
        The left and the right threshold, scalars.
    """
    left, right = _thresholds(fit_half_gaussians([distances], FIRST_EDGE), alpha, beta)
    return distances.new_tensor(left), distances.new_tensor(right)


def _thresholds(fit: HalfGaussians, alpha: float, beta: float) -> tuple[float, float]:
    return fit.mode - alpha * fit.std_left, fit.mode + beta * fit.std_right


def similarity_targets(distances: Tensor, left: Tensor | float, right: Tensor | float) -> Tensor:
    """Return 1 for distances below the left threshold, −1 above the right one, and 0 between them.

    If the thresholds cross, it is 0 between them, too. The target of a distance of 0, such as that of an
    image to itself, is 1 whatever the thresholds.
    """
    targets = (distances < left).to(distances.dtype) - (distances > right).to(distances.dtype)
    return targets.masked_fill(distances == 0, 1)


def similarity_loss(hash: Tensor, targets: Tensor) -> Tensor:
    """Return the squared difference between similarities of codes and targets; targets of 0 are ignored.

    Args:
        hash: Relaxed codes [B, bits] in −1..1.
        targets: Targets −1, 0 or 1 [B, B].

    Returns:
        A scalar, the mean over all B² pairs, in which ignored pairs count as 0.
    """
    return semantic_loss(hash, targets, targets.abs())


class SSDH(FeatureMethod):
    """SSDH: a linear head with tanh, trained on the pairs of clearly similar and dissimilar images."""

    views: ClassVar[int] = 1
    uses_indices: ClassVar[bool] = True

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        alpha: float = Field(
            default=2.0, description="Standard deviations from the mode down to the left threshold."
        )
        beta: float = Field(
            default=2.0, description="Standard deviations from the mode up to the right threshold."
        )
        diagonal: bool = Field(
            default=True,
            description="Fit to the whole matrix of distances, with the zeros of its diagonal, as the "
            "released code does; false: fit to the distances of pairs.",
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.fc = nn.Linear(backbone.feature_dim, bits)
        nn.init.trunc_normal_(self.fc.weight, std=0.001, a=-0.002, b=0.002)
        nn.init.zeros_(self.fc.bias)

    def prepare(self, training: TrainingSet) -> None:
        """Keep the features of the training images, and fit the thresholds to their distances."""
        settings = self.hyperparameters
        self.units = F.normalize(training.features())  # [N, F]
        fit = fit_half_gaussians(CosineDistances(self.units, square=settings.diagonal), FIRST_EDGE)
        self.left, self.right = _thresholds(fit, settings.alpha, settings.beta)

    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Return the loss for the features [B, F] of a batch with the rows `indices` [B]."""
        distances = cosine_distances(self.units[indices])
        targets = similarity_targets(distances, self.left, self.right)
        return {"loss": similarity_loss(self.encode_features(features[0]), targets)}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return relaxed codes [B, bits] in −1..1."""
        return torch.tanh(self.fc(features))
