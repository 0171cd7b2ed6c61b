"""The losses of a batch as one module, and accelerate, which runs it on a device or on several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from hashbench import distributed
from hashbench.config import RunConfig
from hashbench.errors import HashbenchError
from hashbench.images.gpu_transforms import DeviceViews
from hashbench.method.base import FeatureMethod, HashMethod

_PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}  # accelerate's names


class LossModule(nn.Module):
    """A method's losses of a batch of views, of cropped images or of features."""

    def __init__(self, method: HashMethod, config: RunConfig, on_features: bool) -> None:
        """Wrap a method."""
        super().__init__()
        if isinstance(method, FeatureMethod):  # its head sees the whole batch
            if not method.backbone.frozen:
                distributed.synchronize_batch_norm(method.backbone, config.device)
        else:
            distributed.synchronize_batch_norm(method, config.device)
        self.method: Any = method
        self.on_features = on_features
        self.augment = DeviceViews(config.images, config.views) if config.views.on_device else None
        self.to(memory_format=torch.channels_last)  # convolutions train 1.7 times as fast on a CPU
        if config.training.compile:
            self.compile()

    def forward(self, *inputs: Tensor, **indices: Tensor) -> dict[str, Tensor]:
        """Compute the loss and its parts."""
        losses: dict[str, Tensor]
        if self.on_features:
            losses = self.method.feature_losses(*inputs, **indices)
            return losses
        views: Sequence[Tensor] = inputs if self.augment is None else self.augment(*inputs, self.method.views)
        views = [view.to(memory_format=torch.channels_last) for view in views]
        losses = self.method.training_losses(*views, **indices)
        return losses


class PendingLosses:
    """Losses of the last batches, which stay on the device until `read`.

    Reading them waits until the device has computed them, so a GPU runs ahead if those of several batches are
    read together.
    """

    def __init__(self, batches: int) -> None:
        """Create it without losses; `batches` is the number of batches to read together."""
        self._batches = batches
        self._pending: list[tuple[dict[str, float], list[str], Tensor]] = []

    def add(self, method: HashMethod, losses: dict[str, Tensor], **entry: float) -> None:
        """Add the losses of a batch, and what else the log says of it.

        Raises:
            HashbenchError: The method returned no loss.
        """
        if "loss" not in losses:
            raise HashbenchError(
                f"{type(method).__name__}.training_losses: expected the key 'loss', got {[*losses]}"
            )
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        self._pending.append((entry, [*losses], values))

    def read(self, *, early: bool = False) -> list[tuple[dict[str, float], dict[str, float]]]:
        """Return the entry and the losses of each batch; nothing if there are too few, unless it is early."""
        if not self._pending or (len(self._pending) < self._batches and not early):
            return []
        pending, self._pending = self._pending, []
        numbers = iter(torch.cat([values for *_, values in pending]).tolist())
        return [(entry, {name: next(numbers) for name in names}) for entry, names, _ in pending]


def create_accelerator(config: RunConfig, precision: str) -> Accelerator:
    """Create the accelerator of a run, whatever an earlier run of this process or the user configured."""
    AcceleratorState._reset_state(reset_partial_state=distributed.world_size() == 1)
    for name in ("GRADIENT_ACCUMULATION_STEPS", "DYNAMO_BACKEND"):  # set by `accelerate config`
        os.environ.pop(f"ACCELERATE_{name}", None)
    return Accelerator(
        cpu=config.device == "cpu",
        mixed_precision=_PRECISIONS[precision],
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
