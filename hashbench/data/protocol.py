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
class Protocol:
    """A named way to split a dataset.

    Attributes:
        definition: What is drawn, and how, in one line.
        query: Number of queries; None: the data decides.
        train: Number of training images; None: the data decides.
        database: Number of database images; None: the data decides.
    """

    definition: str
    query: int | None = None
    train: int | None = None
    database: int | None = None

    @property
    def counts(self) -> dict[str, int | None]:
        """The numbers by part."""
        return {"query": self.query, "train": self.train, "database": self.database}

    def differences(self, query: int, train: int, database: int) -> list[str]:
        """How a split with these numbers of images differs, one text for each part that does."""
        found = {"query": query, "train": train, "database": database}
        return [
            f"{part} has {found[part]:,} images, not {count:,}"
            for part, count in self.counts.items()
            if count is not None and found[part] != count
        ]


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


def draw(total: int, counts: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Draw disjoint groups of images by one permutation, whatever their classes; see `draw_per_class`.

    Args:
        total: How many images there are.
        counts: How many images to give to each group.
        seed: Seed of the draw.

    Returns:
        One array of ascending indices a group, and last that of the images that are in no group.

    Raises:
        HashbenchError: There are too few images.
    """
    if total < sum(counts):
        raise HashbenchError(f"there are {total:,} images, the protocol draws {sum(counts):,}")
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
    """Fill, with images of several labels each, a quota a class of each group.

    In random order, an image goes to the first of its classes that has a place left, in the first group that
    has it there, and takes that place. So a group has exactly its quota of places for each class, and more
    images than that with the label. This is the rule of swuxyj/DeepHash-pytorch at ab14068,
    `data/nuswide_21/code.py`.

    Args:
        labels: Multi-hot [n, C].
        quotas: Places a class in each group.
        seed: Seed of the draw.
        only: True [n] for the images that may be drawn; None: all.
        class_names: What to call the classes in errors; None: by number.

    Returns:
        One array of ascending indices a group, and last that of the images that are in no group.

    Raises:
        HashbenchError: A class has too few images to fill its places.
    """
    places = [[quota] * labels.shape[1] for quota in quotas]
    group = np.full(len(labels), len(quotas))
    rows, columns = np.nonzero(labels)
    ends = np.searchsorted(rows, np.arange(len(labels) + 1)).tolist()
    flat = columns.tolist()
    for image in np.random.RandomState(seed).permutation(len(labels)).tolist():
        if only is not None and not only[image]:
            continue
        for label in flat[ends[image] : ends[image + 1]]:
            chosen = next((index for index, left in enumerate(places) if left[label]), None)
            if chosen is not None:
                places[chosen][label] -= 1
                group[image] = chosen
                break
    if unfilled := [label for label in range(labels.shape[1]) if any(left[label] for left in places)]:
        label = unfilled[0]
        name = class_names[label] if class_names else f"class {label}"
        raise HashbenchError(
            f"{name} has too few images for the protocol, which draws {sum(quotas):,} for each class; "
            f"{int(labels[:, label].sum()):,} have the label, some of them drawn for others"
        )
    return [np.flatnonzero(group == index) for index in range(len(quotas) + 1)]
