"""Base classes of method plugins, which map images to codes.

A `HashMethod` is trained on images. A `FeatureMethod` is a `HashMethod` that consists of a head on the
backbone's pooled features. A `ShallowMethod` is a `FeatureMethod` that is fitted to all features at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hashbench.backbones import Backbone
from hashbench.codes import BinaryCodes, Codes
from hashbench.distributed import gather
from hashbench.method.one_pass import of_views


class TrainingSet(Protocol):
    """The training images, as `HashMethod.prepare` sees them."""

    def __len__(self) -> int:
        """Return the number of training images."""

    def features(self) -> Tensor:
        """Return the pooled features of the initial backbone, without augmentation or dropout.

        Returns:
            float32 [N, F] on the device of the run, in the order of the training images.
        """


class HashMethod(nn.Module, ABC):
    """Base class of methods that learn from images without labels.

    A subclass implements `training_losses` and `encode`. The code of an image must not depend on the other
    images in the batch.

    Attributes:
        views: Number of augmented views of each training image that `training_losses` takes.
        uses_indices: True if `training_losses` also takes `indices`, int64 [B], the row of each image of the
            batch in the training set. A `FeatureMethod` gets them in `feature_losses`.
        backbone: Network that computes features.
        bits: Code length.
        hyperparameters: Settings of the method.
    """

    class Hyperparameters(BaseModel):
        """Settings of the method; a subclass adds fields, with the values of the paper as defaults."""

        model_config = ConfigDict(extra="forbid", frozen=True)

    views: ClassVar[int] = 2
    uses_indices: ClassVar[bool] = False

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__()
        self.backbone = backbone
        self.bits = bits
        self.hyperparameters = hyperparameters

    def prepare(self, training: TrainingSet) -> None:
        """Compute what the training needs to know of all training images, such as their similarities.

        It is called once before training, also before a stopped training resumes, with the initial weights.
        All processes draw the same random numbers in it. Nothing is done by default.
        """

    @abstractmethod
    def training_losses(self, *views: Any, **indices: Any) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        In distributed training, each process gets its shard of the batch. Use `hashbench.gather` to get the
        tensors of the whole batch before comparing images or computing batch statistics.

        Args:
            *views: `self.views` tensors [B, 3, H, W]; row i of each is a view of the same image.
            **indices: `indices` if `self.uses_indices`, else nothing.

        Returns:
            Scalars by name: `"loss"`, which is minimized, and others to show in the log.
        """

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Compute real values [B, bits] from images [B, 3, H, W]; their signs are the codes.

        Each row must depend on its own image only, so that an image has the same code in any batch.
        """

    def codes(self, values: Tensor) -> Codes:
        """Convert the values of `encode` to codes: by default their signs, where 0 counts as +1."""
        return BinaryCodes.from_real(values, one_sign=True)  # collapsed codes may all have the same sign

    def query_codes(self, values: Tensor) -> Codes | NDArray[np.float32]:
        """Convert the values of `encode` for queries to what is compared with the codes of the database.

        By default, these are their codes. A method with product codes may return the values
        [B, books · dim] for asymmetric distances.
        """
        return self.codes(values)

    def parameter_groups(self, lr: float, backbone_lr: float | None) -> Sequence[dict[str, Any]]:
        """Return the parameter groups for the optimizer.

        Args:
            lr: Learning rate of all parameters outside the backbone.
            backbone_lr: Learning rate of the backbone; None: `lr`.
        """
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        backbone_ids = {id(p) for p in backbone}
        head = [p for p in self.parameters() if p.requires_grad and id(p) not in backbone_ids]
        groups = [
            {"params": backbone, "lr": lr if backbone_lr is None else backbone_lr},
            {"params": head, "lr": lr},
        ]
        return [group for group in groups if group["params"]]


class FeatureMethod(HashMethod):
    """Base class of methods that consist of a head on the backbone's pooled features [B, F].

    F is `backbone.feature_dim`. A subclass implements `feature_losses` and `encode_features`. If the backbone
    is frozen and views are not augmented, the features are computed once, before training.
    """

    @abstractmethod
    def feature_losses(self, *features: Any, **indices: Any) -> dict[str, Tensor]:
        """Compute the losses of the whole batch from the float32 features [B, F] of each view.

        See `training_losses` for what to return.
        """

    @abstractmethod
    def encode_features(self, features: Tensor) -> Tensor:
        """Compute real values [B, bits] from features [B, F]; see `encode`."""

    @final  # it is not called if the features are cached
    def training_losses(self, *views: Tensor, **indices: Tensor) -> dict[str, Tensor]:
        """Compute the losses of a batch of images; see `HashMethod.training_losses`."""
        features = [gather(values) for values in of_views(self.backbone.pooled, views, self.backbone)]
        indices = {name: gather(rows) for name, rows in indices.items()}
        # The head costs little, and losses on codes need full precision.
        with torch.autocast(features[0].device.type, enabled=False):
            return self.feature_losses(*(feature.float() for feature in features), **indices)

    @final
    def encode(self, images: Tensor) -> Tensor:
        """Compute real values from images [B, 3, H, W]; see `HashMethod.encode`."""
        features = self.backbone.pooled(images)
        with torch.autocast(features.device.type, enabled=False):
            return self.encode_features(features.float())


class ShallowMethod(FeatureMethod):
    """Base class of methods that are fitted to the features of all training images; the backbone is frozen.

    A subclass implements `fit` and `encode_features`, and stores the learned tensors in buffers so that they
    are saved.
    """

    views: ClassVar[int] = 0

    def __init__(self, backbone: Backbone, bits: int, hyperparameters: BaseModel) -> None:
        super().__init__(backbone, bits, hyperparameters)
        backbone.freeze()

    @abstractmethod
    def fit(self, features: Tensor) -> None:
        """Learn from the features [N, F] of the training images; draw random numbers only from torch."""

    def feature_losses(self, *features: Any, **indices: Any) -> dict[str, Tensor]:
        """Raise an error, since the method is fitted."""
        raise TypeError(f"{type(self).__name__} is fitted, not trained by a loss")


def signs(values: Tensor) -> Tensor:
    """Return the signs ±1 of values (0 counts as +1), without a gradient."""
    return torch.where(values >= 0, 1.0, -1.0).to(values.dtype)


def straight_through_sign(values: Tensor) -> Tensor:
    """Return the signs of values (0 counts as +1), with the gradient of the identity."""
    return signs(values) + (values - values.detach())  # exactly ±1 in this order
