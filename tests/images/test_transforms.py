"""Tests of the transforms on the CPU."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from hashbench.config import AffineConfig, ImageConfig, ViewConfig
from hashbench.images.transforms import ViewTransform
from hashbench.images.transforms import test_transform as transform_of

PHOTO = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8))
PLAIN = ImageConfig(size=32, mean=(0, 0, 0), std=(1, 1, 1))


def test_the_test_transform_is_a_normalized_centre_crop() -> None:
    tensor = transform_of(PLAIN)(PHOTO)
    assert (tensor.shape, tensor.dtype) == ((3, 32, 32), torch.float32)
    small = np.asarray(PHOTO.resize((48, 32), Image.Resampling.BILINEAR))[:, 8:40]
    np.testing.assert_allclose(tensor.permute(1, 2, 0).numpy(), small / 255, atol=1e-6)

    normalized = transform_of(ImageConfig(size=32, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3)))(PHOTO)
    expected = (tensor - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.1, 0.2, 0.3])[
        :, None, None
    ]
    torch.testing.assert_close(normalized, expected)


def test_views_without_augmentation_are_the_test_image() -> None:
    torch.testing.assert_close(ViewTransform(PLAIN, ViewConfig())(PHOTO), transform_of(PLAIN)(PHOTO))


@pytest.mark.parametrize(
    "views",
    [
        ViewConfig(affine=AffineConfig(degrees=20)),
        ViewConfig(affine=AffineConfig(translate=0.2, scale=(0.8, 1.2), shear=5)),
        ViewConfig(crop_scale=(0.2, 1.0)),
        ViewConfig(color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_probability=1),
        ViewConfig(grayscale=1),
        ViewConfig(blur=1),
        ViewConfig(blur=1, blur_kernel=3),
        ViewConfig(random_crop=True),
        ViewConfig(whole_image=True),
        ViewConfig(horizontal_flip=1),
    ],
)
def test_each_augmentation_changes_images_and_depends_on_the_seed(views: ViewConfig) -> None:
    transform = ViewTransform(PLAIN, views)
    first, again = (torch.manual_seed(3) and transform(PHOTO) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert first.shape == (3, 32, 32)
    assert not torch.allclose(first, transform_of(PLAIN)(PHOTO), atol=1e-3)


def test_flip_and_grayscale_are_exact() -> None:
    plain = transform_of(PLAIN)(PHOTO)
    torch.testing.assert_close(ViewTransform(PLAIN, ViewConfig(horizontal_flip=1))(PHOTO), plain.flip(-1))
    grey = ViewTransform(PLAIN, ViewConfig(grayscale=1))(PHOTO)
    assert torch.equal(grey[0], grey[1])
    assert torch.equal(grey[1], grey[2])


def test_a_crop_from_a_larger_image() -> None:
    larger = ImageConfig(size=32, resize=40, mean=(0, 0, 0), std=(1, 1, 1))
    assert PHOTO.size == (60, 40)
    pixels = torch.from_numpy(np.array(PHOTO)).permute(2, 0, 1) / 255
    torch.testing.assert_close(transform_of(larger)(PHOTO), pixels[:, 4:36, 14:46])
    crop = ViewTransform(larger, ViewConfig(random_crop=True))(PHOTO)
    crops = pixels.unfold(1, 32, 1).unfold(2, 32, 1)  # all possible crops
    assert (crops - crop[:, None, None]).abs().amax((0, 3, 4)).min() < 1e-6


def test_views_of_the_whole_image_include_its_edges() -> None:
    """Use an image whose left edge is white and cut off by the test transform."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :10] = 255
    image = Image.fromarray(pixels)

    def edges(views: ViewConfig) -> int:
        transform = ViewTransform(PLAIN, views)
        torch.manual_seed(0)
        return sum(bool(transform(image).max() > 0.5) for _ in range(50))

    assert edges(ViewConfig(crop_scale=(0.2, 0.9))) == 0
    assert edges(ViewConfig(crop_scale=(0.2, 0.9), whole_image=True)) > 5


def test_a_blur_with_a_kernel_is_cut_off() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[16, 16] = 255
    views = ViewConfig(blur=1, blur_kernel=3, blur_sigma=(2.0, 2.0))
    blurred = ViewTransform(PLAIN, views)(Image.fromarray(pixels))[0]
    assert [index.tolist() for index in blurred.nonzero(as_tuple=True)] == [
        [15] * 3 + [16] * 3 + [17] * 3,
        [15, 16, 17] * 3,
    ]
    with pytest.raises(ValidationError, match="expected an odd kernel size"):
        ViewConfig(blur_kernel=4)
