"""PCA-RR: the baseline with a random rotation in Iterative Quantization, Gong and Lazebnik, CVPR 2011.

Shapes: N images of F features.
"""

from __future__ import annotations

from torch import Tensor

from hashbench.method.linear import PrincipalMethod, principal_components, random_rotation


class PCARR(PrincipalMethod):
    """PCA-RR: each bit is the sign of a randomly rotated principal component."""

    def fit(self, features: Tensor) -> None:
        """Compute the principal components of the features [N, F], and draw the rotation."""
        mean, components = principal_components(features.double(), self.bits)
        rotation = random_rotation(self.bits).to(components)
        self.mean, self.projection = mean.to(features), (components @ rotation).to(features)
