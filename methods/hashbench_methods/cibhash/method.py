"""CIBHash: Unsupervised Hashing with Contrastive Information Bottleneck, Qiu et al., IJCAI 2021.

Follows the released code, https://github.com/zexuanqiu/CIBHash at commit 4c896ee (MIT), `model/CIBHash.py`.
The README in this folder lists the differences between the paper, the released code and this file.

Shapes: B images.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hashbench.backbones import Backbone
from hashbench.method.base import FeatureMethod, straight_through_sign
from hashbench.method.losses import nt_xent

EPSILON = 1e-8  # added inside the logarithms, as in the released code


def symmetric_bernoulli_kl(prob1: Tensor, prob2: Tensor) -> Tensor:
    """Return the divergence of the bits of two views, the mean of KL(p1, stop(p2)) and KL(p2, stop(p1)).

    Args:
        prob1: Probabilities [B, bits] that the bits of the first view are 1.
        prob2: Probabilities [B, bits] that the bits of the second view are 1.

    Returns:
        A scalar, summed over bits and averaged over images. No gradient flows to the second argument of
        either divergence.
    """
    return (_bernoulli_kl(prob1, prob2.detach()) + _bernoulli_kl(prob2, prob1.detach())) / 2


def _bernoulli_kl(prob: Tensor, other: Tensor) -> Tensor:
    ones = prob * ((prob + EPSILON).log() - (other + EPSILON).log())
    zeros = (1 - prob) * ((1 - prob + EPSILON).log() - (1 - other + EPSILON).log())
    return (ones + zeros).sum(1).mean()


class CIBHash(FeatureMethod):
    """CIBHash: contrastive learning of codes, regularized by an information bottleneck."""

    class Hyperparameters(FeatureMethod.Hyperparameters):
        """Hyperparameters with the defaults of the released code."""

        temperature: float = Field(
            default=0.3, gt=0, description="Temperature of the softmax over code similarities."
        )
        kl_weight: float = Field(default=0.001, ge=0, description="Weight of the divergence between views.")

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.head = nn.Sequential(nn.Linear(backbone.feature_dim, 1024), nn.ReLU(), nn.Linear(1024, bits))

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """Return the losses for the features [B, F] of two views: `loss`, `contrastive`, `kl`."""
        prob1, prob2 = (torch.sigmoid(self.head(view)) for view in features)
        codes = straight_through_sign(prob1 - 0.5), straight_through_sign(prob2 - 0.5)
        contrastive = nt_xent(*codes, self.hyperparameters.temperature)
        kl = symmetric_bernoulli_kl(prob1, prob2)
        loss = contrastive + self.hyperparameters.kl_weight * kl
        return {"loss": loss, "contrastive": contrastive, "kl": kl}

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the probability of each bit minus 0.5, [B, bits]."""
        return torch.sigmoid(self.head(features)) - 0.5
