"""SKLSH: Locality-Sensitive Binary Codes from Shift-Invariant Kernels, Raginsky and Lazebnik, NIPS 2009.

Shapes: N images of F features.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from hashbench.backbones import Backbone
from hashbench.method.linear import LinearMethod

SAMPLE = 1000  # images whose mean distance determines the bandwidth


class SKLSH(LinearMethod):
    """SKLSH: each bit is the sign of a random Fourier feature plus a random threshold.

    The expected Hamming distance of two images is a function of the Gaussian kernel between their features.
    """

    phase: Tensor
    threshold: Tensor

    class Hyperparameters(LinearMethod.Hyperparameters):
        """Hyperparameters; the paper has no settings for features of a network."""

        bandwidth: float = Field(
            default=0.7,
            gt=0,
            description="Standard deviation of the Gaussian kernel, as a multiple of the mean distance.",
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.register_buffer("phase", torch.zeros(bits))
        self.register_buffer("threshold", torch.zeros(bits))

    def fit(self, features: Tensor) -> None:
        """Draw the frequencies for the mean distance of the features [N, F], the phases and thresholds."""
        sample = features[torch.randperm(len(features))[:SAMPLE]]
        width = self.hyperparameters.bandwidth * torch.pdist(sample).mean()
        self.mean = features.mean(0)  # the kernel is shift-invariant; smaller values round less
        self.projection = torch.randn(self.projection.shape).to(features) / width
        self.phase = 2 * math.pi * torch.rand(self.bits).to(features)
        self.threshold = 2 * torch.rand(self.bits).to(features) - 1

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the Fourier features plus thresholds [B, bits] of features [B, F]."""
        return torch.cos(super().encode_features(features) + self.phase) + self.threshold
