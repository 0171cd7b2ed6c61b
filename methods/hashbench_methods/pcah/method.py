"""PCAH: the PCA baseline in Semi-Supervised Hashing, Wang, Kumar and Chang, CVPR 2010.

Shapes: N images of F features.
"""

from __future__ import annotations

from torch import Tensor

from hashbench.method.linear import PrincipalMethod, principal_components


class PCAH(PrincipalMethod):
    """PCAH: each bit is the sign of a principal component."""

    def fit(self, features: Tensor) -> None:
        """Compute the principal components of the features [N, F]."""
        self.mean, self.projection = principal_components(features, self.bits)
