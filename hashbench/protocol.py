"""Splits into training, query and database images: drawing them, naming them, checking them for leaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.errors import HashbenchError


@dataclass(frozen=True)
class Overlaps:
    """How many images two parts of a split share, by id.

    Attributes:
        query_database: Queries that are also in the database; such a query finds itself.
        query_train: Queries that are also training images.
        train_database: Training images that are also in the database; many protocols mean it so.
    """

    query_database: int
    query_train: int
    train_database: int


def overlaps(train: Sequence[str], query: Sequence[str], database: Sequence[str]) -> Overlaps:
    """Count the ids that the parts of a split share.

    Args:
        train: The ids of the training images.
        query: The ids of the queries.
        database: The ids of the database images.
    """
    trained, asked, stored = set(train), set(query), set(database)
    return Overlaps(
        query_database=len(asked & stored),
        query_train=len(asked & trained),
        train_database=len(trained & stored),
    )


def fingerprint(
    train: tuple[Sequence[str], NDArray[Any]],
    query: tuple[Sequence[str], NDArray[Any]],
    database: tuple[Sequence[str], NDArray[Any]],
) -> str:
    r"""The digest that tells two splits apart.

    It is the SHA-256 of three lines of ASCII, one for each of `train`, `query` and `database` in this order.
    A line is `[part,[[id,[class,...]],...]]` as JSON without blanks, non-ASCII characters as `\uXXXX`,
    ended by one newline. The images stand in the order of the part, the classes of an image are its
    0-based columns in ascending order. So class ids and multi-hot rows of the same classes give the same
    digest, and another order of the images, which trains other weights, gives another.

    Args:
        train: Ids and labels of the training images; the labels are multi-hot [n, C] or class ids [n].
        query: Ids and labels of the queries.
        database: Ids and labels of the database images.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, (ids, labels) in (("train", train), ("query", query), ("database", database)):
        rows = list(zip(ids, _classes(labels), strict=True))
        digest.update(json.dumps([name, rows], separators=(",", ":")).encode("ascii") + b"\n")
    return digest.hexdigest()


def _classes(labels: NDArray[Any]) -> list[list[int]]:
    """The classes of each image, ascending."""
    if labels.ndim == 1:
        return [[label] for label in labels.tolist()]
    rows, columns = np.nonzero(labels)
    ends = np.cumsum(np.bincount(rows, minlength=len(labels))).tolist()
    flat = columns.tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def draw_per_class(class_ids: NDArray[Any], counts: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Draw disjoint groups of images, each with the same number of images of every class.

    The draw uses `numpy.random.RandomState`, whose streams NumPy has frozen for ever; those of
    `numpy.random.Generator` may change with a release, and a protocol must not.

    Args:
        class_ids: The class of each image [n], integers.
        counts: How many images a class give to each group.
        seed: Seed of the draw.

    Returns:
        One array of ascending indices a group, and last that of the images that are in no group.

    Raises:
        HashbenchError: A class has too few images.
    """
    random = np.random.RandomState(seed)
    group = np.full(len(class_ids), len(counts))
    for class_id in np.unique(class_ids):
        members = np.flatnonzero(class_ids == class_id)
        if len(members) < sum(counts):
            raise HashbenchError(
                f"class {class_id} has {len(members):,} images, the protocol draws {sum(counts):,} of each"
            )
        drawn = random.permutation(members)[: sum(counts)]
        group[drawn] = np.repeat(np.arange(len(counts)), counts)
    return [np.flatnonzero(group == index) for index in range(len(counts) + 1)]
