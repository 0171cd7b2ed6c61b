"""A method under test, and the synthetic images that it is trained on."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset, Split
from hashbench.encoding.features import TransformedImages, inference_mode
from hashbench.experiment.configure import configure, is_fitted
from hashbench.experiment.weights import build_method
from hashbench.images.image_sets import ArrayImages
from hashbench.images.transforms import ViewTransform
from hashbench.method.base import HashMethod
from hashbench.training.trainer import train

BATCH = 16
# These settings override the method's recipe. A network with random weights needs layer norm: with batch norm
# and no statistics, all images get nearly the same features and codes, and nothing is learned.
FAST_SETTINGS = (
    "backbone=test_efficientnet_ln", "pretrained=false", "images.size=32", "images.resize=null",
)  # fmt: skip
FAST_TRAINING = ("epochs=2", f"batch_size={BATCH}")  # fitted methods do not have these settings


CLASS_IDS = np.arange(144) % 6  # of the synthetic images


@cache
def synthetic_images() -> ArrayImages:
    """Create 144 images, enough for 128 principal components: a colour pattern per class, with noise."""
    random = np.random.RandomState(0)
    patterns = random.randint(0, 256, (6, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = patterns[CLASS_IDS] + random.randint(-40, 41, (144, 32, 32, 3))
    return ArrayImages(pixels.clip(0, 255).astype(np.uint8), [f"image {index}" for index in range(144)])


def synthetic_dataset() -> Dataset:
    """Create a dataset whose parts have the same images, so that a method could find training labels.

    It is not cached: while a method is trained, no other labels than those of the run may exist.
    """
    split = Split(synthetic_images(), CLASS_IDS)
    names = [f"class {index}" for index in range(6)]
    return Dataset.from_splits("synthetic", "default", names, train=split, query=split, database=split)


class MethodUnderTest:
    """A method under test. It caches what several checks need.

    Args:
        name: Name of a registered method.
        settings: `KEY=VALUE` texts, as for `--set`.
        bits: Code length.
    """

    def __init__(self, name: str, settings: Sequence[str] = (), bits: int = 32) -> None:
        self.name, self.settings, self.bits = name, settings, bits

    @cached_property
    def config(self) -> RunConfig:
        """The configuration of a run on the synthetic images."""
        training = () if is_fitted(self.name) else FAST_TRAINING
        settings = (*FAST_SETTINGS, *training, *self.settings)
        return configure(
            self.name, synthetic_dataset(), bits=self.bits, seed=0, device="cpu", settings=settings
        )

    def build(self) -> HashMethod:
        """Build the untrained method."""
        return build_method(self.config)

    def train(self) -> HashMethod:
        """Build and train the method."""
        dataset = synthetic_dataset()  # the labels stay within reach, as in a run
        method = self.build()
        silent = contextlib.redirect_stderr(io.StringIO())
        with silent, tempfile.TemporaryDirectory() as folder:
            train(method, dataset.train, self.config, Path(folder))
        return method

    @cached_property
    def trained(self) -> HashMethod:
        """The trained method, shared by all checks; they must not change it."""
        return self.train()

    @cached_property
    def trained_again(self) -> HashMethod:
        """The method after a second training with the same seed."""
        return self.train()

    def images(self, count: int) -> Tensor:
        """Return the first images [count, 3, size, size], transformed as for `encode`."""
        images = TransformedImages(synthetic_images(), self.config)
        return torch.stack([images[index] for index in range(count)])

    def views(self, method: HashMethod) -> list[Tensor]:
        """Return the augmented views of a training batch, each [BATCH, 3, size, size]."""
        transform, images = ViewTransform(self.config.images, self.config.views), synthetic_images()
        torch.manual_seed(0)
        return [
            torch.stack([transform(images[index]) for index in range(BATCH)]) for _ in range(method.views)
        ]

    def encode(self, method: HashMethod, *batches: Tensor) -> Tensor:
        """Encode batches of images as in a run, and concatenate the values."""
        with inference_mode(method, self.config):
            return torch.cat([method.encode(b.to(memory_format=torch.channels_last)) for b in batches])
