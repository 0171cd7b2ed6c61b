"""SH: Spectral Hashing, Weiss, Torralba and Fergus, NIPS 2008, section 3.

Shapes: N images of F features, C principal components.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel
from torch import Tensor

from hashbench.backbones import Backbone
from hashbench.method.linear import LinearMethod, principal_components


def smoothest_waves(ranges: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the smoothest eigenfunctions of the Laplacian on a box, which are waves along one of its sides.

    Along a side of length r, wave k = 1, 2, … has the angular frequency k · π / r. Waves of lower frequency
    are smoother. (The released code also limits the number of waves per side in proportion to its length; the
    waves that this excludes come after all waves of the longest side.)

    Args:
        ranges: Lengths [C] of the sides, not all 0.
        count: Number of waves.

    Returns:
        The side of each wave, int64 [count], and its angular frequency [count], in increasing order. Among
        equal frequencies, the first side comes first.
    """
    waves = torch.arange(1, count + 1, device=ranges.device)
    frequencies = math.pi * waves / ranges[:, None]  # [C, count], infinite for sides of length 0
    order = torch.argsort(frequencies.flatten(), stable=True)[:count]
    return order // count, frequencies.flatten()[order]


class SH(LinearMethod):
    """SH: each bit is the sign of a wave along a principal component, for features uniform in a box."""

    lowest: Tensor
    frequency: Tensor

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.register_buffer("lowest", torch.zeros(bits))
        self.register_buffer("frequency", torch.zeros(bits))

    def fit(self, features: Tensor) -> None:
        """Compute the bounding box of the features [N, F] and its smoothest waves."""
        most = min(self.bits, len(features) - 1, features.shape[1])
        self.mean, components = principal_components(features, most)
        values = (features - self.mean) @ components
        lowest, highest = values.min(0).values, values.max(0).values
        side, self.frequency = smoothest_waves(highest - lowest, self.bits)
        self.projection, self.lowest = components[:, side], lowest[side]

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the values [B, bits] of the waves at features [B, F]."""
        position = super().encode_features(features) - self.lowest
        return torch.cos(self.frequency * position)
