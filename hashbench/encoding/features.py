"""Batches of transformed images, and pooled features of a backbone, which are cached."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from hashbench import distributed
from hashbench.backbones import Backbone
from hashbench.config import RunConfig
from hashbench.encoding.feature_cache import FeatureMetadata, cache_folder, computing, load, store
from hashbench.encoding.feature_keys import content_key, disk_key, has_versions, network_key
from hashbench.images.batch_loader import BatchLoader
from hashbench.images.image_sets import Images
from hashbench.images.transforms import test_transform
from hashbench.runtime import environment, preemption
from hashbench.runtime.console import warn
from hashbench.runtime.progress import progress, with_forecast

BATCH_SIZE = 128

_FULL_BATCHES = {"cuda"}  # devices that choose kernels for each new shape, which takes seconds


class TransformedImages(Dataset[Tensor]):
    """Images under the test transform, float32 [3, size, size]."""

    def __init__(self, images: Images, config: RunConfig) -> None:
        self.images, self.transform = images, test_transform(config.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        tensor: Tensor = self.transform(self.images[index])
        return tensor


def batches(images: Images, config: RunConfig, *, workers: int, task: str) -> Iterator[Tensor]:
    """Yield batches of transformed images in order, [B, 3, size, size] on the device of the run."""
    loader = BatchLoader(TransformedImages(images, config), config, workers, persistent=False)
    with progress(task, len(images)) as advance:
        if task in ("train", "features"):
            advance = with_forecast(
                advance, len(images), "computing the features of the training images", config
            )
        for batch in loader.load_in_order(len(images), BATCH_SIZE):
            yield batch.to(config.device, memory_format=torch.channels_last, non_blocking=True)
            advance(len(batch))
            preemption.check()


@contextmanager
def inference_mode(module: nn.Module, config: RunConfig) -> Iterator[None]:
    """Set a module to evaluation mode on the device of the run, without gradients."""
    module.to(config.device).to(memory_format=torch.channels_last).eval()
    # torch.inference_mode is no option: tensors that a network caches in it could not be trained with.
    with torch.no_grad(), precision("float32", config.device):
        yield


@contextmanager
def precision(name: str, device: str) -> Iterator[None]:
    """Compute in a precision of `evaluation.precision_encode` during the block."""
    tf32 = name == "tf32"  # a GPU's default for convolutions, which rounds by batch size
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with (
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=tf32),
            torch.autocast(device, torch.bfloat16, enabled=name == "bfloat16"),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def apply(
    network: Callable[[Tensor], Tensor], images: Tensor, config: RunConfig, rounding: str = "float32"
) -> Tensor:
    """Return the output of a network for a batch of images; a GPU gets a full batch, padded with zeros.

    Args:
        network: Maps images [B, 3, size, size] to B rows.
        images: At most `BATCH_SIZE` images on the device of the run.
        config: The configuration of the run.
        rounding: Precision of the network, as `evaluation.precision_encode`.
    """
    count, missing = len(images), BATCH_SIZE - len(images) if config.device in _FULL_BATCHES else 0
    if missing > 0:
        padded = torch.cat([images, images.new_zeros(missing, *images.shape[1:])])
        images = padded.contiguous(memory_format=torch.channels_last)
    with precision(rounding, config.device):
        output = network(images)[:count]
    return output.float() if output.dtype == torch.bfloat16 else output


class _Features(NamedTuple):
    """Features in memory, the key of their network, and the seconds that they took."""

    network: str
    values: Tensor
    seconds: float


class FeatureExtractor:
    """Computes pooled features with the current weights of a backbone, without augmentation.

    Features are kept in memory as long as their images, so that a grid of runs computes them once, and on
    disk for later commands, if everything that they depend on is known. All sources give the same values.

    Attributes:
        seconds: Time that it took to compute the features of all calls, now or for an earlier run.
        waited: The part of this time that was spent now.
    """

    _in_memory: ClassVar[WeakKeyDictionary[Images, _Features]] = WeakKeyDictionary()

    def __init__(self, backbone: Backbone, config: RunConfig, workers: int) -> None:
        """Compute nothing yet."""
        self._backbone, self._config, self._workers = backbone, config, workers
        self._network = network_key(backbone, config)
        self.seconds = self.waited = 0.0

    def __call__(self, images: Images, task: str) -> Tensor:
        """Return the features of images.

        Each process computes its shard, in whole batches.

        Returns:
            float32 [N, F] on the CPU, in the order of the images.
        """
        kept = self._in_memory
        if images not in kept or kept[images].network != self._network:
            kept.pop(images, None)  # frees the memory first
            own = distributed.shard(len(images), BATCH_SIZE)
            part = images if distributed.world_size() == 1 else images.subset(np.arange(own.start, own.stop))
            start = time.monotonic()
            values, seconds = self._load_or_compute(part, task)
            if seconds is None:
                seconds = time.monotonic() - start
                self.waited += seconds
            parts = distributed.all_gather_object(values)
            kept[images] = _Features(self._network, torch.cat(parts) if parts[1:] else parts[0], seconds)
        self.seconds += kept[images].seconds
        return kept[images].values

    def _load_or_compute(self, images: Images, task: str) -> tuple[Tensor, float | None]:
        """Return the features of this process's shard, from the cache on disk if possible.

        Returns:
            The features, and the seconds that they took before; None if they were computed now.
        """
        if not len(images):
            return torch.empty(0, self._backbone.feature_dim), None
        folder = cache_folder()
        content = content_key(images) if folder is not None and has_versions(self._backbone) else None
        if folder is None or content is None:
            return torch.cat([*self._batches(images, task)]), None
        key = disk_key(self._network, content, self._config)
        if (found := load(folder, key)) is not None:
            return torch.from_numpy(found[0]), found[1]
        try:
            with computing(folder, key) as waited:
                if waited and (found := load(folder, key)) is not None:
                    return torch.from_numpy(found[0]), found[1]
                with closing(self._batches(images, task)) as computed:
                    rows = _unchanged(computed, images, content)
                    return torch.from_numpy(store(folder, key, self._metadata(images), rows)), None
        except OSError as error:
            warn(f"features cannot be cached in {folder} ({error.strerror or error}); the run continues")
            return torch.cat([*self._batches(images, task)]), None

    def _batches(self, images: Images, task: str) -> Generator[Tensor, None, None]:
        """Compute features batch by batch, float32 [B, F] on the CPU."""
        rounding = self._config.evaluation.precision_encode
        with inference_mode(self._backbone, self._config):
            for batch in batches(images, self._config, workers=self._workers, task=task):
                yield apply(self._backbone.pooled, batch, self._config, rounding).float().cpu()

    def _metadata(self, images: Images) -> FeatureMetadata:
        return FeatureMetadata(
            backbone=self._config.backbone.name,
            image_size=self._config.images.size,
            images=len(images),
            dimensions=self._backbone.feature_dim,
            device=self._config.device,
            versions=environment.library_versions(),
        )


def _unchanged(computed: Iterator[Tensor], images: Images, content: str) -> Iterator[NDArray[np.float32]]:
    """Yield features as arrays; raise OSError at the end if the image files have changed meanwhile."""
    for batch in computed:
        yield batch.numpy()
    if content_key(images) != content:
        raise OSError("images changed meanwhile")
