"""Training views that are computed in batches on the run's device, by kornia."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from hashbench.config import ImageConfig, ViewConfig
from hashbench.errors import UsageError


class DeviceViews(nn.Module):
    """Squares -> augmented views, by the steps of `ViewTransform` in their order and with their parameters.

    Each image of each view has draws of its own, from torch's generator of the CPU whatever the device: the
    same state of that generator gives the same views. They are not Pillow's, for even with equal draws

    - pixels stay floats between the steps, where Pillow rounds each time to one of 256 levels;
    - the parts of colour jitter come in an order that is drawn once a batch, not for each image;
    - an affine map shifts by parts of a pixel, too, and its edges fade into the black around them;
    - a blur without `blur_kernel` is a Gaussian, cut off at three deviations; Pillow's is three box blurs,
      which is near to it but at the edges.
    """

    def __init__(self, images: ImageConfig, views: ViewConfig) -> None:
        """Build the steps.

        Args:
            images: How an image becomes a tensor; a square is what its test transform shows.
            views: The augmentation.

        Raises:
            UsageError: There is no kornia, or the views need more of an image than its square.
        """
        super().__init__()
        for key in ("whole_image", "random_crop"):
            if getattr(views, key):
                raise UsageError(
                    f"views.{key} needs images of all shapes, which views.on_device cannot take in batches; "
                    "set one of the two to false"
                )
        # A list, as registered modules would follow this one to a GPU, and draw from its generator there.
        self._steps = _steps(images, views)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled graph may draw otherwise
    def forward(self, batch: Tensor, views: int) -> tuple[Tensor, ...]:
        """Augment a batch.

        Args:
            batch: Squares, uint8 [B, 3, size, size].
            views: Number of views of an image.

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
    """What `images._random_steps` does, for a batch of float32 [B, 3, size, size] in 0..1."""
    kornia = _kornia()
    steps: list[nn.Module] = []
    if views.affine is not None:
        steps.append(
            kornia.RandomAffine(
                views.affine.degrees,
                translate=(views.affine.translate, views.affine.translate),
                scale=views.affine.scale,
                shear=views.affine.shear or None,  # along x alone, as torchvision's
                p=1.0,
            )
        )
    if views.crop_scale != (1.0, 1.0):
        size = (images.size, images.size)
        # The default corners-to-corners grid is not that of Pillow and torchvision.
        steps.append(kornia.RandomResizedCrop(size, scale=views.crop_scale, align_corners=False))
    if views.color_jitter is not None:
        steps.append(kornia.ColorJitter(*views.color_jitter, p=views.color_jitter_probability))
    if views.grayscale:
        steps.append(kornia.RandomGrayscale(p=views.grayscale))
    if views.blur:
        kernel = views.blur_kernel or 2 * math.ceil(3 * views.blur_sigma[1]) + 1
        border = "reflect" if views.blur_kernel else "replicate"  # torchvision's, Pillow's
        steps.append(
            kornia.RandomGaussianBlur((kernel, kernel), views.blur_sigma, border_type=border, p=views.blur)
        )
    if views.horizontal_flip:
        steps.append(kornia.RandomHorizontalFlip(p=views.horizontal_flip))
    return [*steps, kornia.Normalize(images.mean, images.std)]


def _kornia() -> Any:
    """`kornia.augmentation`.

    Raises:
        UsageError: It is not installed, or too old: before 0.9 its affine maps shift a little too far, and
            its crops never have the whole height or width of an image.
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
