"""The training images, as the trainer and `HashMethod.prepare` use them."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from hashbench.encoding.features import FeatureExtractor
from hashbench.images.image_sets import Images


class TrainingImages:
    """The training images; implements `hashbench.method.base.TrainingSet`."""

    def __init__(self, images: Images, extractor: FeatureExtractor, device: str) -> None:
        """Compute nothing yet."""
        self._images, self._extractor, self._device = images, extractor, device

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    @cached_property
    def shared_features(self) -> Tensor:
        """Features as of `features`, which nobody must change."""
        return self._extractor(self._images, "features").to(self._device)

    def features(self) -> Tensor:
        """Return a copy of the features [N, F]; see `TrainingSet.features`."""
        return self.shared_features.clone()

    @property
    def seconds(self) -> float | None:
        """Time that computing the features took, now or for an earlier run; None if nobody asked for them."""
        return round(self._extractor.seconds, 2) if "shared_features" in vars(self) else None
