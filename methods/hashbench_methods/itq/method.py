"""ITQ: Iterative Quantization, a Procrustean Approach to Learning Binary Codes, Gong and Lazebnik, CVPR 2011.

Shapes: N images of F features.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from hashbench.method.base import signs
from hashbench.method.linear import PrincipalMethod, principal_components, random_rotation


def iterative_quantization(values: Tensor, iterations: int) -> Tensor:
    """Find the rotation that minimizes the distance of values to their signs (section 3.2 of the paper).

    Two steps alternate, neither of which increases the squared distance between rotated values and signs:
    update the signs for a fixed rotation, and the rotation for fixed signs (orthogonal Procrustes problem).

    Args:
        values: Principal components [N, bits], float64.
        iterations: Number of iterations.

    Returns:
        An orthogonal matrix [bits, bits].
    """
    rotation = random_rotation(values.shape[1]).to(values)
    for _ in range(iterations):
        rotated = values @ rotation
        codes = signs(rotated)
        left, _, right = torch.linalg.svd(codes.T @ values)
        rotation = right.T @ left.T
    return rotation


class ITQ(PrincipalMethod):
    """ITQ: signs of rotated principal components."""

    class Hyperparameters(PrincipalMethod.Hyperparameters):
        """Hyperparameters with the defaults of the paper."""

        iterations: int = Field(default=50, ge=0, description="Iterations to find the rotation.")

    hyperparameters: Hyperparameters

    def fit(self, features: Tensor) -> None:
        """Compute the principal components and the rotation of the features [N, F]."""
        mean, components = principal_components(features.double(), self.bits)
        values = (features.double() - mean) @ components
        rotation = iterative_quantization(values, self.hyperparameters.iterations)
        self.mean, self.projection = mean.to(features), (components @ rotation).to(features)
