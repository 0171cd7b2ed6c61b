"""What a method plugin implements: images in, one code per image out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from hashbench.backbones import Backbone
from hashbench.codes import BinaryCodes


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

        Args:
            *views: `self.views` tensors [B, 3, H, W]; row i of each is a view of the same image.

        Returns:
            Scalars: `"loss"`, which is minimized, and the named parts that the log should show.
        """

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Real-valued codes [B, bits] of images [B, 3, H, W]; their sign is the code.

        Each row depends on its own image only: an image has one code, alone or in any batch.
        """

    def codes(self, images: Tensor) -> BinaryCodes:
        """The codes of images [B, 3, H, W]: the sign of `encode`, where 0 counts as +1."""
        return BinaryCodes.from_real(self.encode(images))

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

    def forward(self, *views: Tensor) -> dict[str, Tensor]:
        """`training_losses`, under the name that mixed precision and data parallelism wrap."""
        return self.training_losses(*views)


def straight_through_sign(values: Tensor) -> Tensor:
    """The sign (0 counts as +1) going forward, the identity going backward."""
    signs = torch.where(values >= 0, 1.0, -1.0).to(values.dtype)
    return signs + (values - values.detach())  # in this order exactly ±1
