"""One pass of a network over all views of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_DEVICES = {"cuda"}  # devices that a small batch does not fill


def of_views(
    compute: Callable[[Tensor], Tensor], views: Sequence[Tensor], backbone: nn.Module
) -> list[Tensor]:
    """Return what a backbone computes of each view.

    A GPU computes all views in one pass, unless batch norm uses the statistics of each view. If the backbone
    is frozen, it computes them one by one, which takes less memory.

    Args:
        compute: `tokens` or `pooled` of the backbone.
        views: Views of the images, each [B, 3, H, W].
        backbone: The backbone.
    """
    one_pass = (
        views[0].device.type in _DEVICES
        and any(weights.requires_grad for weights in backbone.parameters())
        and not any(_uses_batch_statistics(layer) for layer in backbone.modules())
    )
    if not one_pass:
        return [compute(view) for view in views]
    # Copies, since a method may work in place.
    return [values.clone() for values in compute(torch.cat([*views])).chunk(len(views))]


def _uses_batch_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None)
