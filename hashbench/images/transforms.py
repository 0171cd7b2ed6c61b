"""Transforms of images to tensors: augmented views for training, and the test transform."""

from __future__ import annotations

import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from hashbench.config import ImageConfig, ViewConfig


class GaussianBlur(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Pillow's Gaussian blur with a random radius, as in most published code of the field."""

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Image.Image) -> Image.Image:
        """Blur an image by a radius from torch's random generator."""
        radius = torch.empty(1).uniform_(*self.sigma).item()
        return image.filter(ImageFilter.GaussianBlur(radius))


def test_transform(images: ImageConfig) -> v2.Transform:
    """Return the transform of a Pillow image to float32 [3, size, size]: resize, centre crop, normalize."""
    return v2.Compose([square_transform(images), *_to_tensor(images)])


def square_transform(images: ImageConfig) -> v2.Transform:
    """Return the first part of the test transform: resize and centre crop, to a Pillow image."""
    return v2.Compose([v2.Resize(images.resize or images.size), v2.CenterCrop(images.size)])


class ViewTransform:
    """Transform of a Pillow image to augmented views, float32 [3, size, size]; draws from torch's generator.

    As in the published code of WCH, the image is first cropped like in the test transform, so that a view
    contains nothing that the test transform would cut off, unless `whole_image` or `random_crop` is set.
    """

    def __init__(self, images: ImageConfig, views: ViewConfig) -> None:
        shared = [v2.Identity() if views.whole_image else v2.Resize(images.resize or images.size)]
        if not (views.whole_image or views.random_crop):
            shared.append(v2.CenterCrop(images.size))
        self._shared, self._random = v2.Compose(shared), v2.Compose(_random_steps(images, views))

    def __call__(self, image: Image.Image) -> Tensor:
        """Return a view of an image."""
        return self.several(image, 1)[0]

    def several(self, image: Image.Image, count: int) -> tuple[Tensor, ...]:
        """Return several views of an image, which is resized only once."""
        image = self._shared(image)
        return tuple(self._random(image) for _ in range(count))


def _random_steps(images: ImageConfig, views: ViewConfig) -> list[v2.Transform]:
    """Return the random steps of a view, and those that make it a tensor."""
    steps: list[v2.Transform] = [v2.RandomCrop(images.size)] if views.random_crop else []
    if views.affine is not None:
        steps.append(
            v2.RandomAffine(
                views.affine.degrees,
                translate=(views.affine.translate, views.affine.translate),
                scale=views.affine.scale,
                shear=views.affine.shear or None,
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if views.whole_image or views.crop_scale != (1.0, 1.0):
        steps.append(v2.RandomResizedCrop(images.size, scale=views.crop_scale))
    if views.color_jitter is not None:
        steps.append(v2.RandomApply([v2.ColorJitter(*views.color_jitter)], p=views.color_jitter_probability))
    if views.grayscale:
        steps.append(v2.RandomGrayscale(p=views.grayscale))
    if views.blur:
        blur = (
            v2.GaussianBlur(views.blur_kernel, views.blur_sigma)
            if views.blur_kernel
            else GaussianBlur(views.blur_sigma)
        )
        steps.append(v2.RandomApply([blur], p=views.blur))
    if views.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(p=views.horizontal_flip))
    return [*steps, *_to_tensor(images)]


def _to_tensor(images: ImageConfig) -> list[v2.Transform]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean=list(images.mean), std=list(images.std)),
    ]
