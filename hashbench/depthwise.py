"""Depthwise convolutions of small feature maps that train fast on a CPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

# Output cells times input cells up to which the product is the faster one; 3 × 3 cells to 3 × 3.
MAX_CELL_PAIRS = 81


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one filter per channel, on small maps computed as a product over pairs of cells.

    On a map of 2 × 2 or 3 × 3 cells, oneDNN's backward pass of a 5 × 5 filter takes 2 to 7 times as long,
    which is half the training time of an EfficientNet on images of 48 pixels. Without gradients, on a GPU
    and on larger maps, this is the convolution itself. Both agree to rounding.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve a batch [B, C, H, W]."""
        size = tuple(input.shape[2:])
        trains = torch.is_grad_enabled() and input.device.type == "cpu"
        if not trains or isinstance(self.padding, str) or self.padding_mode != "zeros":
            return super().forward(input)
        height, width = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, padding, dilation, kernel, stride in zip(
                size, self.padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        if height * width * size[0] * size[1] > MAX_CELL_PAIRS:
            return super().forward(input)
        taps = _taps(size, self.kernel_size, self.dilation, self.padding, self.stride)  # [K, P·Q]
        weights = (taps.T @ self.weight.flatten(1).T).view(height * width, -1, self.out_channels)  # [P, Q, C]
        cells = input.permute(0, 2, 3, 1).flatten(1, 2)  # [B, Q, C]
        output = (cells.unsqueeze(1) * weights).sum(2)  # [B, P, C]
        if self.bias is not None:
            output = output + self.bias
        return output.view(len(input), height, width, -1).permute(0, 3, 1, 2)


@cache
def _taps(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: tuple[int, ...],
    stride: tuple[int, ...],
) -> Tensor:
    """Return which of K weights joins which pair of an output cell P and an input cell Q: 0 or 1 [K, P·Q]."""
    cells = torch.eye(size[0] * size[1]).view(-1, 1, *size)
    return F.unfold(cells, kernel, dilation, padding, stride).permute(1, 2, 0).flatten(1)
