"""Training images of which only the features matter."""

from torch import Tensor


class GivenFeatures:
    """Training images with the given features."""

    def __init__(self, features: Tensor) -> None:
        self.values = features

    def __len__(self) -> int:
        return len(self.values)

    def features(self) -> Tensor:
        """Return a copy of the features."""
        return self.values.clone()
