"""A depthwise convolution that trains fast on a CPU if feature maps are small."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its usual name)

# Largest number of pairs of output and input cells for which the product is faster: 3 × 3 cells to 3 × 3.
MAX_CELL_PAIRS = 81


class DepthwiseConv2d(nn.Conv2d):
    """An `nn.Conv2d` with one filter per channel, computed on small maps as a product over pairs of cells.

    On maps of 2 × 2 or 3 × 3 cells, oneDNN's backward pass of a 5 × 5 filter is 2 to 7 times slower, which
    is half the training time of an EfficientNet on images of 48 pixels. Without gradients, on a GPU and on
    larger maps, the usual convolution is used. The results agree up to rounding errors.
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
    """Return 1 where a weight K connects an output cell P with an input cell Q, else 0: [K, P·Q]."""
    cells = torch.eye(size[0] * size[1]).view(-1, 1, *size)
    return F.unfold(cells, kernel, dilation, padding, stride).permute(1, 2, 0).flatten(1)
