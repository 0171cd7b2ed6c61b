"""Datasets: training images, queries and a database, and the plugins that load them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hashbench.data.download import Archive
from hashbench.data.options import DataOptions
from hashbench.data.protocol import Overlaps, Protocol, fingerprint, fraction_of, overlaps
from hashbench.data.split_checks import checked_labels, common_class, unlabelled
from hashbench.errors import HashbenchError, printable
from hashbench.images.image_sets import ArrayImages, FileImages, Images
from hashbench.runtime.summary import Summarized


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset: images with their labels.

    Attributes:
        images: The images.
        labels: Multi-hot uint8 [n, C], or class ids int64 [n]; [n, 0] for images without labels, which may
            be all images of a dataset or its training images.
    """

    images: Images
    labels: NDArray[Any]

    def subset(self, indices: NDArray[np.integer[Any]]) -> Split:
        """Return the images at the given indices [m], in that order, with their labels."""
        return Split(self.images.subset(indices), self.labels[indices])

    def fingerprint(self) -> str:
        """Return the SHA-256 of ids and labels: `protocol.fingerprint` with this split as all three parts."""
        part = self.images.ids, self.labels
        return fingerprint(part, part, part)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Summarized):
    """A dataset under one protocol. Create it with `from_splits`, which validates the parts.

    Attributes:
        name: Name of the dataset.
        protocol: Name of the protocol.
        class_names: Name of each class, in the order of the label columns.
        train: Training images.
        train_labels: Labels of the training images, for checks and list files; no method receives them.
        query: Queries.
        database: Images that are searched.
        fingerprint: SHA-256 of the ids and labels of all three parts; see `protocol.fingerprint`.
        overlaps: Number of images that the parts share.
        options: Options of the dataset, as they are written to the record of a run.
        warnings: What a reader of the results should know, one sentence each.
        validation: Images to select an epoch by, if the protocol defines them; none of them is a query.
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
        """Validate the parts and create the dataset.

        Args:
            name: Name of the dataset.
            protocol: Name of the protocol.
            class_names: Name of each class, in the order of the label columns.
            train: Training images, with or without labels.
            query: Queries.
            database: Images to search.
            validation: Images to select an epoch by, if the protocol defines them.
            options: The plugin's options; None: the defaults.
            warnings: What a reader of the results should know, in addition to what is found here.

        Raises:
            HashbenchError: A part is empty or has an id twice, its labels do not fit its images, the classes
                or the other parts, it has what the options forbid, or there is only one class.
        """
        options = options or DataOptions()
        given = {"train": train, "query": query, "database": database, "validation": validation}
        parts = {
            part: _validate(f"{name}: {part}", split, class_names, need_labels=part != "train")
            for part, split in given.items()
            if split is not None
        }
        parts, excluded = _apply_options(name, parts, options)
        train, query, database = (parts[part] for part in ("train", "query", "database"))
        validation = parts.get("validation")
        kinds = {split.labels.ndim for split in (train, query, database) if split.labels.shape[1:] != (0,)}
        if len(kinds) > 1:
            raise HashbenchError(
                f"{name}: some parts have class ids and some multi-hot labels; use one kind for all"
            )
        if validation is not None:
            _require_separate_validation(name, validation, query, database)
        shared = overlaps(train.images.ids, query.images.ids, database.images.ids)
        found = _describe(name, class_names, query, database, shared, options)
        return cls(
            name=name,
            protocol=protocol,
            class_names=tuple(class_names),
            train=train.images,
            train_labels=train.labels,
            query=query,
            database=database,
            fingerprint=fingerprint(*((part.images.ids, part.labels) for part in (train, query, database))),
            overlaps=shared,
            options={
                # Paths and packed copies belong to this machine.
                **options.model_dump(mode="json", exclude={"lists", "packed"}),
                **_content_digest(train.images, query.images, database.images),
            },
            warnings=tuple(map(printable, (*warnings, *excluded, *found))),  # may contain names of files
            validation=validation,
        )

    def _summary(self) -> dict[str, object]:
        return {
            "dataset": f"{self.name}@{self.protocol}",
            "classes": len(self.class_names),
            **{part: f"{len(split.images):,}" for part, split in self.parts().items()},
            "sha256": self.fingerprint[:12],
            "warnings": "; ".join(self.warnings) or "none",
        }

    def parts(self) -> dict[str, Split]:
        """Return train, query and database by name, with labels."""
        return {"train": Split(self.train, self.train_labels), "query": self.query, "database": self.database}

    def require_disjoint_queries(self) -> None:
        """Check that no query is also in the database, where it would retrieve itself.

        Raises:
            HashbenchError: At least one id is in both.
        """
        if not self.overlaps.query_database:
            return
        database_ids = set(self.database.images.ids)
        example = next(image_id for image_id in self.query.images.ids if image_id in database_ids)
        raise HashbenchError(
            f"{self.name}: {self.overlaps.query_database:,} of {len(self.query.images):,} queries are also "
            f"in the database, such as {example!r}; use a split without this overlap, remove them from the "
            "database with --data leaks=drop, or pass --allow-overlap to evaluate the split unchanged"
        )


ColumnOrders = Mapping[int, Mapping[str, Sequence[str]]]
"""Orders of the label columns in published lists: number of classes -> name of the order -> class names.

