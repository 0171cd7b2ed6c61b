"""BiHalf: Deep Unsupervised Image Hashing by Maximizing Bit Entropy, Li and van Gemert, AAAI 2021.

Written from the paper and the behaviour of the released code,
https://github.com/liyunqianggyn/Deep-Unsupervised-Image-Hashing at commit 1cd671a, which has no licence. The
README in this folder lists the differences between the paper, the released code and this file.

Shapes: B images.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod
from hashbench.method.losses import similarity_preserving_loss


def bi_half(hash: Tensor, gamma: float = 6.0) -> Tensor:
    """Return codes in which each bit is +1 for half of the batch and −1 for the other half (maximum entropy).

    In each column, the larger half of the values becomes +1. If the number of rows is odd, the negative half
    has one more. This solves an optimal transport problem from the values to the two code values. It is only
    meaningful for a batch, in training; encoding takes the sign.

    In the backward pass, the gradient is passed through unchanged, and the gradient of `gamma` / 2 times the
    mean squared distance between values and codes is added.

    Args:
        hash: Values [B, bits] before the layer.
        gamma: Weight of the term that pulls values towards their codes.

    Returns:
        Codes ±1 [B, bits].
    """
    codes: Tensor = _BiHalf.apply(hash, gamma)
    return codes


class _BiHalf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, gamma: float) -> Tensor:
        order = torch.sort(values, dim=0, descending=True, stable=True).indices
        larger = order[: len(values) // 2]
        codes = torch.full_like(values, -1).scatter(0, larger, 1.0)
        ctx.save_for_backward(values, codes)
        ctx.gamma = gamma
        return codes

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        values, codes = ctx.saved_tensors
        return gradient + ctx.gamma * (values - codes) / codes.numel(), None


class BiHalf(FeatureMethod):
    """BiHalf: a linear head, followed by the bi-half layer in training."""

    views: ClassVar[int] = 1

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        gamma: float = Field(
            default=6.0, ge=0, description="Weight of the term that pulls values towards their codes."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.fc = nn.Linear(backbone.feature_dim, bits)

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the loss for the features [B, F] of a batch."""
        (batch,) = features
        codes = bi_half(self.fc(batch), self.hyperparameters.gamma)
        return {"loss": similarity_preserving_loss(codes, batch)}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the values [B, bits]; the bi-half layer is not applied."""
        values: Tensor = self.fc(features)
        return values
