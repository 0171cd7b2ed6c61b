"""Splits that are given as list files, in any of the ways that published code ships them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hashbench.data.dataset import ColumnOrders, Dataset, Split
from hashbench.data.image_index import locate
from hashbench.data.list_files import (
    ImageList,
    in_other_case,
    read_list,
    read_names,
    read_pair,
    read_row_indices,
    short_ids,
)
from hashbench.data.options import ListOptions
from hashbench.data.protocol import Protocol, draw
from hashbench.errors import HashbenchError, UsageError, quoted, unknown_name
from hashbench.images.image_sets import FileImages
from hashbench.runtime.walking import is_system_file

LISTS = "lists"
PROTOCOL = Protocol("the list files of --lists DIR (else those in the dataset's folder) decide")
CLASS_NAMES = "classes.txt"

_PARTS = {"train": "train", "query": "test|query", "database": "database|db"}
_LABELS = ("label_onehot", "label", "targets_onehot", "targets")  # of images in `*_img.txt`, the best first
_MASTERS = (
    ("allannots.txt", None),
    ("img.txt", "targets.txt"),
    ("img_tc10.txt", "targets_onehot_tc10.txt"),
    ("img_tc10.txt", "targets_tc10.txt"),
)
_NAMES = "|".join(  # of all files that are read
    (
        rf"({'|'.join(_PARTS.values())})(\d+|_\w+)?\.(txt|csv)",
        *(re.escape(name) for pair in _MASTERS for name in pair if name),
        re.escape(CLASS_NAMES),
        r".*split.*\.json",
    )
)


@dataclass(frozen=True)
class Source:
    """A list file, and the file of its labels if they are not in it."""

    file: Path
    labels: Path | None = None

    def read(self, classes: int | None, options: ListOptions) -> ImageList:
        """Read the list; see `read_list`."""
        if self.labels is None:
            return read_list(self.file, classes, options.label_format)
        return read_pair(self.file, self.labels, classes, options.label_format)


def find_lists(folder: Path) -> dict[str, list[Source]]:
    """The lists in a folder: by "train", "query" and "database", those that are there.

    A part is the first of these that is there: `test.txt` or `test.csv`; images and labels apart,
    `test_img.txt` and `test_label_onehot.txt`; numbered pieces, `test0.txt`, `test1.txt`, …; a tag,
    `test_coco.txt`. For queries the word is test or query, for the database database or db.

    Raises:
        HashbenchError: Several files fit one part, or pieces of one are missing.
    """
    names = (
        sorted(path.name for path in folder.iterdir() if path.suffix in (".txt", ".csv"))
        if folder.is_dir()
        else []
    )
    found = {part: _find_part(folder, names, words) for part, words in _PARTS.items()}
    return {part: sources for part, sources in found.items() if sources}


def _find_part(folder: Path, names: list[str], words: str) -> list[Source]:
    if plain := _match(names, rf"({words})\.(txt|csv)"):
        return [Source(_only(folder, plain))]
    if images := _match(names, rf"({words})_img\.txt"):
        file = _only(folder, images)
        stem = file.stem.removesuffix("_img")
        labels = [folder / f"{stem}_{kind}.txt" for kind in _LABELS]
        beside = next(filter(Path.is_file, labels), None)
        if beside is None:
            raise HashbenchError(f"{file} lists images, but {labels[0].name} with their labels is missing")
        return [Source(file, beside)]
    if pieces := _match(names, rf"({words})\d+\.(txt|csv)"):
        numbered = sorted((int(re.sub(r"\D", "", name)), name) for name in pieces)
        if [number for number, _ in numbered] != list(range(len(pieces))):
            raise HashbenchError(
                f"{folder} has the pieces {', '.join(name for _, name in numbered)} of one list; "
                f"those from 0 to {numbered[-1][0]} must all be there, once"
            )
        return [Source(folder / name) for _, name in numbered]
    if tagged := _match(names, rf"({words})_(?!label|targets|img)\w+\.(txt|csv)"):
        return [Source(_only(folder, tagged))]
    return []


def _match(names: list[str], pattern: str) -> list[str]:
    return [name for name in names if re.fullmatch(pattern, name)]


def _only(folder: Path, names: list[str]) -> Path:
    if len(names) > 1:
        raise HashbenchError(
            f"{folder} has {' and '.join(names)}, and each could be meant; keep the lists of one split there"
        )
    return folder / names[0]


def find_master(folder: Path) -> tuple[Source, Path | None] | None:
    """A list of all images, if there is one, and the JSON file with the rows of a split, if that is there.

    The list is `allannots.txt`, `img.txt` and `targets.txt`, or `img_tc10.txt` and `targets_onehot_tc10.txt`;
    the JSON file has "split" in its name.

    Raises:
        HashbenchError: There are several JSON files, or one without a list.
    """
    masters = [Source(folder / images, folder / labels if labels else None) for images, labels in _MASTERS]
    source = next((m for m in masters if m.file.is_file() and (m.labels is None or m.labels.is_file())), None)
    splits = [path.name for path in sorted(folder.glob("*split*.json")) if not is_system_file(path.name)]
    if splits and source is None:
        raise HashbenchError(
            f"{folder / splits[0]} has rows of a list of all images, but neither allannots.txt nor img.txt "
            "and targets.txt is there"
        )
    return (source, _only(folder, splits) if splits else None) if source else None


def dataset_from_lists(
    name: str,
    options: ListOptions,
    folders: Sequence[Path],
    orders: ColumnOrders | None = None,
    *,
    key: Callable[[str], str] = posixpath.basename,
    image_id: Callable[[str, str], str] | None = None,
) -> Dataset:
    """Load a dataset as lists split it.

    Args:
        name: Of the dataset.
        options: What the user chose.
        folders: Where the images may be; the lists are in the first that has any, unless `options.lists`
            names their folder.
        orders: The orders of label columns that are in use for this dataset; None: its classes are not known.
        key: What of a path names an image.
        image_id: The id of an image by its listed path and its file; None: the path without the folders that
            all paths share, for datasets whose file names say which image it is.

    Raises:
        HashbenchError: Lists are missing or damaged, or images are.
    """
    lists, class_names, not_read = _read(name, options, folders, orders or {})
    places = [*([options.lists] if options.lists else []), *folders]
    every = [piece for pieces in lists.values() for piece in pieces]
    located, warnings = locate(every, places, missing=options.missing, key=key)
    if image_id is None:
        ids = short_ids([piece.paths for piece, _ in located])
    else:
        ids = [[*map(image_id, piece.paths, files)] for piece, files in located]
    rest = iter(zip(located, ids, strict=True))
    splits = {}
    for part, pieces in lists.items():
        found = [next(rest) for _ in pieces]
        images = FileImages(
            [file for (_, files), _ in found for file in files],
            [image for _, piece_ids in found for image in piece_ids],
            exif=options.exif,
            truncated=options.truncated,
        )
        splits[part] = Split(images, np.concatenate([piece.labels for (piece, _), _ in found]))
    warnings += [*not_read, *_draw_absent(splits, options)]
    return Dataset.from_splits(
        name,
        LISTS,
        class_names,
        **splits,
        options=options,
        warnings=warnings,
    )


def _draw_absent(splits: dict[str, Split], options: ListOptions) -> list[str]:
    """Add the parts that no list has, drawn as the options say, and warn of it."""
    if "all" in splits:
        everything = splits.pop("all")
        assert options.train is not None  # else `_require` has refused the lists
        assert options.query is not None
        train, query, rest = draw(len(everything.images), [options.train, options.query], options.seed)
        splits |= {"train": everything.subset(train), "query": everything.subset(query)}
        splits["database"] = everything.subset(np.sort(np.concatenate([train, rest])))
        return [
            f"{options.query:,} queries are drawn from a list of all images, and {options.train:,} "
            "training images from the others, which are the database"
        ]
    if "train" in splits:
        return []
    assert options.train is not None
    asked = set(splits["query"].images.ids)
    free = np.array([row for row, name in enumerate(splits["database"].images.ids) if name not in asked])
    drawn, _ = draw(len(free), [options.train], options.seed)
    splits["train"] = splits["database"].subset(free[drawn])
    return [f"the lists have no training images; {options.train:,} are drawn from the database"]


def _read(
    name: str, options: ListOptions, folders: Sequence[Path], orders: ColumnOrders
) -> tuple[dict[str, list[ImageList]], Sequence[str], list[str]]:
    """The lists of each part that has any, which may be in pieces; the class names; warnings."""
    if options.lists is not None and not options.lists.is_dir():
        raise UsageError(f"--lists {options.lists}: there is no such folder")
    folder = options.lists or next((f for f in folders if find_lists(f) or find_master(f)), folders[0])
    not_read = in_other_case(folder, _NAMES)
    named = read_names(folder / CLASS_NAMES) if (folder / CLASS_NAMES).is_file() else None
    classes = (
        options.classes or (len(named) if named else None) or (min(orders) if len(orders) == 1 else None)
    )
    if classes == 1 and options.label_format == "auto":
        options = options.model_copy(update={"label_format": "multihot"})  # a class id would say nothing
    lists: dict[str, list[ImageList]] = {}
    found = find_lists(folder)
    if not found and (master := find_master(folder)):
        source, split = master
        everything = source.read(classes, options)
        if split is not None:
            rows = read_row_indices(split, len(everything.paths))
            lists = {part: [everything.rows(rows[part])] for part in _PARTS}
        elif options.query is None or options.train is None:
            raise HashbenchError(
                f"{name}: {source.file} is one list of all images, and no split is beside it; to draw one, "
                "say --data query=N and --data train=N"
            )
        else:
            lists = {"all": [everything]}
    else:
        _require(name, folder, found, options, not_read)
        for part, sources in found.items():
            lists[part] = []
            for source in sources:
                piece = source.read(classes, options)
                classes = piece.labels.shape[1]  # all must agree with the first
                lists[part].append(piece)
    columns = next(iter(lists.values()))[0].labels.shape[1]
    have, want = _columns(name, columns, named, options.columns, orders)
    if tuple(have) == tuple(want):
        return lists, want, not_read
    at = [have.index(class_name) for class_name in want]
    ordered = {
        part: [replace(piece, labels=piece.labels[:, at]) for piece in pieces]
        for part, pieces in lists.items()
    }
    return ordered, want, not_read


def _require(
    name: str,
    folder: Path,
    found: Mapping[str, list[Source]],
    options: ListOptions,
    not_read: Sequence[str],
) -> None:
    besides = "".join(f"; {warning}" for warning in not_read)
    if not found:
        raise HashbenchError(
            f"{name}: {folder} has no lists; expected train.txt, test.txt (the queries) and database.txt, "
            "one image a line, or another of the forms that datasets/README.md shows; name their folder by "
            f"--lists{besides}"
        )
    given = [part for part in ("train", "query") if part in found and getattr(options, part) is not None]
    if given:
        raise UsageError(f"--data {given[0]}: {folder} has a list of them, so that none are drawn")
    absent = [part for part in _PARTS if part not in found and not (part == "train" and options.train)]
    if absent:
        hint = "; to draw training images from the database, say --data train=N" if "train" in absent else ""
        raise HashbenchError(
            f"{name}: {folder} has lists for {' and '.join(found)}, but none for {' and '.join(absent)}{hint}"
            f"{besides}"
        )


def _columns(
    name: str, classes: int, named: Sequence[str] | None, order: str | None, orders: ColumnOrders
) -> tuple[Sequence[str], Sequence[str]]:
    """The class names in the order of the label columns, and in that of the dataset."""
    known = orders.get(classes, {})
    if orders and not known and named:  # some of the classes
        known = next(
            (
                {order: [n for n in names if n in named] for order, names in of_all.items()}
                for of_all in orders.values()
                if set(named) <= set(next(iter(of_all.values())))
            ),
            {},
        )
    if orders and not known and named and len(named) == classes:
        every = {n for of_all in orders.values() for n in next(iter(of_all.values()))}
        unknown = min(set(named) - every, default=" and ".join(named))
        raise HashbenchError(f"{name}: {CLASS_NAMES} names {quoted(unknown)}, which is no class of {name}")
    if orders and not known:
        raise HashbenchError(
            f"{name}: the lists have {classes} classes; known are {' and '.join(map(str, sorted(orders)))}; "
            f"for some of these, name them in {CLASS_NAMES} beside the lists, one a line"
        )
    want = next(iter(known.values()), named or [str(number) for number in range(classes)])
    if order is not None and order not in known:
        raise unknown_name(f"order of {classes} columns of {name}", order, known)
    if named is None:
        return (known[order] if order else want), want
    if order is not None:
        raise UsageError(f"--data columns={order}: {CLASS_NAMES} beside the lists already says their order")
    if len(named) != classes or set(named) != set(want):
        strange = [*map(quoted, sorted(set(named) - set(want)))] or [
            f"{len(named)} names for {classes} columns"
        ]
        raise HashbenchError(f"{name}: {CLASS_NAMES} does not name the classes of the lists: {strange[0]}")
    return named, want
