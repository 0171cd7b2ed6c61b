"""Measuring a method: with what an epoch is chosen by, and by all processes together."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench import distributed
from hashbench.codes import BinaryCodes, Codes
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset, Split
from hashbench.encoding.encode import encode, encode_queries
from hashbench.errors import UsageError
from hashbench.evaluation import Evaluation, Labels, count_graded_pairs, count_pairs, evaluate
from hashbench.images.image_sets import Images
from hashbench.method.base import HashMethod
from hashbench.runtime.torch_errors import ENCODE_LESS, translate_errors


def hold_out(dataset: Dataset, config: RunConfig) -> tuple[Images, Split | None, Split | None]:
    """What a run trains on, and what it searches for, and where, to choose its epoch.

    Validation images are those of the protocol, searched for in the database. A protocol without any gives
    training images instead, which are drawn once for all seeds, are not trained on, and are searched for in
    the other training images; training images that are also queries are never drawn.

    Args:
        dataset: The dataset.
        config: The run.

    Returns:
        The training images; then the images to search for and those to search, None where the last epoch
        counts.

    Raises:
        UsageError: There are too few training images.
    """
    if config.selection.name == "last":
        return dataset.train, None, None
    if config.selection.name == "best-on-query":
        return dataset.train, dataset.query, dataset.database
    if dataset.validation is not None:
        return dataset.train, dataset.validation, dataset.database
    asked = set(dataset.query.images.ids)
    free = np.array([place for place, name in enumerate(dataset.train.ids) if name not in asked])
    wanted = config.selection.validation
    if len(free) < 2 * wanted:
        raise UsageError(
            f"selection=best-val: {len(free):,} training images, queries apart, are too few to take "
            f"{wanted:,} of them for validation; try a smaller --set selection.validation=…"
        )
    drawn = np.sort(np.random.default_rng(0).choice(free, wanted, replace=False))
    rest = np.setdiff1d(np.arange(len(dataset.train)), drawn)
    train = Split(dataset.train, dataset.train_labels)
    searched = train.subset(rest)
    return searched.images, train.subset(drawn), searched


def scorer(query: Split, database: Split, config: RunConfig, workers: int) -> Callable[[HashMethod], float]:
    """A function that gives the mAP of a method at the first of `evaluation.k`.

    Args:
        query: What is searched for.
        database: What is searched.
        config: The run.
        workers: Processes that load images.
    """

    def score(method: HashMethod) -> float:
        with translate_errors(config, "looking at the mAP", ENCODE_LESS):
            codes = (
                encode_queries(method, query.images, config, workers=workers, task="validate"),
                encode(method, database.images, config, workers=workers, task="validate"),
            )
            measured = evaluate_together(*codes, query.labels, database.labels, config)
        return measured.mean_average_precision(config.evaluation.k[0])

    return score


def evaluate_together(
    query: Codes | NDArray[np.float32],
    database: Codes,
    query_labels: NDArray[Any],
    database_labels: NDArray[Any],
    config: RunConfig,
) -> Evaluation:
    """Evaluate codes as a run wants it; each process counts its share of the database, and counts add up.

    Distances of product codes have no counts, so that every process ranks the whole database.

    Args:
        query: Codes of the queries, in the form that the method gives them.
        database: Codes of the database.
        query_labels: Multi-hot [queries, C] or class ids [queries].
        database_labels: The same of the database.
        config: The run.
    """
    settings = config.evaluation.model_dump()
    if distributed.world_size() == 1 or not (
        isinstance(query, BinaryCodes) and isinstance(database, BinaryCodes)
    ):
        return evaluate(query, database, query_labels, database_labels, **settings, device=config.device)
    own = distributed.shard(len(database))
    pairs = query, database[own], Labels.from_array(query_labels), Labels.from_array(database_labels[own])
    graded = settings.pop("graded")
    counted: Any = None
    if own.start < own.stop:
        counted = count_graded_pairs(*pairs) if graded else count_pairs(*pairs, device=config.device)
    counts = functools.reduce(operator.add, [part for part in distributed.all_gather_object(counted) if part])
    return Evaluation(counts.counts, **settings, graded=counts) if graded else Evaluation(counts, **settings)
