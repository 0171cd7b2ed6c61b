"""Images to codes, each image on its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashbench import distributed
from hashbench.codes import Codes, ProductCodes
from hashbench.config import RunConfig
from hashbench.encoding.features import (
    BATCH_SIZE,
    FeatureExtractor,
    TransformedImages,
    batches,
    inference_mode,
)
from hashbench.errors import HashbenchError, UsageError
from hashbench.images.image_sets import Images
from hashbench.method.base import FeatureMethod, HashMethod

PROBE = 8  # images on which a method's contract is checked


def encode(method: HashMethod, images: Images, config: RunConfig, *, workers: int, task: str) -> Codes:
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
    values = _values(method, images, config, workers, task)
    with _as_method_error(method):
        return method.codes(values)


def encode_queries(
    method: HashMethod, images: Images, config: RunConfig, *, workers: int, task: str
) -> Codes | NDArray[np.float32]:
    """As `encode`, but in the form that the method gives queries; see `HashMethod.query_codes`."""
    values = _values(method, images, config, workers, task)
    with _as_method_error(method):
        return method.query_codes(values)


def check_encoder(method: HashMethod, images: Images, config: RunConfig) -> None:
    """Check on a few images that a method gives codes of the right length, each from its image alone.

    In another batch an image must get the same values. Signs are not compared, since rounding, which does
    depend on the batch, can turn the sign of a value at 0.

    Raises:
        HashbenchError: It does not.
    """
    probe = TransformedImages(images, config)
    batch = torch.stack([probe[index] for index in range(min(PROBE, len(images)))])
    with inference_mode(method, config):
        batch = batch.to(config.device, memory_format=torch.channels_last)
        values = method.encode(batch)
        others = {
            "order": method.encode(batch.flip(0)).flip(0),
            "size": torch.cat([method.encode(batch[i : i + 1]) for i in range(len(batch))]),
        }
    with _as_method_error(method):
        codes = method.codes(values)
        method.query_codes(values)
    if codes.bits != config.bits:
        raise HashbenchError(f"{_name(method)} gives codes of {codes.bits} bits, not of {config.bits}")
    if config.evaluation.graded and isinstance(codes, ProductCodes):
        raise UsageError(
            f"{config.method} gives product codes, which have no NDCG and ACG; leave out graded=true"
        )
    for what, other in others.items():
        difference = (other - values).abs().max().item()
        if difference > 1e-3 * values.abs().max().item():
            raise HashbenchError(
                f"{_name(method)}.encode depends on the {what} of the batch (values differ by "
                f"{difference:.2g}); a code must be a function of its image alone"
            )


def _values(method: HashMethod, images: Images, config: RunConfig, workers: int, task: str) -> Tensor:
    """The values of `HashMethod.encode` for all images, on the CPU.

    Several processes share the work in whole batches, so that an image is in the same batch, and its values
    are the same, as in one process.
    """
    check_encoder(method, images, config)

    def values() -> Iterator[Tensor]:
        own = distributed.shard(len(images), BATCH_SIZE)
        if isinstance(method, FeatureMethod) and method.backbone.frozen:
            features = FeatureExtractor(method.backbone, config, workers)(images, task)
            for batch in torch.split(features[own], BATCH_SIZE):
                # A copy, since what is kept is not the method's to change.
                yield method.encode_features(batch.to(config.device, copy=True))
        else:
            part = images if distributed.world_size() == 1 else images.subset(np.arange(own.start, own.stop))
            for batch in batches(part, config, workers=workers, task=task):
                yield method.encode(batch)

    with inference_mode(method, config):
        own_values = [batch.cpu() for batch in values()]
    found = torch.cat([batch for part in distributed.all_gather_object(own_values) for batch in part])
    if undefined := int(found.isnan().any(1).sum()):
        raise HashbenchError(
            f"{_name(method)}: {undefined} of {len(found)} images have the value NaN; mend encode"
        )
    return found


@contextmanager
def _as_method_error(method: HashMethod) -> Iterator[None]:
    """Values that are no codes are the method's fault, not the user's."""
    try:
        yield
    except UsageError as error:
        raise HashbenchError(f"{_name(method)}: {error}") from error


def _name(method: HashMethod) -> str:
    return type(method).__name__
