"""Images to codes, each image on its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hashbench.codes import BinaryCodes
from hashbench.config import RunConfig
from hashbench.dataset import Images
from hashbench.errors import HashbenchError, UsageError
from hashbench.images import test_transform
from hashbench.method import HashMethod
from hashbench.progress import progress

BATCH_SIZE = 128
PROBE = 8  # images on which a method's contract is checked


def encode(method: HashMethod, images: Images, config: RunConfig, *, workers: int, task: str) -> BinaryCodes:
    """Encode images in evaluation mode and full precision.

    Args:
        method: A trained method.
        images: What to encode.
        config: The run.
        workers: Processes that load images.
        task: What the progress bar says.

    Returns:
        Codes in the order of the images.

    Raises:
        HashbenchError: The method breaks its contract; see `check_encoder`.
    """
    check_encoder(method, images, config)
    loader = DataLoader(_TestImages(images, config), batch_size=BATCH_SIZE, num_workers=workers)
    with _encoding(method, config), progress(task, len(images)) as advance:
        codes = []
        for batch in loader:
            codes.append(_codes(method, batch.to(config.device, memory_format=torch.channels_last)))
            advance(len(batch))
    return BinaryCodes.concatenate(codes)


def check_encoder(method: HashMethod, images: Images, config: RunConfig) -> None:
    """Check on a few images that a method gives codes of the right length, each from its image alone.

    In another batch an image must get the same values. Signs are not compared, since rounding, which does
    depend on the batch, can turn the sign of a value at 0.

    Raises:
        HashbenchError: It does not.
    """
    probe = _TestImages(images, config)
    batch = torch.stack([probe[index] for index in range(min(PROBE, len(images)))])
    with _encoding(method, config):
        batch = batch.to(config.device, memory_format=torch.channels_last)
        bits = _codes(method, batch).bits
        if bits != config.bits:
            raise HashbenchError(f"{_name(method)} gives codes of {bits} bits, not of {config.bits}")
        values = method.encode(batch)
        others = {
            "order": method.encode(batch.flip(0)).flip(0),
            "size": torch.cat([method.encode(batch[i : i + 1]) for i in range(len(batch))]),
        }
    for what, other in others.items():
        difference = (other - values).abs().max().item()
        if difference > 1e-3 * values.abs().max().item():
            raise HashbenchError(
                f"{_name(method)}.encode depends on the {what} of the batch (values differ by "
                f"{difference:.2g}); a code must be a function of its image alone"
            )


@contextmanager
def _encoding(method: HashMethod, config: RunConfig) -> Iterator[None]:
    method.to(config.device).to(memory_format=torch.channels_last).eval()
    # TensorFloat-32, a GPU's default for convolutions, rounds by batch size.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    # Not inference_mode: what a network caches in it could not be trained with.
    with torch.no_grad(), exact:
        yield


def _codes(method: HashMethod, batch: Tensor) -> BinaryCodes:
    try:
        return method.codes(batch)
    except UsageError as error:  # not the user's: the method's values are no codes
        raise HashbenchError(f"{_name(method)}: {error}") from error


def _name(method: HashMethod) -> str:
    return type(method).__name__


class _TestImages(Dataset[Tensor]):
    def __init__(self, images: Images, config: RunConfig) -> None:
        self.images, self.transform = images, test_transform(config.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        tensor: Tensor = self.transform(self.images[index])
        return tensor
