"""CroVCA: Image Hashing via Cross-View Code Alignment in the Age of Foundation Models, Moummad et al., 2025.

Written from the behaviour of the released code, https://github.com/ilyassmoummad/cross-view-code-alignment at
commit d025fc9, which states no licence. The README in this folder lists the differences between the paper,
the released code and this file.

Shapes: B images.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod


def alignment_loss(logits1: Tensor, logits2: Tensor) -> Tensor:
    """Return the binary cross-entropy between the logits of each view and the bits of the other.

    Args:
        logits1: Logits [B, bits] of the bits of the first view.
        logits2: Logits [B, bits] of the bits of the second view.

    Returns:
        A scalar, the mean over bits, images and both directions. The bits have no gradient.
    """
    logits, others = torch.cat([logits1, logits2]), torch.cat([logits2, logits1])
    return F.binary_cross_entropy_with_logits(logits, (others > 0).to(logits))


def coding_rate(logits: Tensor, distortion: float = 0.05) -> Tensor:
    """Return the number of nats with which normalized rows are described up to a distortion, rescaled.

    It is half the log-determinant of I + bits / (B · distortion) · ZᵀZ, times (bits + B) / (bits · B). It is
    largest if the directions of the rows fill the space.

    Args:
        logits: Rows [B, bits]; Z are the normalized ones.
        distortion: Squared distance up to which a row is described.

    Returns:
        A scalar.
    """
    count, bits = logits.shape
    rows = F.normalize(logits, dim=1)
    covariance = torch.eye(bits, device=rows.device) + bits / (count * distortion) * rows.T @ rows
    rate: Tensor = torch.linalg.cholesky(covariance).diagonal().log().sum() * (bits + count) / (bits * count)
    return rate


class CroVCA(FeatureMethod):
    """CroVCA: a small network whose bits agree across views and fill the space of codes."""

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        rate_weight: float = Field(default=0.1, ge=0, description="Weight of the coding rate.")
        distortion: float = Field(default=0.05, gt=0, description="Distortion of the coding rate.")

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        size = backbone.feature_dim
        self.head = nn.Sequential(
            nn.Linear(size, size), nn.ReLU(), nn.Linear(size, bits), nn.BatchNorm1d(bits)
        )
        for layer in self.head:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of two views: `loss`, `alignment`, `rate`."""
        logits1, logits2 = (
            self.head(view) for view in features
        )  # each with the batch statistics of its view
        alignment = alignment_loss(logits1, logits2)
        distortion = self.hyperparameters.distortion
        rate = (coding_rate(logits1, distortion) + coding_rate(logits2, distortion)) / 2
        loss = alignment - self.hyperparameters.rate_weight * rate
        return {"loss": loss, "alignment": alignment, "rate": rate}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the logits of the bits [B, bits]."""
        logits: Tensor = self.head(features)
        return logits
