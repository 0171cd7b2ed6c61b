"""Validation images, and the evaluation of a method during and after training."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashbench import distributed
from hashbench.codes import BinaryCodes, Codes
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset, Split
from hashbench.encoding.encode import encode, encode_queries
from hashbench.errors import UsageError
from hashbench.evaluation import Evaluation, Labels, count_graded_pairs, count_pairs, evaluate
from hashbench.experiment.relevance import relevant_images
from hashbench.images.image_sets import Images
from hashbench.method.base import HashMethod
from hashbench.runtime.torch_errors import ENCODE_LESS, translate_errors


class ValidationSplit(NamedTuple):
    """The images that a run trains on, and those that select its epoch.

    Attributes:
        train: The training images.
        query: The images to search for; None if the last epoch is used.
        database: The images to search; None if the last epoch is used.
    """

    train: Images
    query: Split | None
    database: Split | None


def hold_out(dataset: Dataset, config: RunConfig) -> ValidationSplit:
    """Split a dataset into the images to train on and those that select the epoch.

    The validation images are those of the protocol, and are searched for in the database. If the protocol has
    none, they are drawn from the training images, once for all seeds, and are searched for in the remaining
    training images. Training images that are also queries are never used for validation. Finally,
    `training.max_images` limits the images to train on, but not those that are searched.

    Raises:
        UsageError: There are too few training images.
    """
    split = _validation_split(dataset, config)
    images, limit = split.train, config.training.max_images
    if limit is None or len(images) <= limit:
        return split
    return split._replace(train=images.subset(_draw(np.arange(len(images)), limit)))


def _draw(rows: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Draw rows without replacement, the same for all seeds of a run, in ascending order."""
    return np.sort(np.random.default_rng(0).choice(rows, size, replace=False))


def _validation_split(dataset: Dataset, config: RunConfig) -> ValidationSplit:
    if config.selection.name == "last":
        return ValidationSplit(dataset.train, None, None)
    if config.selection.name == "best-on-query":
        return ValidationSplit(dataset.train, dataset.query, dataset.database)
    if dataset.validation is not None:
        return ValidationSplit(dataset.train, dataset.validation, dataset.database)
    if dataset.train_labels.shape[1:] == (0,) and config.evaluation.relevance == "labels":
        raise UsageError(
            "selection=best-val draws validation images from the training images, which have no labels; use "
            "--set selection=last"
        )
    queries = set(dataset.query.images.ids)
    candidates = np.array([row for row, name in enumerate(dataset.train.ids) if name not in queries])
    size = config.selection.validation
    if len(candidates) < 2 * size:
        raise UsageError(
            f"selection=best-val: expected at least {2 * size:,} training images that are not queries, to "
            f"use {size:,} of them for validation, got {len(candidates):,}; try a smaller "
            "--set selection.validation=…"
        )
    drawn = _draw(candidates, size)
    rest = np.setdiff1d(np.arange(len(dataset.train)), drawn)
    train = Split(dataset.train, dataset.train_labels)
    database = train.subset(rest)
    return ValidationSplit(database.images, train.subset(drawn), database)


def scorer(query: Split, database: Split, config: RunConfig, workers: int) -> Callable[[HashMethod], float]:
    """Return a function that computes the mAP of a method at the first cutoff of `evaluation.k`."""
    relevant = relevant_images(query, database, config, workers)

    def score(method: HashMethod) -> float:
        with translate_errors(config, "validation", ENCODE_LESS):
            codes = (
                encode_queries(method, query.images, config, workers=workers, task="validate"),
                encode(method, database.images, config, workers=workers, task="validate"),
            )
            measured = evaluate_together(*codes, relevant, config)
        return measured.mean_average_precision(config.evaluation.k[0])

    return score


def evaluate_together(
    query: Codes | NDArray[np.float32],
    database: Codes,
    relevant: Mapping[str, Any],
    config: RunConfig,
) -> Evaluation:
    """Evaluate codes with the settings of a run, in all processes together.

    Each process counts its shard of the database, and the counts are summed. Distances of product codes have
    no counts, and neighbours are few, so every process then evaluates the whole database.

    Args:
        query: Codes of the queries, as `encode_queries` returns them.
        database: Codes of the database.
        relevant: Which images are relevant, from `relevant_images`.
        config: The configuration of the run.
    """
    settings = config.evaluation.arguments
    if (
        distributed.world_size() == 1
        or not (isinstance(query, BinaryCodes) and isinstance(database, BinaryCodes))
        or "neighbours" in relevant
    ):
        return evaluate(query, database, **relevant, **settings, device=config.device)
    own = distributed.shard(len(database))
    query_labels = Labels.from_array(relevant["query_labels"])
    database_labels = Labels.from_array(relevant["database_labels"][own])
    pairs = query, database[own], query_labels, database_labels
    graded = settings.pop("graded")
    counted: Any = None
    if own.start < own.stop:
        counted = count_graded_pairs(*pairs) if graded else count_pairs(*pairs, device=config.device)
    counts = functools.reduce(operator.add, [part for part in distributed.all_gather_object(counted) if part])
    return Evaluation(counts.counts, **settings, graded=counts) if graded else Evaluation(counts, **settings)
