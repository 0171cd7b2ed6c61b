"""BiHalf: Deep Unsupervised Image Hashing by Maximizing Bit Entropy, Li and van Gemert, AAAI 2021.

Written from the paper and the behaviour of the released code,
https://github.com/liyunqianggyn/Deep-Unsupervised-Image-Hashing at commit 1cd671a, which has no licence. This
folder's README lists where paper, code and this file differ.

Shapes: B images.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod


def bi_half(hash: Tensor, gamma: float = 6.0) -> Tensor:
    """Codes in which every bit is +1 for one half of the batch and −1 for the other: maximal entropy.

    In each column the larger half becomes +1; of an odd number of rows the negative half has one more. It is
    the solution of an optimal transport from the values to the two code values, so it only makes sense on a
    batch, in training: a single image has no half. Encoding takes the sign.

    Backward, the gradient passes through and is joined by that of `gamma` / 2 times the mean squared distance
    between values and codes.

    Args:
        hash: Values [B, bits] before the layer.
        gamma: Weight of the pull of values to their codes.

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


def similarity_preserving_loss(codes: Tensor, features: Tensor) -> Tensor:
    """Mean squared difference between the cosine similarities of codes and those of features.

    The pairs are the rows of the first half of the batch with those of the second. Of an odd number of rows
    the last is left out (where the released code fails).

    Args:
        codes: Codes [B, bits].
        features: Features [B, F].

    Returns:
        A scalar.
    """
    half = len(codes) // 2
    first, second = slice(half), slice(half, 2 * half)
    of_codes = F.cosine_similarity(codes[first], codes[second])
    of_features = F.cosine_similarity(features[first], features[second])
    return F.mse_loss(of_codes, of_features)


class BiHalf(FeatureMethod):
    """A linear head under the bi-half layer."""

    views: ClassVar[int] = 1

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Defaults are those of the released code."""

        gamma: float = Field(default=6.0, ge=0, description="Weight of the pull of values to their codes.")

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.fc = nn.Linear(backbone.feature_dim, bits)

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """The loss of the features [B, F] of a batch."""
        (batch,) = features
        codes = bi_half(self.fc(batch), self.hyperparameters.gamma)
        return {"loss": similarity_preserving_loss(codes, batch)}

    def encode_features(self, features: Tensor) -> Tensor:
        """Values [B, bits]; the bi-half layer takes no part."""
        values: Tensor = self.fc(features)
        return values
