"""Tests of views by kornia: each step is compared with torchvision for the same random parameters."""

import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hashbench.config import AffineConfig, ImageConfig, ViewConfig
from hashbench.errors import UsageError
from hashbench.images.gpu_transforms import DeviceViews
from hashbench.images.transforms import ViewTransform
from hashbench.images.transforms import test_transform as transform_of

kornia = pytest.importorskip("kornia", minversion="0.9")

SIZE = 32
PLAIN = ImageConfig(size=SIZE, mean=(0, 0, 0), std=(1, 1, 1))
NORMALIZED = ImageConfig(size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
AFFINE = AffineConfig(degrees=30, translate=0.1, scale=(0.8, 1.2), shear=10)
EVERYTHING = ViewConfig(
    affine=AFFINE,
    crop_scale=(0.2, 0.9),
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    color_jitter_probability=0.5,
    grayscale=0.5,
    blur=0.5,
    horizontal_flip=0.5,
)


def _smooth_squares(count: int, size: int = SIZE) -> Tensor:
    """Return smooth images without extreme values, uint8 [count, 3, size, size]."""
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=True)
    return (smooth.clamp(0, 1) * 127 + 64).round().to(torch.uint8)


SQUARES = _smooth_squares(16)
PIXELS = functional.to_dtype(SQUARES, torch.float32, scale=True)


def _augment(views: ViewConfig, images: ImageConfig = PLAIN, batch: Tensor = SQUARES) -> tuple[Tensor, Any]:
    """Return a view of each image, and the random parameters of each step."""
    transform = DeviceViews(images, views)
    torch.manual_seed(5)
    (view,) = transform(batch, 1)
    return view, [{**step._params, "name": type(step).__name__} for step in transform._steps]


def _affine(image: Tensor, drawn: Any, i: int) -> Tensor:
    return functional.affine(
        image,
        angle=drawn["angle"][i].item(),
        translate=drawn["translations"][i].tolist(),
        scale=drawn["scale"][i, 0].item(),
        shear=[drawn["shear_x"][i].item(), drawn["shear_y"][i].item()],
        interpolation=v2.InterpolationMode.BILINEAR,
    )


