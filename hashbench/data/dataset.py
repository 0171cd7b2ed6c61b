"""What a dataset is: images to train on, queries, a database. A dataset plugin returns one."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hashbench.data.download import Archive
from hashbench.data.options import DataOptions
from hashbench.data.protocol import Overlaps, Protocol, fingerprint, overlaps
from hashbench.errors import HashbenchError, UsageError, printable, quoted
from hashbench.images.image_sets import ArrayImages, FileImages, Images


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels: one part of a dataset.

    Attributes:
        images: The images.
        labels: Multi-hot uint8 [n, C], or class ids int64 [n].
    """

    images: Images
    labels: NDArray[Any]

    def subset(self, indices: NDArray[np.integer[Any]]) -> Split:
        """The images at some positions, in the order given, with their labels.

        Args:
            indices: Positions, integers [m].
        """
        return Split(self.images.subset(indices), self.labels[indices])

    def fingerprint(self) -> str:
        """SHA-256 over ids and labels, as `hashbench.data.protocol.fingerprint` has it of three parts."""
        part = self.images.ids, self.labels
        return fingerprint(part, part, part)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset under one protocol. Make it with `from_splits`, which checks it.

    Attributes:
        name: Name of the dataset.
        protocol: Name of the protocol.
        class_names: The name of each class, in the order of the label columns.
        train: The images that methods learn from.
        train_labels: Their labels, for checks and for lists; no method gets them.
        query: The queries.
        database: The images that are searched.
        fingerprint: SHA-256 over ids and labels of all three parts; see `protocol.fingerprint`.
        overlaps: How many images the parts share.
        options: What was chosen about the dataset, as it is recorded.
        warnings: What a reader of the results should know, one sentence each.
        validation: The protocol's own images to choose an epoch by, none of which is a query, if it has any.
    """

    name: str
    protocol: str
    class_names: tuple[str, ...]
    train: Images
    train_labels: NDArray[Any]
    query: Split
    database: Split
    fingerprint: str
    overlaps: Overlaps
    options: Mapping[str, Any]
    warnings: tuple[str, ...]
    validation: Split | None = None

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
        validation: Split | None = None,
        options: DataOptions | None = None,
        warnings: Sequence[str] = (),
    ) -> Dataset:
        """Check the three parts and make the dataset.

        Args:
            name: Name of the dataset.
            protocol: Name of the protocol.
            class_names: The name of each class, in the order of the label columns.
            train: The images to learn from.
            query: The queries.
            database: The images to search.
            validation: Images to choose an epoch by, where the protocol has its own.
            options: What the user chose, from the plugin; None: the defaults.
            warnings: What a reader of the results should know, beside what is found here.

        Raises:
            HashbenchError: A part is empty, names an id twice, or its labels do not fit its images, the
                classes or the labels of the other parts; or it has what the options forbid; or all queries
                and database images have the only class.
        """
        options = options or DataOptions()
        train = _checked(f"{name}: train", train, len(class_names))
        query = _checked(f"{name}: query", query, len(class_names))
        database = _checked(f"{name}: database", database, len(class_names))
        if not train.labels.ndim == query.labels.ndim == database.labels.ndim:
            raise HashbenchError(f"{name}: some parts have class ids as labels and some multi-hot rows")

        found: list[str] = []
        if options.leaks == "drop":
            asked = set(query.images.ids)
            leaking = np.array([image_id in asked for image_id in database.images.ids])
            database = _without(leaking, database, f"{name}: database images that are also queries", found)
        if options.unlabelled == "drop":
            query = _without(unlabelled(query.labels), query, f"{name}: queries without a label", found)
            database = _without(
                unlabelled(database.labels), database, f"{name}: database images without a label", found
            )
        if validation is not None:
            validation = _checked(f"{name}: validation", validation, len(class_names))
            if validation.labels.ndim != query.labels.ndim:
                raise HashbenchError(f"{name}: validation and query have labels of two kinds")
            for what, part in (("queries", query), ("database images", database)):
                if leaked := set(validation.images.ids) & set(part.images.ids):
                    raise HashbenchError(
                        f"{name}: {len(leaked):,} validation images are also {what}, such as "
                        f"{min(leaked)!r}; take them out"
                    )
        if (common := _common_class(query.labels, database.labels)) is not None:
            what = f"all queries and all database images have the class {class_names[common]!r}"
            if len(class_names) == 1:
                raise HashbenchError(
                    f"{name}: {what}, the only one, so that any code would have mAP 1; expected two classes"
                )
            found.append(f"{what}, so that any code has mAP 1")
        shared = overlaps(train.images.ids, query.images.ids, database.images.ids)
        if shared.query_train:
            found.append(
                f"{shared.query_train:,} of {len(query.images):,} queries are also training images, "
                "so results say little about unseen images"
            )
        for part, what, consequence in (
            (query, "queries", "so nothing in the database is relevant to them"),
            (database, "database images", "so they are relevant to no query"),
        ):
            if bare := int(unlabelled(part.labels).sum()):
                counted = f"{bare:,} of {len(part.images):,} {what} have no label"
                if options.unlabelled == "error":
                    raise HashbenchError(f"{name}: {counted}; take them out, or choose unlabelled=drop")
                found.append(f"{counted}, {consequence}")
        return cls(
            name=name,
            protocol=protocol,
            class_names=tuple(class_names),
            train=train.images,
            train_labels=train.labels,
            query=query,
            database=database,
            fingerprint=fingerprint(
                (train.images.ids, train.labels),
                (query.images.ids, query.labels),
                (database.images.ids, database.labels),
            ),
            overlaps=shared,
            options={
                **options.model_dump(mode="json", exclude={"lists", "packed"}),  # of this machine
                **_files(train.images, query.images, database.images),
            },
            warnings=tuple(map(printable, (*warnings, *found))),  # names of files may be anything
            validation=validation,
        )

    def parts(self) -> dict[str, Split]:
        """Train, query and database by name, all with labels."""
        return {"train": Split(self.train, self.train_labels), "query": self.query, "database": self.database}

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
            f"in the database, such as {example!r}; use a split that keeps them apart, take them out of the "
            "database by --data leaks=drop, or pass --allow-overlap to evaluate it as it is"
        )


ColumnOrders = Mapping[int, Mapping[str, Sequence[str]]]
"""By number of classes: the orders that label columns have in published lists, by name, each the names of the
classes; the first is that of the dataset."""


@dataclass(frozen=True)
class About:
    """Where a dataset is from, for `hashbench data info`.

    Attributes:
        licence: Who may do what with it.
        source: Where it is published.
        size: Of all files.
        layout: Folders and files below the data root, one text each.
        notes: What to know before numbers are compared, one sentence each.
        by_hand: What only the user can get, and where it goes; empty if all can be downloaded.
    """

    licence: str = ""
    source: str = ""
    size: str = ""
    layout: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    by_hand: str = ""


class DatasetPlugin(ABC):
    """Makes a dataset; the registry names a class of this kind.

    Attributes:
        protocols: The ways to split it, by name; the first is the default.
        about: Where it is from.
        downloads: What `hashbench data prepare` fetches.
        column_orders: What label columns of list files mean.
        needs_root: Whether `load` reads anything below the folder of the data.
        options: What the user chose.
    """

    Options: ClassVar[type[DataOptions]] = DataOptions
    """The options that the dataset has; more than those of `DataOptions`, if it needs them."""

    protocols: ClassVar[Mapping[str, Protocol]]
    about: ClassVar[About] = About()
    downloads: ClassVar[Sequence[Archive]] = ()
    column_orders: ClassVar[ColumnOrders] = {}
    needs_root: ClassVar[bool] = True

    def __init__(self, options: DataOptions | None = None) -> None:
        """Keep the options.

        Args:
            options: Of the type `Options`; None: the defaults.
        """
        self.options = options or self.Options()

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
    """Return the folder of the data where the user names none.

    It is `$HASHBENCH_DATA`, else `~/.cache/hashbench/data`.

    Raises:
        UsageError: There is no home folder, as in a container whose user has no entry in /etc/passwd.
    """
    named = os.environ.get("HASHBENCH_DATA", "").strip()  # one that is empty counts as unset
    try:
        return Path(named or "~/.cache/hashbench/data").expanduser()
    except RuntimeError:
        raise UsageError(
            "this user has no home folder; name the folder of the data by --data-root DIR or $HASHBENCH_DATA"
        ) from None


def unlabelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which images have no label at all [n]; class ids always are one."""
    if labels.ndim == 1:
        return np.zeros(len(labels), np.bool_)
    return np.asarray(labels.sum(axis=1) == 0)


