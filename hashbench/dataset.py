"""What a dataset is: images to train on, queries, a database. A dataset plugin returns one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashbench.errors import HashbenchError
from hashbench.protocol import Overlaps, fingerprint, overlaps


class Images(ABC):
    """An ordered set of images without labels; all that the training of a method sees.

    It must pickle, because worker processes read from copies of it.

    Attributes:
        ids: One id an image, unique within the set and the same on every machine.
    """

    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> Image.Image:
        """The image at a position, in RGB.

        Raises:
            IndexError: There is no such position.
            HashbenchError: The image cannot be read.
        """


class ArrayImages(Images):
    """Images held in memory."""

    def __init__(self, array: NDArray[np.uint8], ids: Sequence[str]) -> None:
        """Keep a reference to the array.

        Args:
            array: Grey [n, height, width] or RGB [n, height, width, 3], uint8.
            ids: One id an image.

        Raises:
            HashbenchError: The array is of another type or shape, or has not one image for each id.
        """
        if array.dtype != np.uint8 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
            raise HashbenchError(
                "images in memory must be uint8 [n, height, width] or [n, height, width, 3], "
                f"not {array.dtype} {list(array.shape)}"
            )
        _same_length("images", len(array), "ids", len(ids))
        self._array = array
        self.ids = tuple(ids)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self._array[index]).convert("RGB")

    def subset(self, indices: NDArray[np.integer[Any]]) -> ArrayImages:
        """The images at some positions, in the order given.

        Args:
            indices: Positions, integers [m].
        """
        return ArrayImages(self._array[indices], [self.ids[index] for index in indices])


class FileImages(Images):
    """Images in files, each decoded when it is asked for."""

    def __init__(self, paths: Sequence[str | Path], ids: Sequence[str]) -> None:
        """Look at no file yet.

        Args:
            paths: The file of each image.
            ids: One id an image.

        Raises:
            HashbenchError: There is not one path for each id.
        """
        _same_length("paths", len(paths), "ids", len(ids))
        self._paths = tuple(
            os.fspath(path) for path in paths
        )  # a Path takes several times the memory of a string
        self.ids = tuple(ids)

    def __getitem__(self, index: int) -> Image.Image:
        from hashbench.images import decode  # imports torch, which describing a dataset must not

        return decode(Path(self._paths[index]))

    def subset(self, indices: NDArray[np.integer[Any]]) -> FileImages:
        """The images at some positions, in the order given.

        Args:
            indices: Positions, integers [m].
        """
        return FileImages([self._paths[index] for index in indices], [self.ids[index] for index in indices])


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels: one part of a dataset.

    Attributes:
        images: The images.
        labels: Multi-hot uint8 [n, C], or class ids int64 [n].
    """

    images: Images
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset under one protocol. Make it with `from_splits`, which checks it.

    Attributes:
        name: Name of the dataset.
        protocol: Name of the protocol.
        class_names: The name of each class, in the order of the label columns.
        train: The images that methods learn from; their labels are not kept.
        query: The queries.
        database: The images that are searched.
        fingerprint: SHA-256 over ids and labels of all three parts; see `hashbench.protocol.fingerprint`.
        overlaps: How many images the parts share.
        warnings: What a reader of the results should know, one sentence each.
    """

    name: str
    protocol: str
    class_names: tuple[str, ...]
    train: Images
    query: Split
    database: Split
    fingerprint: str
    overlaps: Overlaps
    warnings: tuple[str, ...]

    @classmethod
    def from_splits(
        cls,
        name: str,
        protocol: str,
        class_names: Sequence[str],
        *,
        train: Split,
        query: Split,
        database: Split,
        warnings: Sequence[str] = (),
    ) -> Dataset:
        """Check the three parts and make the dataset; the labels of `train` only enter the fingerprint.

        Args:
            name: Name of the dataset.
            protocol: Name of the protocol.
            class_names: The name of each class, in the order of the label columns.
            train: The images to learn from.
            query: The queries.
            database: The images to search.
            warnings: What a reader of the results should know, beside what is found here.

        Raises:
            HashbenchError: A part is empty, names an id twice, or its labels do not fit its images, the
                classes or the labels of the other parts.
        """
        train = _checked(f"{name}: train", train, len(class_names))
        query = _checked(f"{name}: query", query, len(class_names))
        database = _checked(f"{name}: database", database, len(class_names))
        if not train.labels.ndim == query.labels.ndim == database.labels.ndim:
            raise HashbenchError(f"{name}: some parts have class ids as labels and some multi-hot rows")

        shared = overlaps(train.images.ids, query.images.ids, database.images.ids)
        found = []
        if shared.query_train:
            found.append(
                f"{shared.query_train:,} of {len(query.images):,} queries are also training images, "
                "so results say little about unseen images"
            )
        if unlabelled := _unlabelled(query):
            found.append(
                f"{unlabelled:,} of {len(query.images):,} queries have no label, "
                "so nothing in the database is relevant to them"
            )
        if unlabelled := _unlabelled(database):
            found.append(
                f"{unlabelled:,} of {len(database.images):,} database images have no label, "
                "so they are relevant to no query"
            )
        return cls(
            name=name,
            protocol=protocol,
            class_names=tuple(class_names),
            train=train.images,
            query=query,
            database=database,
            fingerprint=fingerprint(
                (train.images.ids, train.labels),
                (query.images.ids, query.labels),
                (database.images.ids, database.labels),
            ),
            overlaps=shared,
            warnings=(*warnings, *found),
        )

    def require_disjoint_queries(self) -> None:
        """Refuse a dataset whose queries are also in the database, where each would find itself.

        Raises:
            HashbenchError: At least one id is in both.
        """
        if not self.overlaps.query_database:
            return
        stored = set(self.database.images.ids)
        example = next(image_id for image_id in self.query.images.ids if image_id in stored)
        raise HashbenchError(
            f"{self.name}: {self.overlaps.query_database:,} of {len(self.query.images):,} queries are also "
            f"in the database, such as {example!r}; use a split that keeps them apart, "
            "or pass --allow-overlap to evaluate it as it is"
        )


class DatasetPlugin(ABC):
    """Makes a dataset; the registry names a class of this kind and creates it without arguments.

    Attributes:
        protocols: A definition in one line for each protocol by name; the first is the default.
    """

    protocols: ClassVar[Mapping[str, str]]

    @abstractmethod
    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the dataset.

        Args:
            root: The folder that holds the data of all datasets; it may not exist yet.
            protocol: A key of `protocols`.

        Raises:
            HashbenchError: The data is absent or damaged; the message says what to do.
        """