def _box(drawn: Any, i: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a crop."""
    (left, top), _, (right, bottom), _ = drawn["src"][i].int().tolist()
    return top, left, bottom - top + 1, right - left + 1


def _crop(image: Tensor, drawn: Any, i: int) -> Tensor:
    return functional.resized_crop(image, *_box(drawn, i), size=[SIZE, SIZE])


def _jitter(image: Tensor, drawn: Any, i: int) -> Tensor:
    parts: list[tuple[str, Callable[[Tensor, float], Tensor]]] = [
        ("brightness_factor", functional.adjust_brightness),
        ("contrast_factor", functional.adjust_contrast),
        ("saturation_factor", functional.adjust_saturation),
        ("hue_factor", functional.adjust_hue),
    ]
    for part in drawn["order"].tolist():
        name, adjust = parts[part]
        image = adjust(image, drawn[name][i].item())
    return image


def _blur(image: Tensor, drawn: Any, i: int) -> Tensor:
    """Blur by torchvision an image with replicated edges, since it would reflect them."""
    padded = functional.pad(image, [6], padding_mode="edge")
    return functional.gaussian_blur(padded, [13, 13], [drawn["sigma"][i].item()] * 2)[:, 6:-6, 6:-6]


def test_without_augmentation_the_views_are_test_images() -> None:
    expected = torch.stack(
        [transform_of(NORMALIZED)(Image.fromarray(square.permute(1, 2, 0).numpy())) for square in SQUARES]
    )
    views = DeviceViews(NORMALIZED, ViewConfig())(SQUARES, 2)
    assert len(views) == 2
    for view in views:
        torch.testing.assert_close(view, expected)


def test_a_flip_is_exact() -> None:
    view, _ = _augment(ViewConfig(horizontal_flip=1))
    assert torch.equal(view, PIXELS.flip(-1))


def test_grayscale_is_torchvisions() -> None:
    view, _ = _augment(ViewConfig(grayscale=1))
    torch.testing.assert_close(
        view, functional.rgb_to_grayscale(PIXELS, num_output_channels=3), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("strengths", [*np.diag([1.5, 1.5, 1.5, 0.5]).tolist(), [0.4, 0.4, 0.4, 0.1]])
def test_colour_jitter_is_torchvisions(strengths: list[float]) -> None:
    """Compare each part alone, over wide ranges of brightness, contrast, saturation and hue, then all."""
    view, (drawn, _) = _augment(ViewConfig(color_jitter=tuple(strengths), color_jitter_probability=1))
    for i, image in enumerate(PIXELS):
        torch.testing.assert_close(view[i], _jitter(image, drawn, i), atol=2e-4, rtol=0)
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for name, neutral, strength in zip(names, (1, 1, 1, 0), strengths, strict=True):
        lowest = -strength if name == "hue_factor" else max(0.0, neutral - strength)
        assert lowest <= drawn[name].min() <= drawn[name].max() <= neutral + strength
        assert len(drawn[name].unique()) == (len(SQUARES) if strength else 1)


@pytest.mark.parametrize(
    "affine",
    [
        AffineConfig(degrees=30),
        AffineConfig(translate=0.2),
        AffineConfig(scale=(1.3, 1.3)),
        AffineConfig(shear=20),
        AFFINE,
    ],
)
def test_an_affine_map_is_torchvisions(affine: AffineConfig) -> None:
    view, (drawn, _) = _augment(ViewConfig(affine=affine))
    for i, image in enumerate(PIXELS):
        torch.testing.assert_close(view[i], _affine(image, drawn, i), atol=1e-3, rtol=0)
    assert not drawn["shear_y"].any()
    assert torch.equal(drawn["scale"][:, 0], drawn["scale"][:, 1])
    assert affine.scale[0] - 1e-6 <= drawn["scale"].min() <= drawn["scale"].max() <= affine.scale[1] + 1e-6
    limits = {"angle": affine.degrees, "shear_x": affine.shear, "translations": affine.translate * SIZE}
    for name, limit in limits.items():
        largest = drawn[name].abs().amax(0)  # over the images: a number, or one along x and one along y
        assert ((limit / 2 <= largest) & (largest <= limit)).all()


def test_a_resized_crop_is_torchvisions() -> None:
    view, (drawn, _) = _augment(ViewConfig(crop_scale=(0.1, 0.9)))
    for i, image in enumerate(PIXELS):
        torch.testing.assert_close(view[i], _crop(image, drawn, i), atol=1e-5, rtol=0)


def test_a_crop_of_everything_is_the_image() -> None:
    view, _ = _augment(ViewConfig(crop_scale=(0.9999, 1.0)))
    torch.testing.assert_close(view, PIXELS)


def test_random_crops_are_distributed_like_torchvisions() -> None:
    """Compare the means of position, area and aspect ratio, within four standard deviations."""
    draws = 4000
    scale = (0.2, 1.0)
    _, (drawn, _) = _augment(ViewConfig(crop_scale=scale), batch=torch.zeros(draws, 3, SIZE, SIZE).byte())
    ours = np.array([_box(drawn, i) for i in range(draws)], float)
    image = torch.zeros(3, SIZE, SIZE)
    torchvisions = v2.RandomResizedCrop(SIZE, scale=scale)
    boxes = [torchvisions.make_params([image]) for _ in range(draws)]
    theirs = np.array([[box[name] for name in ("top", "left", "height", "width")] for box in boxes], float)

    def features(boxes: np.ndarray) -> np.ndarray:
        top, left, height, width = boxes.T
        return np.stack([top, left, height * width, np.abs(np.log(height / width)), height == SIZE])

    one, other = features(ours), features(theirs)
    deviation = np.sqrt((one.var(1) + other.var(1)) / draws)
    assert (np.abs(one.mean(1) - other.mean(1)) < 4 * deviation).all()


def test_a_blur_with_a_kernel_is_torchvisions() -> None:
    view, _ = _augment(ViewConfig(blur=1, blur_kernel=5, blur_sigma=(1.7, 1.7)))
    torch.testing.assert_close(view, functional.gaussian_blur(PIXELS, [5, 5], [1.7, 1.7]))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 4.0])
def test_a_blur_without_a_kernel_is_close_to_pillows(sigma: float) -> None:
    """Allow more at the edges, which Pillow extends before each of its three box blurs."""
    views = ViewConfig(blur=1, blur_sigma=(sigma, sigma))
    view, _ = _augment(views)
    pillow = ViewTransform(PLAIN, views)
    pillows = torch.stack([pillow(Image.fromarray(square.permute(1, 2, 0).numpy())) for square in SQUARES])
    off = (view - pillows).abs() * 255
    assert off[..., 8:-8, 8:-8].max() < 3
    assert off.mean() < 1.1


def test_the_steps_have_the_order_of_view_transform() -> None:
    view, (affine, crop, jitter, grayscale, blur, flip, _) = _augment(EVERYTHING, NORMALIZED)
    for i, pixels in enumerate(PIXELS):
        image = _crop(_affine(pixels, affine, i), crop, i)
        if jitter["batch_prob"][i]:
            image = _jitter(image, jitter, i)
        if grayscale["batch_prob"][i]:
            image = functional.rgb_to_grayscale(image, num_output_channels=3)
        if blur["batch_prob"][i]:
            image = _blur(image, blur, i)
        if flip["batch_prob"][i]:
            image = image.flip(-1)
        image = functional.normalize(image, list(NORMALIZED.mean), list(NORMALIZED.std))
        torch.testing.assert_close(view[i], image, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("views", "share"),
    [
        (ViewConfig(color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_probability=0.7), 0.7),
        (ViewConfig(grayscale=0.2), 0.2),
        (ViewConfig(blur=0.5, blur_sigma=(1.0, 2.0)), 0.5),
        (ViewConfig(horizontal_flip=0.3), 0.3),
    ],
)
def test_a_step_is_applied_with_its_probability(views: ViewConfig, share: float) -> None:
    images, batch = ImageConfig(size=8, mean=(0, 0, 0), std=(1, 1, 1)), _smooth_squares(4000, 8)
    view, _ = _augment(views, images, batch)
    changed = ((view - batch / 255).abs().amax((1, 2, 3)) > 1e-6).float().mean().item()
    assert abs(changed - share) < 4 * math.sqrt(share * (1 - share) / len(batch))


@pytest.mark.parametrize(
    "views",
    [
        ViewConfig(affine=AFFINE),
        ViewConfig(crop_scale=(0.2, 0.9)),
        ViewConfig(color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_probability=1),
        ViewConfig(blur=1),
        EVERYTHING,
    ],
)
def test_views_and_images_have_separate_random_numbers(views: ViewConfig) -> None:
    torch.manual_seed(0)  # two crops may be the same by chance
    batch = SQUARES[:1].repeat(8, 1, 1, 1)
    several = DeviceViews(PLAIN, views)(batch, 3)
    for one, other in itertools.combinations(torch.cat(several), 2):
        assert not torch.equal(one, other)


def test_views_depend_only_on_the_cpu_generator() -> None:
    transform = DeviceViews(NORMALIZED, EVERYTHING)
    assert not transform.state_dict()  # nothing of it belongs to a trained model
    torch.manual_seed(3)
    before = torch.get_rng_state()
    views = transform(SQUARES, 2)

    def again(transform: DeviceViews) -> tuple[Tensor, ...]:
        torch.set_rng_state(before)
        torch.testing.assert_close(repeated := transform(SQUARES, 2), views, atol=0, rtol=0)
        return repeated

    again(transform)
    again(DeviceViews(NORMALIZED, EVERYTHING).eval())
    again(transform.to("meta"))  # as to a GPU, which has a generator of its own
    with torch.autocast("cpu", torch.bfloat16):
        assert all(view.dtype == torch.float32 and not view.requires_grad for view in again(transform))
    assert not torch.equal(transform(SQUARES, 1)[0], views[0])


@pytest.mark.parametrize("key", ["whole_image", "random_crop"])
def test_views_of_uncropped_images_are_refused(key: str) -> None:
    with pytest.raises(UsageError, match=rf"^views\.{key} needs images .* views\.on_device cannot"):
        DeviceViews(PLAIN, ViewConfig.model_validate({key: True}))


def test_kornia_must_be_installed_and_recent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kornia, "__version__", "0.8.3")
    with pytest.raises(UsageError, match=r"kornia 0\.9 or later; pip install 'hashbench\[kornia\]'"):
        DeviceViews(PLAIN, ViewConfig())
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(UsageError, match=r"pip install 'hashbench\[kornia\]'"):
        DeviceViews(PLAIN, ViewConfig())