def _files(*parts: Images) -> dict[str, str]:
    """A digest of what the images are: names and sizes of files, which are not read; pixels in memory."""
    lines = {
        f"{name} {size}" for part in parts if isinstance(part, FileImages) for name, size in part.sizes()
    }
    lines |= {part.digest() for part in {*parts} if isinstance(part, ArrayImages)}
    text = "\n".join(sorted(lines)).encode(errors="surrogateescape")
    return {"files": hashlib.sha256(text).hexdigest()[:16]} if lines else {}


def _common_class(query: NDArray[Any], database: NDArray[Any]) -> int | None:
    """Return the class that all images of both parts have, if there is one."""
    if query.ndim == 1:
        only = int(query[0])
        return only if (query == only).all() and (database == only).all() else None
    common = np.flatnonzero(query.all(axis=0) & database.all(axis=0))
    return int(common[0]) if len(common) else None


def _without(unwanted: NDArray[np.bool_], split: Split, what: str, found: list[str]) -> Split:
    if not unwanted.any():
        return split
    if unwanted.all():
        raise HashbenchError(f"{what} are all there are, so that none is left")
    found.append(f"{int(unwanted.sum()):,} {what.partition(': ')[2]} are left out")
    return split.subset(np.flatnonzero(~unwanted))


def _checked(part: str, split: Split, classes: int) -> Split:
    """The split with its labels as uint8 [n, C] or int64 [n]; an error where something is wrong."""
    ids, labels = split.images.ids, np.asarray(split.labels)
    if not ids:
        raise HashbenchError(f"{part} has no images")
    if not classes:
        raise HashbenchError(f"{part} has no classes, so that nothing is relevant to anything")
    if absolute := next((image_id for image_id in ids if image_id.startswith(("/", "\\"))), None):
        raise HashbenchError(
            f"{part} has the id {absolute!r}; an id is no path of this machine, make it relative"
        )
    try:
        "".join(ids).encode()
    except UnicodeEncodeError as error:
        odd = next(image_id for image_id in ids if error.object[error.start] in image_id)
        raise HashbenchError(
            f"{part} has the id {quoted(odd)}, which is not valid UTF-8; rename it"
        ) from None
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