def default_root() -> Path:
    """The folder of the data where the user names none: `$HASHBENCH_DATA`, else `~/.cache/hashbench/data`."""
    return Path(os.environ.get("HASHBENCH_DATA") or "~/.cache/hashbench/data").expanduser()


def _same_length(what: str, count: int, other: str, other_count: int) -> None:
    if count != other_count:
        raise HashbenchError(f"{count:,} {what} do not go with {other_count:,} {other}")


def _checked(part: str, split: Split, classes: int) -> Split:
    """The split with its labels as uint8 [n, C] or int64 [n]; an error where something is wrong."""
    ids, labels = split.images.ids, np.asarray(split.labels)
    if not ids:
        raise HashbenchError(f"{part} has no images")
    if len(labels) != len(ids):
        raise HashbenchError(f"{part} has {len(ids):,} images and {len(labels):,} rows of labels")
    if len(set(ids)) != len(ids):
        image_id, times = Counter(ids).most_common(1)[0]
        raise HashbenchError(f"{part} has the id {image_id!r} {times} times; ids must be unique")
    if labels.ndim == 1:
        if not np.issubdtype(labels.dtype, np.integer):
            raise HashbenchError(f"{part} has class ids of type {labels.dtype}, not integers")
        if labels.min() < 0 or labels.max() >= classes:
            raise HashbenchError(
                f"{part} has class ids from {labels.min()} to {labels.max()}; "
                f"{classes} classes have the ids 0 to {classes - 1}"
            )
        return Split(split.images, labels.astype(np.int64))
    if labels.ndim != 2 or labels.shape[1] != classes:
        raise HashbenchError(f"{part} has labels of shape {list(labels.shape)}, not [n] or [n, {classes}]")
    wrong = labels[(labels != 0) & (labels != 1)]
    if wrong.size:
        raise HashbenchError(f"{part} has {wrong[0]} among its multi-hot labels, which must be 0 or 1")
    return Split(split.images, labels.astype(np.uint8))


def _unlabelled(split: Split) -> int:
    """How many images have no label at all; class ids always are one."""
    return 0 if split.labels.ndim == 1 else int((~split.labels.any(axis=1)).sum())
