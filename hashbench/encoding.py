"""Images to codes, each image on its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from hashbench.codes import BinaryCodes
from hashbench.config import RunConfig
from hashbench.dataset import Images
from hashbench.errors import HashbenchError
from hashbench.images import test_transform
from hashbench.method import HashMethod
from hashbench.progress import progress

BATCH_SIZE = 128
PROBE = 8  # images on which a method's independence of the batch is checked


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
        HashbenchError: The code of an image depends on the other images of its batch.
    """
    device = torch.device(config.device)
    method.to(device, memory_format=torch.channels_last).eval()
    loader = DataLoader(
        _TestImages(images, test_transform(config.images)), batch_size=BATCH_SIZE, num_workers=workers
    )
    codes: list[BinaryCodes] = []
    with torch.inference_mode(), progress(task, len(images)) as advance:
        for batch in loader:
            batch = batch.to(device, memory_format=torch.channels_last)
            if not codes:
                check_codes_are_per_image(method, batch[:PROBE])
            codes.append(method.codes(batch))
            advance(len(batch))
    return BinaryCodes.concatenate(codes)


def check_codes_are_per_image(method: HashMethod, images: Tensor) -> None:
    """Check that images [n, 3, H, W] get the same values in a batch, in another order and alone.

    Values are compared and not signs, since rounding, which does depend on the batch, can turn the sign of a
    value at 0.

    Raises:
        HashbenchError: They do not.
    """
    together = method.encode(images)
    others = {
        "order": method.encode(images.flip(0)).flip(0),
        "size": torch.cat([method.encode(images[i : i + 1]) for i in range(len(images))]),
    }
    tolerance = 1e-3 * together.abs().max().item()
    for what, values in others.items():
        difference = (values - together).abs().max().item()
        if difference > tolerance:
            raise HashbenchError(
                f"{type(method).__name__}.encode depends on the {what} of the batch (values differ by "
                f"{difference:.2g}): a code must be a function of its image alone"
            )


class _TestImages(Dataset[Tensor]):
    def __init__(self, images: Images, transform: v2.Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        tensor: Tensor = self.transform(self.images[index])
        return tensor
