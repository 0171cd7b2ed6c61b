"""Encoding of images to codes, and the check that a code depends on its image alone."""

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
    apply,
    batches,
    inference_mode,
)
from hashbench.errors import HashbenchError, UsageError
from hashbench.images.image_sets import Images
from hashbench.method.base import FeatureMethod, HashMethod

PROBE = 8  # images that `check_encoder` encodes


def encode(
    method: HashMethod,
    images: Images,
    config: RunConfig,
    *,
    workers: int,
    task: str,
    extractor: FeatureExtractor | None = None,
) -> Codes:
    """Encode images in evaluation mode, with the features of an extractor if possible.

    Returns:
        Codes in the order of the images.

    Raises:
        HashbenchError: The method does not pass `check_encoder`, or returns NaN.
    """
    values = _values(method, images, config, workers, task, extractor)
    with _as_method_error(method):
        return method.codes(values)


def encode_queries(
    method: HashMethod,
    images: Images,
    config: RunConfig,
    *,
    workers: int,
    task: str,
    extractor: FeatureExtractor | None = None,
) -> Codes | NDArray[np.float32]:
    """Encode images like `encode`, but by the method's `HashMethod.query_codes`."""
    values = _values(method, images, config, workers, task, extractor)
    with _as_method_error(method):
        return method.query_codes(values)


def check_encoder(method: HashMethod, images: Images, config: RunConfig) -> None:
    """Check on a few images that codes have the right length and do not depend on the rest of the batch.

    The check compares float32 values rather than signs, because the rounding error depends on the batch and
    can change the sign of a value near 0.

    Raises:
        HashbenchError: The check failed.
        UsageError: The configuration has graded metrics, which product codes do not have.
    """
    probe = TransformedImages(images, config)
    batch = torch.stack([probe[index] for index in range(min(PROBE, len(images)))])
    with inference_mode(method, config):
        batch = batch.to(config.device, memory_format=torch.channels_last)
        values = apply(method.encode, batch, config)
        others = {
            "order": apply(method.encode, batch.flip(0), config).flip(0),
            "size": torch.cat([apply(method.encode, image[None], config) for image in batch]),
        }
        if config.evaluation.precision_encode != "float32":  # a method may fail in it
            apply(method.encode, batch, config, config.evaluation.precision_encode)
    with _as_method_error(method):
        codes = method.codes(values)
        method.query_codes(values)
    if codes.bits != config.bits:
        raise HashbenchError(
            f"{type(method).__name__}: expected codes of {config.bits} bits, got {codes.bits}"
        )
    if config.evaluation.graded and isinstance(codes, ProductCodes):
        raise UsageError(
            f"{config.method} returns product codes, which have no NDCG and ACG; leave out graded=true"
        )
    for what, other in others.items():
        difference = (other - values).abs().max().item()
        if difference > 1e-3 * values.abs().max().item():
            raise HashbenchError(
                f"{type(method).__name__}.encode depends on the {what} of the batch (values differ by "
                f"{difference:.2g}); the code of an image must not depend on other images"
            )


def feature_extractor(method: HashMethod, config: RunConfig, workers: int) -> FeatureExtractor | None:
    """Return the extractor of a method on features of a frozen backbone; None for any other method."""
    if isinstance(method, FeatureMethod) and method.backbone.frozen:
        return FeatureExtractor(method.backbone, config, workers)
    return None


def _values(
    method: HashMethod,
    images: Images,
    config: RunConfig,
    workers: int,
    task: str,
    extractor: FeatureExtractor | None,
) -> Tensor:
    """Return the output of `HashMethod.encode` for all images, on the CPU.

    Each process encodes its shard in whole batches. The batches, and so the values, are those of one process.
    """
    check_encoder(method, images, config)

    def values() -> Iterator[Tensor]:
        own = distributed.shard(len(images), BATCH_SIZE)
        features = extractor or feature_extractor(method, config, workers)
        if features is not None and isinstance(method, FeatureMethod):
            for batch in torch.split(features(images, task)[own], BATCH_SIZE):
                # A copy, since a method may work in place and the features are cached.
                yield method.encode_features(batch.to(config.device, copy=True))
        else:
            part = images if distributed.world_size() == 1 else images.subset(np.arange(own.start, own.stop))
            for batch in batches(part, config, workers=workers, task=task):
                yield apply(method.encode, batch, config, config.evaluation.precision_encode)

    with inference_mode(method, config):
        own_values = [batch.cpu() for batch in values()]
    found = torch.cat([batch for part in distributed.all_gather_object(own_values) for batch in part])
    if undefined := int(found.isnan().any(1).sum()):
        raise HashbenchError(
            f"{type(method).__name__}: encode() returned NaN for {undefined} of {len(found)} images; "
            "fix the method's encode()"
        )
    return found


@contextmanager
def _as_method_error(method: HashMethod) -> Iterator[None]:
    """Raise a UsageError about values as a HashbenchError, since the method is wrong and not its user."""
    try:
        yield
    except UsageError as error:
        raise HashbenchError(f"{type(method).__name__}: {error}") from error
