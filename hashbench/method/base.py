"""What a method plugin implements: images in, one code per image out.

Three kinds, each narrower than the one before: a `HashMethod` is trained on images; a `FeatureMethod` is a
head on the backbone's pooled features; a `ShallowMethod` is fitted to these features, all at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hashbench.backbones import Backbone
from hashbench.codes import BinaryCodes, Codes
from hashbench.distributed import gather


class HashMethod(nn.Module, ABC):
    """Learns from images alone; then maps one image to one code, whatever else is in the batch.

    A subclass gives `training_losses` and `encode`; the harness does the rest. The training data has no
    labels, so none can reach a method.

    Attributes:
        views: Number of augmented views of each training image that `training_losses` takes.
    """

    class Hyperparameters(BaseModel):
        """The method's own settings, with the paper's values as defaults; a subclass adds the fields."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    views: ClassVar[int] = 2

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.bits = bits
        self.hyperparameters = hyperparameters

    @abstractmethod
    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        """The losses of one batch.

        If several processes train, each is given its part of the batch: what is compared across images, by a
        contrast or by statistics of the batch, goes through `hashbench.gather` first, which makes it whole.

        Args:
            *views: `self.views` tensors [B, 3, H, W]; row i of each is a view of the same image.

        Returns:
            Scalars: `"loss"`, which is minimized, and the named parts that the log should show.
        """

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Real values [B, bits] of images [B, 3, H, W]; their sign is the code.

        Each row depends on its own image only: an image has one code, alone or in any batch.
        """

    def codes(self, values: Tensor) -> Codes:
        """Codes from the values of `encode`: their sign, where 0 counts as +1."""
        return BinaryCodes.from_real(values, one_sign=True)  # as where the codes have collapsed

    def query_codes(self, values: Tensor) -> Codes | NDArray[np.float32]:
        """What the database's codes are compared with, from the values of `encode` for the queries.

        By default their codes. A method with product codes may keep the values as they are, [B, books · dim],
        for asymmetric distances.
        """
        return self.codes(values)

    def parameter_groups(self, lr: float, backbone_lr: float | None) -> Sequence[dict[str, Any]]:
        """Parameter groups for the optimizer: what trains, at which rate.

        Args:
            lr: Learning rate of everything outside the backbone.
            backbone_lr: Learning rate of the backbone; None means `lr`.
        """
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        inside = {id(p) for p in backbone}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in inside]
        groups = [
            {"params": backbone, "lr": lr if backbone_lr is None else backbone_lr},
            {"params": rest, "lr": lr},
        ]
        return [group for group in groups if group["params"]]


class FeatureMethod(HashMethod):
    """A head on the backbone's pooled features [B, F], where F is `backbone.feature_dim`.

    A subclass gives `feature_losses` and `encode_features`. If the backbone is frozen and views are not
    augmented, features are computed once, before the training.
    """

    @abstractmethod
    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """As `training_losses`, of the features [B, F] of each view, in float32, of the whole batch."""

    @abstractmethod
    def encode_features(self, features: Tensor) -> Tensor:
        """As `encode`, of the features [B, F] of images."""

    @final  # features may be kept, and then this is passed by
    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        """The losses of one batch of images; see `HashMethod.training_losses`."""
        features = [gather(self.backbone.pooled(view)) for view in views]
        # The head costs little, and losses on codes do not bear half precision.
        with torch.autocast(features[0].device.type, enabled=False):
            return self.feature_losses(*(feature.float() for feature in features))

    @final
    def encode(self, images: Tensor) -> Tensor:
        """Real values of images [B, 3, H, W]; see `HashMethod.encode`."""
        return self.encode_features(self.backbone.pooled(images))


class ShallowMethod(FeatureMethod):
    """Fitted in one go to the features of all training images; the backbone stays as it is.

    A subclass gives `fit` and `encode_features`, and keeps what it learns in buffers, so that it is saved.
    """

    views: ClassVar[int] = 0

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__(backbone, bits, hyperparameters)
        backbone.freeze()

    @abstractmethod
    def fit(self, features: Tensor) -> None:
        """Learn from the features [N, F] of the training images; draws from torch's generator, if at all."""

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        """There are none: the method is fitted."""
        raise TypeError(f"{type(self).__name__} is fitted, not trained by a loss")


def straight_through_sign(values: Tensor) -> Tensor:
    """The sign (0 counts as +1) going forward, the identity going backward."""
    signs = torch.where(values >= 0, 1.0, -1.0).to(values.dtype)
    return signs + (values - values.detach())  # in this order exactly ±1
