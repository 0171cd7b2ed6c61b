"""SpH: Spherical Hashing, Heo, Lee, He, Chang and Yoon, CVPR 2012.

Shapes: N images of F features, K hyperspheres.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from hashbench.backbones import Backbone
from hashbench.method.base import ShallowMethod


def balanced_spheres(
    features: Tensor, pivots: Tensor, iterations: int, mean_tolerance: float, std_tolerance: float
) -> tuple[Tensor, Tensor]:
    """Move hyperspheres until each holds half of the images, and each pair shares a quarter of them.

    Pairs of hyperspheres that share too many images repel each other, and pairs that share too few attract
    each other, until the numbers of shared images are within the tolerances or the iterations are used up.

    Args:
        features: Features [N, F], float64.
        pivots: Initial centres [K, F], float64.
        iterations: Maximum number of iterations.
        mean_tolerance: Tolerated mean deviation of the shared images from a quarter, as a fraction of it.
        std_tolerance: Tolerated standard deviation of the shared images, as a fraction of a quarter.

    Returns:
        The pivots [K, F] and the radii [K].
    """
    quarter, pairs = len(features) / 4, torch.ones(len(pivots), len(pivots)).triu(1).bool()
    for _ in range(iterations):
        inside = (_half_radii(distances := torch.cdist(features, pivots)) >= distances).to(features)
        excess = (inside.T @ inside / quarter - 1).fill_diagonal_(0)
        deviations = excess[pairs.to(excess.device)]
        if deviations.abs().mean() <= mean_tolerance and deviations.std(correction=0) <= std_tolerance:
            break
        # Half of the excess, along the line between the pivots, averaged over all other pivots.
        pivots = pivots + (excess.sum(1, keepdim=True) * pivots - excess @ pivots) / (2 * len(pivots))
    return pivots, _half_radii(torch.cdist(features, pivots))


def _half_radii(distances: Tensor) -> Tensor:
    """Return the radii [K] that hold half of the images, rounded down, from distances [N, K]."""
    half = max(1, len(distances) // 2)
    # The middle between two images, so that rounding does not move the last one out.
    return distances.sort(dim=0).values[half - 1 : half + 1].mean(0)


class SPH(ShallowMethod):
    """SpH: each bit tells whether the features are inside a hypersphere."""

    pivots: Tensor
    radii: Tensor

    class Hyperparameters(ShallowMethod.Hyperparameters):
        """Hyperparameters with the defaults of the paper."""

        iterations: int = Field(default=100, ge=0, description="Maximum number of iterations.")
        mean_tolerance: float = Field(
            default=0.1, ge=0, description="Tolerated mean deviation of shared images from a quarter."
        )
        std_tolerance: float = Field(
            default=0.15, ge=0, description="Tolerated standard deviation of shared images."
        )

    hyperparameters: Hyperparameters

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: Hyperparameters) -> None:
        super().__init__(backbone, bits, hyperparameters)
        self.register_buffer("pivots", torch.zeros(bits, backbone.feature_dim))
        self.register_buffer("radii", torch.zeros(bits))

    def fit(self, features: Tensor) -> None:
        """Compute the hyperspheres of the features [N, F], starting from the means of five random images."""
        settings = self.hyperparameters
        values = features.double()
        starts = torch.stack([values[torch.randperm(len(values))[:5]].mean(0) for _ in range(self.bits)])
        pivots, radii = balanced_spheres(
            values, starts, settings.iterations, settings.mean_tolerance, settings.std_tolerance
        )
        self.pivots, self.radii = pivots.to(features), radii.to(features)

    def encode_features(self, features: Tensor) -> Tensor:
        """Return the radii minus the distances of features [B, F] to the pivots, [B, bits]."""
        # Computing distances by a matrix product would round.
        return self.radii - torch.cdist(features, self.pivots, compute_mode="donot_use_mm_for_euclid_dist")
