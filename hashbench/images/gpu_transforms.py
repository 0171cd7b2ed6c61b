"""Augmentation of batches on the device of the run, with kornia."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from hashbench.config import ImageConfig, ViewConfig
from hashbench.errors import UsageError


class DeviceViews(nn.Module):
    """Augmentation of batches of cropped images by the steps of `ViewTransform`, with their parameters.

    Random numbers are drawn for each image and view from torch's CPU generator, on all devices: the same
    state of that generator gives the same views. Even with equal draws, they differ from `ViewTransform`'s:

    - pixels remain floats between the steps, where Pillow rounds to one of 256 levels after each;
    - the order of the parts of colour jitter is drawn once per batch, not per image;
    - an affine map also shifts by fractions of a pixel, and blends its edges into the black background;
    - a blur without `blur_kernel` is a Gaussian, cut off at three standard deviations; Pillow approximates it
      by three box blurs, which differs at the edges.
    """

    def __init__(self, images: ImageConfig, views: ViewConfig) -> None:
        """Build the steps.

        Raises:
            UsageError: Kornia is missing, or the settings need more than the centre crop of an image.
        """
        super().__init__()
        for key in ("whole_image", "random_crop"):
            if getattr(views, key):
                raise UsageError(
                    f"views.{key} needs images of different shapes, which views.on_device cannot batch; "
                    "set one of the two to false"
                )
        # A plain list: registered modules would move to a GPU with this one, and draw from its generator.
        self._steps = _steps(images, views)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled graph may draw other numbers
    def forward(self, batch: Tensor, views: int) -> tuple[Tensor, ...]:
        """Augment a batch.

        Args:
            batch: Cropped images, uint8 [B, 3, size, size].
            views: Number of views per image.

        Returns:
            The views, each float32 [B, 3, size, size], normalized.
        """
        with torch.autocast(batch.device.type, enabled=False):  # pixels need more than the 8 bits of bfloat16
            pixels = functional.to_dtype(batch, torch.float32, scale=True)
            return tuple(self._view(pixels) for _ in range(views))

    def _view(self, pixels: Tensor) -> Tensor:
        for step in self._steps:
            pixels = step(pixels)
        return pixels


def _steps(images: ImageConfig, views: ViewConfig) -> list[nn.Module]:
    """Return the steps of `transforms._random_steps` for batches, float32 [B, 3, size, size] in 0..1."""
    kornia = _kornia()
    steps: list[nn.Module] = []
    if views.affine is not None:
        steps.append(
            kornia.RandomAffine(
                views.affine.degrees,
                translate=(views.affine.translate, views.affine.translate),
                scale=views.affine.scale,
                shear=views.affine.shear or None,  # along x only, like torchvision
                p=1.0,
            )
        )
    if views.crop_scale != (1.0, 1.0):
        size = (images.size, images.size)
        # Pillow and torchvision do not align corners.
        steps.append(kornia.RandomResizedCrop(size, scale=views.crop_scale, align_corners=False))
    if views.color_jitter is not None:
        steps.append(kornia.ColorJitter(*views.color_jitter, p=views.color_jitter_probability))
    if views.grayscale:
        steps.append(kornia.RandomGrayscale(p=views.grayscale))
    if views.blur:
        kernel = views.blur_kernel or 2 * math.ceil(3 * views.blur_sigma[1]) + 1
        border = "reflect" if views.blur_kernel else "replicate"  # as in torchvision and in Pillow
        steps.append(
            kornia.RandomGaussianBlur((kernel, kernel), views.blur_sigma, border_type=border, p=views.blur)
        )
    if views.horizontal_flip:
        steps.append(kornia.RandomHorizontalFlip(p=views.horizontal_flip))
    return [*steps, kornia.Normalize(images.mean, images.std)]


def _kornia() -> Any:
    """Return the module `kornia.augmentation`.

    Raises:
        UsageError: Kornia is not installed or too old: before 0.9 its affine maps shift slightly too far, and
            its crops never have the full height or width of an image.
    """
    try:
        import kornia
        import kornia.augmentation as augmentation
    except ModuleNotFoundError:
        found = False
    else:
        found = tuple(int(part) for part in kornia.__version__.split(".")[:2]) >= (0, 9)
    if not found:
        raise UsageError("views.on_device needs kornia 0.9 or later; pip install 'hashbench[kornia]'")
    return augmentation
