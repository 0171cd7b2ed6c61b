"""Protocols, and functions to draw and compare splits into training, query and database images."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.errors import TooFewImagesError


@dataclass(frozen=True)
class Protocol:
    """A named way to split a dataset.

    Attributes:
        definition: How the parts are drawn, in one line.
        query: Number of queries; None: it depends on the data.
        train: Number of training images; None: it depends on the data.
        database: Number of database images; None: it depends on the data.
    """

    definition: str
    query: int | None = None
    train: int | None = None
    database: int | None = None

    @property
    def counts(self) -> dict[str, int | None]:
        """Number of images by part."""
        return {"query": self.query, "train": self.train, "database": self.database}

    def scaled(self, fraction: float) -> Protocol:
        """Return the protocol with a fraction of the images in each part."""
        counts = (count and fraction_of(count, fraction) for count in self.counts.values())
        return Protocol(self.definition, *counts)

    def differences(self, query: int, train: int, database: int) -> list[str]:
        """Return a text for each part of a split whose number of images is not the one of the protocol."""
        found = {"query": query, "train": train, "database": database}
        return [
            f"{part} has {found[part]:,} images, not {count:,}"
            for part, count in self.counts.items()
            if count is not None and found[part] != count
        ]


def fraction_of(images: int, fraction: float) -> int:
    """Return the number of images to draw for a fraction of them, at least one."""
    return max(1, round(fraction * images))


SPLIT = "split"
BY_RATIO = Protocol(
    "a fraction of the images (--data query_ratio=0.1) are queries, the others the database; all or a "
    "fraction of these (--data train_ratio=1) are the training images; drawn by the seed"
)
"""The protocol of `draw_by_ratio`."""


MAX_LIMIT = 999_999_999


def limit_of(protocol: str) -> int | None:
    """Return the number N of images of each part in the name `…-limitN` of a protocol; None without it."""
    found = re.fullmatch(r".+-limit([1-9]\d{0,8})", protocol)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Overlaps:
    """Numbers of images that the parts of a split share, by id.

    Attributes:
        query_database: Queries that are also in the database; such a query retrieves itself.
        query_train: Queries that are also training images.
        train_database: Training images that are also in the database, as in many protocols.
    """

    query_database: int
    query_train: int
    train_database: int


def overlaps(train: Sequence[str], query: Sequence[str], database: Sequence[str]) -> Overlaps:
    """Count the ids that the parts of a split share."""
    train_ids, query_ids, database_ids = set(train), set(query), set(database)
    return Overlaps(
        query_database=len(query_ids & database_ids),
        query_train=len(query_ids & train_ids),
        train_database=len(train_ids & database_ids),
    )


def fingerprint(
    train: tuple[Sequence[str], NDArray[Any]],
    query: tuple[Sequence[str], NDArray[Any]],
    database: tuple[Sequence[str], NDArray[Any]],
) -> str:
    r"""Return a digest that identifies a split.

    It is the SHA-256 of three ASCII lines, one for each of `train`, `query` and `database` in this order.
    A line is `[part,[[id,[class,...]],...]]` as JSON without spaces, with non-ASCII characters as `\uXXXX`,
    and ends with a newline. The images are in the order of the part; the classes of an image are its label
    columns, from 0, in ascending order. Therefore class ids and multi-hot rows of the same classes give the
    same digest, and a different order of the images, which trains different weights, gives another.

    Args:
        train: Ids and labels of the training images; labels are multi-hot [n, C] or class ids [n].
        query: Ids and labels of the queries.
        database: Ids and labels of the database images.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, (ids, labels) in (("train", train), ("query", query), ("database", database)):
        rows = list(zip(ids, class_lists(labels), strict=True))
        digest.update(json.dumps([name, rows], separators=(",", ":")).encode("ascii") + b"\n")
    return digest.hexdigest()