The first order is the one of the dataset."""


@dataclass(frozen=True)
class About:
    """Information about a dataset for `hashbench data info`.

    Attributes:
        licence: Licence of the images and labels.
        source: Where the dataset is published.
        size: Total size of the files.
        layout: Tree of the folders and files below the data root, one line each.
        notes: What to know before comparing results, one sentence each.
        by_hand: What the user must get manually, in short lines; empty if everything can be downloaded.
    """

    licence: str = ""
    source: str = ""
    size: str = ""
    layout: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    by_hand: str = ""


class DatasetPlugin(ABC):
    """Base class of dataset plugins; a name in the registry refers to a subclass.

    Attributes:
        protocols: The protocols by name; the first is the default.
        about: Information for `hashbench data info`.
        downloads: Archives that `hashbench data prepare` fetches.
        column_orders: Orders of the label columns of list files.
        needs_root: True if `load` reads files below the data root.
        options: The options that the user chose.
    """

    Options: ClassVar[type[DataOptions]] = DataOptions
    """Class of the options; a subclass of `DataOptions` if the dataset has options of its own."""

    protocols: ClassVar[Mapping[str, Protocol]]
    about: ClassVar[About] = About()
    downloads: ClassVar[Sequence[Archive]] = ()
    column_orders: ClassVar[ColumnOrders] = {}
    needs_root: ClassVar[bool] = True

    def __init__(self, options: DataOptions | None = None) -> None:
        """Store the options, an instance of `Options`; None: the defaults."""
        self.options = options or self.Options()

    def download(self, root: Path) -> None:
        """Download the files that are missing below the data root, for `hashbench data prepare`.

        Raises:
            HashbenchError: A file cannot be downloaded, or has another MD5.
        """
        for archive in self.downloads:
            archive.ensure(root)

    def recorded_options(self, root: Path) -> DataOptions:
        """Return the options as records contain them, with values that the data root determines."""
        return self.options

    @abstractmethod
    def load(self, root: Path, protocol: str) -> Dataset:
        """Load the dataset.

        Args:
            root: The data root, the folder with the data of all datasets; it may not exist yet.
            protocol: A key of `protocols`.

        Raises:
            HashbenchError: The data is missing or damaged; the message says what to do.
        """


def _validate(part: str, split: Split, class_names: Sequence[str], *, need_labels: bool) -> Split:
    labelled = need_labels or np.shape(split.labels)[1:] != (0,)
    classes = len(class_names) if labelled else 0
    return Split(split.images, checked_labels(part, split.images.ids, split.labels, classes))


def _apply_options(
    name: str, parts: Mapping[str, Split], options: DataOptions
) -> tuple[dict[str, Split], list[str]]:
    """Return the parts with the images that the options admit, and warnings about the others."""
    query, database = parts["query"], parts["database"]
    warnings: list[str] = []

    def without(drop: NDArray[np.bool_], split: Split, description: str) -> Split:
        if not drop.any():
            return split
        if drop.all():
            raise HashbenchError(f"{name}: only {description} were found, so dropping them leaves none")
        warnings.append(f"{int(drop.sum()):,} {description} are left out")
        return split.subset(np.flatnonzero(~drop))

    if options.leaks == "drop":
        query_ids = set(query.images.ids)
        leaking = np.array([image_id in query_ids for image_id in database.images.ids])
        database = without(leaking, database, "database images that are also queries")
    if options.unlabelled == "drop":
        query = without(unlabelled(query.labels), query, "queries without a label")
        database = without(unlabelled(database.labels), database, "database images without a label")
    admitted = {**parts, "query": query, "database": database}
    if options.fraction < 1:
        warnings.append(f"limited to a fraction of {options.fraction:g} of each part, for a first try only")
        for part, split in admitted.items():
            order = np.random.RandomState(options.seed).permutation(total := len(split.images))
            admitted[part] = split.subset(np.sort(order[: fraction_of(total, options.fraction)]))
    return admitted, warnings


def _require_separate_validation(name: str, validation: Split, query: Split, database: Split) -> None:
    if validation.labels.ndim != query.labels.ndim:
        raise HashbenchError(
            f"{name}: validation and query differ in the kind of labels; use class ids or multi-hot for both"
        )
    for description, part in (("queries", query), ("database images", database)):
        if leaked := set(validation.images.ids) & set(part.images.ids):
            raise HashbenchError(
                f"{name}: {len(leaked):,} validation images are also {description}, such as "
                f"{min(leaked)!r}; remove them from one of the two"
            )


def _describe(
    name: str,
    class_names: Sequence[str],
    query: Split,
    database: Split,
    shared: Overlaps,
    options: DataOptions,
) -> list[str]:
    """Return warnings about common classes, queries that are trained on, and images without labels."""
    warnings = []
    if (common := common_class(query.labels, database.labels)) is not None:
        text = f"all queries and all database images have the class {class_names[common]!r}"
        if len(class_names) == 1:
            raise HashbenchError(
                f"{name}: {text}, the only one, so any code would have mAP 1; expected at least two classes"
            )
        warnings.append(f"{text}, so any code has mAP 1")
    if shared.query_train:
        warnings.append(
            f"{shared.query_train:,} of {len(query.images):,} queries are also training images, so the "
            "results say little about unseen images"
        )
    for part, description, consequence in (
        (query, "queries", "so no database image is relevant to them"),
        (database, "database images", "so they are relevant to no query"),
    ):
        if count := int(unlabelled(part.labels).sum()):
            text = f"{count:,} of {len(part.images):,} {description} have no label"
            if options.unlabelled == "error":
                raise HashbenchError(f"{name}: {text}; remove them or pass --data unlabelled=drop")
            if class_names:
                warnings.append(f"{text}, {consequence}")
    return warnings


def _content_digest(*parts: Images) -> dict[str, str]:
    """Return a digest of the images: of names and sizes of files (not read), and of pixels in memory."""
    lines = {
        f"{name} {size}" for part in parts if isinstance(part, FileImages) for name, size in part.sizes()
    }
    lines |= {part.digest() for part in {*parts} if isinstance(part, ArrayImages)}
    text = "\n".join(sorted(lines)).encode(errors="surrogateescape")
    return {"files": hashlib.sha256(text).hexdigest()[:16]} if lines else {}
