"""Images through a network in evaluation mode: batches of them, and pooled features that are kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from hashbench import distributed
from hashbench.backbones import Backbone
from hashbench.config import RunConfig
from hashbench.encoding.feature_cache import FeatureMetadata, cache_folder, load, store
from hashbench.encoding.feature_keys import content_key, disk_key, has_versions, network_key
from hashbench.images.batch_loader import BatchLoader
from hashbench.images.image_sets import Images
from hashbench.images.transforms import test_transform
from hashbench.runtime import environment, preemption
from hashbench.runtime.console import warn
from hashbench.runtime.progress import progress

BATCH_SIZE = 128

# The features of a set of images, with what they depend on: a grid of runs computes them once.
_kept: WeakKeyDictionary[Images, tuple[str, Tensor]] = WeakKeyDictionary()


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
    """Images in order, under the test transform, on the run's device: [B, 3, size, size].

    Args:
        images: The images.
        config: The run.
        workers: Processes that load images.
        task: What the progress bar says.
    """
    loader = BatchLoader(TransformedImages(images, config), config, workers, persistent=False)
    starts = range(0, len(images), BATCH_SIZE)
    positions = [list(range(start, min(start + BATCH_SIZE, len(images)))) for start in starts]
    with progress(task, len(images)) as advance:
        for batch in loader.load(positions):
            yield batch.to(config.device, memory_format=torch.channels_last, non_blocking=True)
            advance(len(batch))
            preemption.check()


@contextmanager
def inference_mode(module: nn.Module, config: RunConfig) -> Iterator[None]:
    """Evaluation mode, full precision and no gradients, on the run's device."""
    module.to(config.device).to(memory_format=torch.channels_last).eval()
    # TensorFloat-32, a GPU's default for convolutions, rounds by batch size.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    # Not inference_mode: what a network caches in it could not be trained with.
    with torch.no_grad(), exact:
        yield


def pooled_features(
    backbone: Backbone, images: Images, config: RunConfig, *, workers: int, task: str
) -> Tensor:
    """The pooled features of images under a backbone as it is, without augmentation.

    They are kept for as long as the images are, and computed again only for other weights or settings; on
    disk for later commands, too, where all that they depend on is known. Wherever they come from, they are
    the same. Several processes compute a share each, in whole batches.

    Args:
        backbone: The network.
        images: The images.
        config: The run.
        workers: Processes that load images.
        task: What the progress bar says.

    Returns:
        float32 [N, F] on the CPU, in the order of the images.
    """
    key = network_key(backbone, config)
    if images not in _kept or _kept[images][0] != key:
        _kept.pop(images, None)  # frees the memory first
        own = distributed.shard(len(images), BATCH_SIZE)
        part = images if distributed.world_size() == 1 else images.subset(np.arange(own.start, own.stop))
        parts = distributed.all_gather_object(_local_shard(key, backbone, part, config, workers, task))
        _kept[images] = key, parts[0] if len(parts) == 1 else torch.cat(parts)
    return _kept[images][1]


def _local_shard(
    network: str, backbone: Backbone, images: Images, config: RunConfig, workers: int, task: str
) -> Tensor:
    """The pooled features of this process's share of the images."""
    if not len(images):
        return torch.empty(0, backbone.feature_dim)
    compute = partial(_pooled, backbone, images, config, workers, task)
    found = _load_or_compute(network, backbone, images, config, compute)
    return torch.cat([*compute()]) if found is None else torch.from_numpy(found)


def _pooled(
    backbone: Backbone, images: Images, config: RunConfig, workers: int, task: str
) -> Generator[Tensor, None, None]:
    """Pooled features batch by batch, float32 [B, F] on the CPU."""
    with inference_mode(backbone, config):
        for batch in batches(images, config, workers=workers, task=task):
            yield backbone.pooled(batch).float().cpu()


def _load_or_compute(
    network: str,
    backbone: Backbone,
    images: Images,
    config: RunConfig,
    compute: Callable[[], Generator[Tensor, None, None]],
) -> NDArray[np.float32] | None:
    """Features from the disk, computed and written first if need be; None, if they cannot be kept there."""
    folder = cache_folder()
    content = content_key(images) if folder is not None and has_versions(backbone) else None
    if folder is None or content is None:
        return None
    key = disk_key(network, content, config)
    found = load(folder, key)
    if found is not None:
        return found
    facts = FeatureMetadata(
        backbone=config.backbone.name,
        image_size=config.images.size,
        images=len(images),
        dimensions=backbone.feature_dim,
        device=config.device,
        versions=environment.library_versions(),
    )

    def rows(pooled: Iterator[Tensor]) -> Iterator[NDArray[np.float32]]:
        for batch in pooled:
            yield batch.numpy()
        if content_key(images) != content:
            raise OSError("images changed meanwhile")

    try:
        with closing(compute()) as pooled:
            return store(folder, key, facts, rows(pooled))
    except OSError as error:
        reason = error.strerror or error
        warn(f"features cannot be kept in {folder} ({reason}); the run goes on without")
        return None
