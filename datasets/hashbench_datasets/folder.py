"""Your own images: one folder per class, a labels.csv, list files, or images without labels."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator

from hashbench.data.class_folders import (
    FOLDERS,
    class_names,
    ignored_files,
    read_class_folders,
    read_split_folders,
    require_classes,
)
from hashbench.data.class_folders import PROTOCOL as FOLDERS_RULE
from hashbench.data.dataset import About, Dataset, DatasetPlugin
from hashbench.data.image_index import locate_all
from hashbench.data.list_files import ImageList, in_other_case
from hashbench.data.list_splits import LISTS, PROTOCOL, dataset_from_lists
from hashbench.data.options import ListOptions, RatioOptions
from hashbench.data.protocol import BY_RATIO, SPLIT, Protocol, draw_by_ratio
from hashbench.data.split_checks import unlabelled
from hashbench.errors import HashbenchError, UsageError, printable, quoted

LABELS = "labels.csv"
MAX_NAME = 60  # characters


def _short_text(name: Any) -> str:
    if not (isinstance(name, str) and name.isprintable() and 1 <= len(name.strip()) <= MAX_NAME):
        raise ValueError(
            f"expected a text of 1 to {MAX_NAME} printable characters; for a number, --data 'name=\"2024\"'"
        )
    return name.strip()


class Folder(DatasetPlugin):
    """Images in the data root itself, with a random or a given split."""

    class Options(ListOptions, RatioOptions):
        """Options for your own images."""

        name: Annotated[str, BeforeValidator(_short_text)] | None = None
        """Name of the collection in records; None: the name of the folder."""
        train_only_unlabelled: bool = False
        """Use images of `labels.csv` without a label for training only; draw the split from the others."""

    protocols: ClassVar[Mapping[str, Protocol]] = {
        SPLIT: BY_RATIO,
        FOLDERS: FOLDERS_RULE,
        LISTS: PROTOCOL,
    }
    about: ClassVar[About] = About(
        licence="yours",
        source="you: hashbench run --dataset folder --data-root DIR",
        layout=(
            "DIR/, for the protocol split",
            "├── <class>/, with any images; one folder per class",
            "├── or labels.csv with the header path,label and one image per line (several labels: cat|dog),",
            "│   or with the header path,cat,dog and 0 or 1 for each class",
            "└── or images without labels, to be evaluated by --set relevance=neighbours",
            "DIR/, for the protocol folders: train/, query/, database/, each with one folder per class; or",
            "    training; queries, test, testing, val, valid, validation; db, gallery; in any letter case",
            "DIR/, for the protocol lists: train.txt, test.txt, database.txt; each line a path and labels",
        ),
        notes=(
            "All collections are the dataset `folder` in the records, which also have the name of each "
            "collection: --data name=…, by default the name of its folder.",
        ),
        by_hand="These are your own images; put them into a folder and pass it as --data-root.",
    )
    options: Options

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the folder; see `DatasetPlugin.load`."""
        if not root.is_dir():
            raise UsageError(f"folder: the folder {root} does not exist; pass your images as --data-root")

        def relative_path(file: str) -> str:
            """Return the id of an image: its path relative to the root or, if outside, to the lists."""
            path = os.path.relpath(file, root)
            if path.startswith(os.pardir) and self.options.lists is not None:
                path = os.path.relpath(file, self.options.lists)
            return Path(path).as_posix()

        def image_id(_: str, file: str) -> str:
            return relative_path(file)

        if protocol == LISTS:
            return dataset_from_lists("folder", self.recorded_options(root), [root], image_id=image_id)
        classes: Sequence[str]
        if protocol == FOLDERS:
            parts, classes, warnings = read_split_folders(root, None, self.options, relative_path)
        else:
            others = in_other_case(root, re.escape(LABELS))
            if (root / LABELS).is_file():
                listed, classes = read_labels(root / LABELS)
                everything, warnings = locate_all(listed, [root], self.options, image_id=image_id)
                warnings += others
            elif others:
                raise HashbenchError(f"folder: {others[0]}; rename it, or remove it to read class folders")
            else:
                classes = class_names([root])
                require_classes(root, classes)
                everything = read_class_folders(root, classes, self.options, relative_path)
                folders = [root / name for name in classes]
                warnings = ignored_files(folders or [root], [root] if folders else [])
            bare = unlabelled(everything.labels)
            if classes and bare.any() and not self.options.train_only_unlabelled:
                warnings.append(
                    f"{int(bare.sum()):,} images have no label; to use them for training only, pass --data "
                    "train_only_unlabelled=true"
                )
            drawn = self._draw(everything.labels, bare)
            parts = {part: everything.subset(rows) for part, rows in drawn.items()}
        return Dataset.from_splits(
            "folder", protocol, classes, **parts, options=self.recorded_options(root), warnings=warnings
        )

    def recorded_options(self, root: Path) -> Options:
        """Return the options with a name for the collection."""
        default = printable(root.resolve().name)[:MAX_NAME].strip() or "root"
        return self.options.model_copy(update={"name": self.options.name or default})

    def _draw(self, labels: NDArray[np.integer], bare: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
        """Draw the row indices of the queries, the training images and the database; `bare` have no label."""
        options = self.options
        ratios = options.query_ratio, options.train_ratio, options.seed
        if bare.all() or not options.train_only_unlabelled:
            return draw_by_ratio(labels, *ratios)
        rows = np.flatnonzero(~bare)
        drawn = {part: rows[own] for part, own in draw_by_ratio(labels[rows], *ratios).items()}
        return {**drawn, "train": np.sort(np.concatenate([drawn["train"], np.flatnonzero(bare)]))}


def read_labels(file: Path) -> tuple[ImageList, tuple[str, ...]]:
    """Read `labels.csv`, with the header `path,label` or `path` and the names of the classes.

    Args:
        file: The CSV file.

    Returns:
        The list, and the class names in the order of its columns.

    Raises:
        HashbenchError: The file cannot be read, or a line does not match the header.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            rows = [
                (reader.line_num, [cell.strip() for cell in row]) for row in reader if "".join(row).strip()
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HashbenchError(f"cannot read {file}: {error}") from error
    header = rows.pop(0)[1] if rows else []
    classes = tuple(header[1:])
    if header[:1] != ["path"] or len({*classes} - {""}) < max(1, len(classes)) or not rows:
        raise HashbenchError(
            f"{file}, line 1: expected `path,label` or `path,<class>,<class>,…` and then images, got "
            f"{quoted(','.join(header))} and {len(rows)} lines"
        )
    seen: set[str] = set()
    for line, (path, *values) in rows:
        if len(values) != len(classes):
            expected, found = f"{len(header)} values", str(1 + len(values))
        elif not path or path in seen:
            expected, found = "a path that no other line has", quoted(path)
        elif classes != ("label",) and (wrong := set(values) - {"0", "1"}):
            expected, found = "0 or 1 per class", quoted(min(wrong))
        else:
            seen.add(path)
            continue
        raise HashbenchError(f"{file}, line {line}: expected {expected}, got {found}; correct the line")
    if classes == ("label",):
        named = [{name.strip() for name in row[1].split("|")} - {""} for _, row in rows]
        classes = tuple(sorted(set().union(*named)))
        if not classes:
            raise HashbenchError(f"{file}: no image has a label, which the evaluation needs; add labels")
        column = {name: index for index, name in enumerate(classes)}
        labels = np.zeros((len(rows), len(classes)), np.uint8)
        for row, names in enumerate(named):
            labels[row, [column[name] for name in names]] = 1
    else:
        labels = np.array([row[1:] for _, row in rows]).astype(np.uint8)
    paths = tuple(row[0].replace("\\", "/") for _, row in rows)
    return ImageList(file, paths, labels, np.array([line for line, _ in rows])), classes
