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
from hashbench.encoding.features import FeatureExtractor, TransformedImages, apply, inference_mode
from hashbench.errors import HashbenchError
from hashbench.experiment.configure import configure, is_fitted
from hashbench.experiment.weights import build_method
from hashbench.images.image_sets import ArrayImages
from hashbench.images.transforms import ViewTransform
from hashbench.method.base import HashMethod, ShallowMethod
from hashbench.training.trainer import train
from hashbench.training.training_images import TrainingImages

BATCH = 16
INDICES = torch.arange(BATCH)  # rows of the images of a batch in the training set
# These settings override the method's recipe. A network with random weights needs layer norm: with batch norm
# and no statistics, all images get nearly the same features and codes, and nothing is learned.
FAST_SETTINGS = (
    "backbone=test_efficientnet_ln", "pretrained=false", "images.size=32", "images.resize=null",
)  # fmt: skip
FAST_TRAINING = ("epochs=2", f"batch_size={BATCH}")  # fitted methods do not have these settings


CLASS_IDS = np.arange(144) % 6  # of the synthetic images


@cache
def synthetic_images(seed: int = 0) -> ArrayImages:
    """Create 144 images, enough for 128 principal components: a colour pattern per class, with noise."""
    random = np.random.RandomState(seed)
    patterns = random.randint(0, 256, (6, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = patterns[CLASS_IDS] + random.randint(-40, 41, (144, 32, 32, 3))
    return ArrayImages(pixels.clip(0, 255).astype(np.uint8), [f"image {index}" for index in range(144)])


def synthetic_dataset(queries: ArrayImages | None = None) -> Dataset:
    """Create a dataset whose parts have the same images, so that a method could find training labels.

    It is not cached: while a method is trained, no other labels than those of the run may exist.

    Args:
        queries: 144 other images for the queries and the database.
    """
    train, test = (Split(images, CLASS_IDS) for images in (synthetic_images(), queries or synthetic_images()))
    names = [f"class {index}" for index in range(6)]
    return Dataset.from_splits("synthetic", "default", names, train=train, query=test, database=test)


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

    def train(self, queries: ArrayImages | None = None) -> HashMethod:
        """Build and train the method, with other queries if there are any."""
        dataset = synthetic_dataset(queries)  # it stays within reach, as in a run
        method = self.build()
        silent = contextlib.redirect_stderr(io.StringIO())
        with silent, tempfile.TemporaryDirectory() as folder:
            train(method, dataset.train, self.config, Path(folder))
        return method

    def prepared(self) -> HashMethod:
        """Build the method in training mode, and let it see the training images, as before training."""
        method = self.build()
        if not isinstance(method, ShallowMethod):
            extractor = FeatureExtractor(method.backbone, self.config, workers=0)
            method.prepare(TrainingImages(synthetic_images(), extractor, "cpu"))
        return method.train()

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

    def losses(
        self, method: HashMethod, views: Sequence[Tensor] | None = None, indices: Tensor = INDICES
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch, and check what the method returns.

        Args:
            method: From `prepared`.
            views: Tensors [B, 3, size, size]; None: the result of `views`.
            indices: Rows of the images in the training set, int64 [B].

        Raises:
            HashbenchError: The losses are no finite scalars, or there is no "loss".
        """
        given = {"indices": indices} if method.uses_indices else {}
        losses = method.training_losses(*(self.views(method) if views is None else views), **given)
        if not isinstance(losses, dict) or "loss" not in losses:
            raise HashbenchError(
                'expected a dict with the key "loss", the loss to minimize; add it to the losses'
            )
        for name, value in losses.items():
            if not isinstance(value, Tensor) or value.ndim:
                found = f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"{value!r}"
                raise HashbenchError(
                    f"expected a scalar tensor as {name!r}, got {found}; reduce it, e.g. by .mean()"
                )
            if not value.isfinite():
                raise HashbenchError(
                    f"{name!r} is {value.item()}; guard its divisions, roots, logarithms and powers"
                )
        return losses

    def encode(self, method: HashMethod, *batches: Tensor) -> Tensor:
        """Encode batches of images as in a run, and concatenate the values."""
        with inference_mode(method, self.config):
            channels_last = (batch.to(memory_format=torch.channels_last) for batch in batches)
            return torch.cat([apply(method.encode, batch, self.config) for batch in channels_last])
