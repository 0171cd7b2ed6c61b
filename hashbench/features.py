"""Images through a network in evaluation mode: batches of them, and pooled features that are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from hashbench.backbones import Backbone
from hashbench.config import RunConfig
from hashbench.image_sets import Images
from hashbench.images import test_transform
from hashbench.progress import progress

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
    loader = DataLoader(
        TransformedImages(images, config),
        batch_size=BATCH_SIZE,
        num_workers=workers,
        generator=torch.Generator(),  # else it draws from torch's, and what follows depends on what is kept
    )
    with progress(task, len(images)) as advance:
        for batch in loader:
            yield batch.to(config.device, memory_format=torch.channels_last)
            advance(len(batch))


@contextmanager
def evaluating(module: nn.Module, config: RunConfig) -> Iterator[None]:
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

    They are kept for as long as the images are, and computed again only for other weights or settings.

    Args:
        backbone: The network.
        images: The images.
        config: The run.
        workers: Processes that load images.
        task: What the progress bar says.

    Returns:
        float32 [N, F] on the CPU, in the order of the images.
    """
    key = _state(backbone, config)
    if images not in _kept or _kept[images][0] != key:
        _kept.pop(images, None)  # frees the memory first
        with evaluating(backbone, config):
            pooled = [
                backbone.pooled(batch).cpu() for batch in batches(images, config, workers=workers, task=task)
            ]
        _kept[images] = key, torch.cat(pooled)
    return _kept[images][1]


def _state(backbone: Backbone, config: RunConfig) -> str:
    """Hash of all that features depend on, the images apart."""
    settings = config.model_dump_json(include={"backbone", "images", "device"})
    digest = hashlib.sha256(f"{settings} {backbone}".encode())
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
