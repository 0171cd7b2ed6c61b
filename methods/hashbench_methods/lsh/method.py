"""LSH: Similarity Estimation Techniques from Rounding Algorithms, Charikar, STOC 2002, section 3.

Shapes: N images of F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hashbench.method.linear import LinearMethod


class LSH(LinearMethod):
    """A bit is the side of a random hyperplane; the expected share of differing bits is the angle over π."""

    def fit(self, features: Tensor) -> None:
        """Draw the hyperplanes; of the features [N, F] only the mean counts, through which they go."""
        self.mean = features.mean(0)
        self.projection = torch.randn(self.projection.shape).to(features)
