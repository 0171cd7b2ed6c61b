"""SDC: Unsupervised Hashing with Similarity Distribution Calibration, Ng et al., BMVC 2023.

Written from the behaviour of the released code, https://github.com/kamwoh/sdc at commit 9981beb, which has no
licence. The README in this folder lists the differences between the released code and this file.

Shapes: B images or rows, P pairs of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from scipy.special import betaincinv
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod, signs
from hashbench.method.losses import nt_xent, paired_cosine

TEMPERATURE = 0.3  # of the contrastive loss, as in the released code


def calibration_targets(pairs: int, a: float = 5.0, b: float = 5.0, clamp: bool = False) -> Tensor:
    """Return the quantiles of a Beta distribution on (-1, 1) at the midpoints of equal intervals.

    Args:
        pairs: P, the number of pairs.
        a: First parameter of the distribution.
        b: Second parameter of the distribution.
        clamp: Replace negative targets by 0, so that codes of different images may be orthogonal, but not
            opposite.

    Returns:
        Similarities in ascending order, float32 [P] on the CPU.
    """
    midpoints = (torch.arange(pairs, dtype=torch.float64) + 0.5) / pairs
    # It computes what scipy.stats.beta.ppf does, in a tenth of the time.
    targets = 2 * torch.from_numpy(betaincinv(a, b, midpoints.numpy())).float() - 1
    return targets.clamp(min=0) if clamp else targets


def calibration_loss(
    hash: Tensor, features: Tensor, a: float = 5.0, b: float = 5.0, clamp: bool = False
) -> Tensor:
    """Return the mean distance between the similarities of pairs of codes and their targets.

    The pair of the r-th smallest feature similarity gets the r-th smallest target. Each row of the first half
    is paired with a row of the second half; if the number of rows is odd, the last row is left out.

    Args:
        hash: Values [B, bits] of the head.
        features: Features [B, F]; they get no gradient.
        a: First parameter of the Beta distribution of the targets.
        b: Second parameter of the Beta distribution of the targets.
        clamp: Replace negative targets by 0.

    Returns:
        A scalar.
    """
    order = paired_cosine(features.detach()).argsort(stable=True)
    similarity = paired_cosine(hash)[order]
    targets = calibration_targets(len(similarity), a, b, clamp)
    return F.l1_loss(similarity, targets.to(similarity))


def cosine_quantization_loss(hash: Tensor) -> Tensor:
    """Return the mean of 1 − cosine similarity between values [B, bits] and their signs."""
    return 1 - F.cosine_similarity(hash, signs(hash)).mean()


class SDC(FeatureMethod):
    """SDC: a head with batch normalization, trained on calibrated similarities of pairs."""

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        beta: tuple[float, float] = Field(
            default=(5.0, 5.0), description="Parameters of the Beta distribution of the similarities."
        )
        clamp: bool = Field(
            default=False, description="Replace negative target similarities by 0; for use with SimCLR."
        )
        quantization_weight: float = Field(
            default=1.0, ge=0, description="Weight of the distance between values and signs."
        )
        contrastive_weight: float = Field(
            default=0.0, ge=0, description="Weight of the contrastive loss of SimCLR between two views."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        if not hyperparameters.contrastive_weight:
            self.views = 1  # type: ignore[misc]  # the second view is used only by the contrastive loss
        width = backbone.feature_dim
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, bits), nn.BatchNorm1d(bits)
        )

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of one view or two.

        They are `loss`, `calibration`, `quantization`, and `contrastive` if it has a weight.
        """
        settings = self.hyperparameters
        values = self.head(torch.cat(features)).chunk(len(features))
        paired = _by_pairs(values)
        calibration = calibration_loss(paired, _by_pairs(features), *settings.beta, settings.clamp)
        quantization = cosine_quantization_loss(paired)
        loss = calibration + settings.quantization_weight * quantization
        losses = {"calibration": calibration, "quantization": quantization}
        if len(values) == 2:
            losses["contrastive"] = nt_xent(values[0], values[1], TEMPERATURE)
            loss = loss + settings.contrastive_weight * losses["contrastive"]
        return {"loss": loss, **losses}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the values [B, bits] of the head, with its stored statistics."""
        values: Tensor = self.head(features)
        return values


def _by_pairs(views: Sequence[Tensor]) -> Tensor:
    """Concatenate views [B, D] so that the pairs of both halves of the result never join two views."""
    half = len(views[0]) // 2
    return torch.cat([view[:half] for view in views] + [view[half : 2 * half] for view in views])