def class_lists(labels: NDArray[Any]) -> list[list[int]]:
    """Return the classes of each image in ascending order."""
    if labels.ndim == 1:
        return [[label] for label in labels.tolist()]
    rows, columns = np.nonzero(labels)
    ends = np.cumsum(np.bincount(rows, minlength=len(labels))).tolist()
    flat = columns.tolist()
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def draw_per_class(class_ids: NDArray[Any], counts: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Draw disjoint groups of images, each with the same number of images per class.

    The random numbers are from `numpy.random.RandomState`, whose streams NumPy has frozen. The streams of
    `numpy.random.Generator` may change with a release, which would change the protocols.

    Args:
        class_ids: The class of each image [n], integers.
        counts: Number of images per class for each group.
        seed: Random seed.

    Returns:
        An array of ascending indices for each group, and one for the remaining images.

    Raises:
        TooFewImagesError: A class has too few images.
    """
    random = np.random.RandomState(seed)
    group = np.full(len(class_ids), len(counts))
    classes = np.unique(class_ids)
    for class_id in classes:
        members = np.flatnonzero(class_ids == class_id)
        if len(members) < sum(counts):
            raise _too_few(
                sum(counts) * len(classes),
                len(class_ids),
                f"{sum(counts):,} per class, and class {class_id} has {len(members):,}",
            )
        drawn = random.permutation(members)[: sum(counts)]
        group[drawn] = np.repeat(np.arange(len(counts)), counts)
    return [np.flatnonzero(group == index) for index in range(len(counts) + 1)]


def draw(total: int, counts: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Draw disjoint groups of images by one permutation, independent of their classes; see `draw_per_class`.

    Args:
        total: Number of images.
        counts: Number of images for each group.
        seed: Random seed.

    Returns:
        An array of ascending indices for each group, and one for the remaining images.

    Raises:
        TooFewImagesError: There are too few images.
    """
    if total < sum(counts):
        raise _too_few(sum(counts), total)
    order = np.random.RandomState(seed).permutation(total)
    return [np.sort(group) for group in np.split(order, np.cumsum(counts))]


def draw_by_quota(
    labels: NDArray[np.uint8],
    quotas: Sequence[int],
    seed: int,
    *,
    only: NDArray[np.bool_] | None = None,
    class_names: Sequence[str] | None = None,
) -> list[NDArray[np.int64]]:
    """Draw disjoint groups of images with several labels, by a quota per class for each group.

    In random order, each image counts for the first of its classes whose quota is not yet filled, in the
    first group where it is not. Each quota is filled exactly, but a group has more images with a label than
    its quota. This is the rule of swuxyj/DeepHash-pytorch at ab14068, `data/nuswide_21/code.py`.

    Args:
        labels: Multi-hot [n, C].
        quotas: Quota per class for each group.
        seed: Random seed.
        only: Mask [n] of the images that may be drawn; None: all.
        class_names: Names of the classes for errors; None: their numbers.

    Returns:
        An array of ascending indices for each group, and one for the remaining images.

    Raises:
        TooFewImagesError: A class has too few images to fill its quotas.
    """
    unfilled = [[quota] * labels.shape[1] for quota in quotas]
    group = np.full(len(labels), len(quotas))
    classes = class_lists(labels)
    for image in np.random.RandomState(seed).permutation(len(labels)).tolist():
        if only is not None and not only[image]:
            continue
        for label in classes[image]:
            chosen = next((index for index, left in enumerate(unfilled) if left[label]), None)
            if chosen is not None:
                unfilled[chosen][label] -= 1
                group[image] = chosen
                break
    for label in range(labels.shape[1]):
        if any(left[label] for left in unfilled):
            name = class_names[label] if class_names else f"class {label}"
            raise _too_few(
                sum(quotas) * labels.shape[1],
                int(labels.any(axis=1).sum()),
                f"{sum(quotas):,} per class; {int(labels[:, label].sum()):,} have the label {name}, some of "
                "which are drawn for other classes",
            )
    return [np.flatnonzero(group == index) for index in range(len(quotas) + 1)]


def draw_by_ratio(
    labels: NDArray[Any], query_ratio: float, train_ratio: float, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Draw a fraction of the images as queries, per class if each image has one class.

    Args:
        labels: Multi-hot [n, C] or class ids [n].
        query_ratio: Fraction of the images to use as queries; the others are the database.
        train_ratio: Fraction of the database to use as training images.
        seed: Random seed.

    Returns:
        Ascending row indices of "query", "train" and "database".

    Raises:
        TooFewImagesError: No class has two images.
    """
    random = np.random.RandomState(seed)
    if labels.ndim == 2 and (labels.sum(axis=1) == 1).all():
        labels = labels.argmax(axis=1)
    groups = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)
    query: list[int] = []
    for group in np.unique(groups):
        rows = random.permutation(np.flatnonzero(groups == group))
        query += rows[: min(fraction_of(len(rows), query_ratio), len(rows) - 1)].tolist()
    if not query:
        raise TooFewImagesError("too few images; a class needs two images to have a query")
    database = np.setdiff1d(np.arange(len(labels)), query)
    train = np.sort(random.permutation(database)[: fraction_of(len(database), train_ratio)])
    return {"query": np.sort(query), "train": train, "database": database}


def _too_few(needed: int, found: int, details: str = "") -> TooFewImagesError:
    """Return the error for too few labelled images; `read_dataset` adds what to do."""
    return TooFewImagesError(
        f"the protocol draws {needed:,} labelled images, and there are {found:,}"
        f"{f' ({details})' if details else ''}"
    )
