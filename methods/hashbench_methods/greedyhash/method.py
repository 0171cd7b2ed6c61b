"""GreedyHash without labels: Greedy Hash for Accurate Hash Coding in CNN, Su et al., NeurIPS 2018.

Written from the behaviour of the released code, https://github.com/ssppp/GreedyHash at commit e5089b2, which
has no licence. The README in this folder lists the differences between the released code and this file.

Shapes: B images.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod, TrainingSet, straight_through_sign
from hashbench.method.losses import similarity_preserving_loss


def quantization_penalty(hash: Tensor, power: float = 3.0) -> Tensor:
    """Return the mean distance of the magnitudes of values to 1, raised to a power.

    Args:
        hash: Values [B, bits] before the sign.
        power: Exponent of the distances.

    Returns:
        A scalar, averaged over images and bits.
    """
    return (hash.abs() - 1).abs().pow(power).mean()


class GreedyHash(FeatureMethod):
    """GreedyHash without labels: a linear head and a sign that is the identity in the backward pass."""

    views: ClassVar[int] = 1

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        penalty_weight: float = Field(
            default=0.1, ge=0, description="Weight of the penalty on values far from ±1."
        )
        power: float = Field(
            default=3.0, ge=1, description="Exponent of the distances in the penalty on values far from ±1."
        )
        center: bool = Field(
            default=False, description="Subtract the mean of the training features from all features."
        )

    hyperparameters: Hyperparameters
    mean: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.fc = nn.Linear(backbone.feature_dim, bits)
        self.register_buffer("mean", torch.zeros(backbone.feature_dim))

    def prepare(self, training: TrainingSet) -> None:
        """Compute the mean of the training features if they are to be centered."""
        if self.hyperparameters.center:
            self.mean.copy_(training.features().mean(0))

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of a batch: `loss`, `similarity`, `penalty`."""
        (batch,) = (view - self.mean for view in features)
        values = self.fc(batch)
        similarity = similarity_preserving_loss(straight_through_sign(values), batch)
        penalty = quantization_penalty(values, self.hyperparameters.power)
        loss = similarity + self.hyperparameters.penalty_weight * penalty
        return {"loss": loss, "similarity": similarity, "penalty": penalty}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the values [B, bits] before the sign."""
        values: Tensor = self.fc(features - self.mean)
        return values
