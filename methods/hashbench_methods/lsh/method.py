"""LSH: Similarity Estimation Techniques from Rounding Algorithms, Charikar, STOC 2002, section 3.

Shapes: N images of F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hashbench.method.linear import LinearMethod


class LSH(LinearMethod):
    """LSH: each bit is the side of a random hyperplane.

    The expected fraction of differing bits is the angle between two feature vectors divided by π.
    """

    def fit(self, features: Tensor) -> None:
        """Draw random hyperplanes through the mean of the features [N, F]."""
        self.mean = features.mean(0)
        self.projection = torch.randn(self.projection.shape).to(features)
