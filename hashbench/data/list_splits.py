"""Splits that are given as list files, in the layouts that published code uses."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hashbench.data.dataset import ColumnOrders, Dataset, Split
from hashbench.data.image_index import locate, with_subfolders
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
PROTOCOL = Protocol("given by the list files in --lists DIR (else in the dataset's folder)")
CLASS_NAMES = "classes.txt"

_PARTS = {"train": "train", "query": "test|query", "database": "database|db"}
_LABELS = ("label_onehot", "label", "targets_onehot", "targets")  # for `*_img.txt`, in order of preference
_MASTERS = (
    ("allannots.txt", None),
    ("img.txt", "targets.txt"),
    ("img_tc10.txt", "targets_onehot_tc10.txt"),
    ("img_tc10.txt", "targets_tc10.txt"),
)
_NAMES = "|".join(  # all files that are read
    (
        rf"({'|'.join(_PARTS.values())})(\d+|_\w+)?\.(txt|csv)",
        *(re.escape(name) for pair in _MASTERS for name in pair if name),
        re.escape(CLASS_NAMES),
        r".*split.*\.json",
    )
)


@dataclass(frozen=True)
class Source:
    """A list file, and the file of its labels if they are stored separately."""

    file: Path
    labels: Path | None = None

    def read(self, classes: int | None, options: ListOptions) -> ImageList:
        """Read the list; see `read_list`."""
        if self.labels is None:
            return read_list(self.file, classes, options.label_format)
        return read_pair(self.file, self.labels, classes, options.label_format)


def find_lists(folder: Path) -> dict[str, list[Source]]:
    """Find the lists in a folder by part: "train", "query" and "database".

    For each part, the first layout that exists is used: `test.txt` or `test.csv`; `test_img.txt` and
    `test_label_onehot.txt`, with images and labels in separate files; `test0.txt`, `test1.txt`, …, the pieces
    of one list; `test_coco.txt`, with a tag. Queries are named test or query, the database database or db.

    Raises:
        HashbenchError: Several files match a part, or pieces of a list are missing.
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
        label_file = next(filter(Path.is_file, labels), None)
        if label_file is None:
            raise HashbenchError(f"{file} lists images, but {labels[0].name} with their labels is missing")
        return [Source(file, label_file)]
    if pieces := _match(names, rf"({words})\d+\.(txt|csv)"):
        numbered = sorted((int(re.sub(r"\D", "", name)), name) for name in pieces)
        if [number for number, _ in numbered] != list(range(len(pieces))):
            raise HashbenchError(
                f"{folder} has the pieces {', '.join(name for _, name in numbered)} of a list; "
                f"expected each piece from 0 to {numbered[-1][0]} once"
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
            f"{folder} has {' and '.join(names)}, which is ambiguous; keep only the lists of one split there"
        )
    return folder / names[0]


def find_master(folder: Path) -> tuple[Source, Path | None] | None:
    """Find a list of all images, and the JSON file with the row indices of a split, if they exist.

    The list is `allannots.txt`, `img.txt` and `targets.txt`, or `img_tc10.txt` and `targets_onehot_tc10.txt`;
    the JSON file has "split" in its name.

    Raises:
        HashbenchError: There are several JSON files, or a JSON file but no list.
    """
    masters = [Source(folder / images, folder / labels if labels else None) for images, labels in _MASTERS]
    source = next((m for m in masters if m.file.is_file() and (m.labels is None or m.labels.is_file())), None)
    splits = [path.name for path in sorted(folder.glob("*split*.json")) if not is_system_file(path.name)]
    if splits and source is None:
        raise HashbenchError(
            f"{folder / splits[0]} has row indices of a list of all images, but there is no such list; add "
            "allannots.txt, or img.txt and targets.txt"
        )
    return (source, _only(folder, splits) if splits else None) if source else None


def lists_below(folders: Sequence[Path]) -> Path | None:
    """Return the first of the folders, or of those up to two levels below the first, that has lists."""
    deeper = (folder for level in with_subfolders(folders[:1]) for folder in level)
    return next((folder for folder in (*folders, *deeper) if _has_lists(folder)), None)


def _has_lists(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} - {CLASS_NAMES} if folder.is_dir() else set()
    return any(re.fullmatch(_NAMES, name) for name in names)


def dataset_from_lists(
    name: str,
    options: ListOptions,
    folders: Sequence[Path],
    orders: ColumnOrders | None = None,
    *,
    key: Callable[[str], str] = posixpath.basename,
    image_id: Callable[[str, str], str] | None = None,
) -> Dataset:
    """Load a dataset with a split that is given by list files.

    Args:
        name: Name of the dataset.
        options: Options that the user chose.
        folders: Folders that may contain the images; the lists are in the first one that has any, unless
            `options.lists` is set.
        orders: Orders of the label columns in lists of this dataset; None: its classes are not known.
        key: Maps a path to the key that identifies its image; by default the file name.
        image_id: Maps a listed path and its file to the id of the image; None: the path without the folders
            that all paths share.

    Raises:
        HashbenchError: Lists or images are missing or damaged.
    """
    lists, class_names, not_read = _read(name, options, folders, orders or {})
    roots = [*([options.lists] if options.lists else []), *folders]
    every = [piece for pieces in lists.values() for piece in pieces]
    located, warnings = locate(every, roots, missing=options.missing, key=key)
    if image_id is None:
        ids = short_ids([piece.paths for piece, _ in located])
    else:
        ids = [[*map(image_id, piece.paths, files)] for piece, files in located]
    remaining = iter(zip(located, ids, strict=True))
    splits = {}
    for part, pieces in lists.items():
        found = [next(remaining) for _ in pieces]
        images = FileImages(
            [file for (_, files), _ in found for file in files],
            [image for _, piece_ids in found for image in piece_ids],
            exif=options.exif,
            truncated=options.truncated,
        )
        splits[part] = Split(images, np.concatenate([piece.labels for (piece, _), _ in found]))
    warnings += [*not_read, *_draw_absent(splits, options)]
    return Dataset.from_splits(name, LISTS, class_names, **splits, options=options, warnings=warnings)


def _draw_absent(splits: dict[str, Split], options: ListOptions) -> list[str]:
    """Draw the parts that no list has, and return warnings about them."""
    if "all" in splits:
        everything = splits.pop("all")
        assert options.train is not None  # otherwise, `_require` has failed
        assert options.query is not None
        train, query, rest = draw(len(everything.images), [options.train, options.query], options.seed)
        splits |= {"train": everything.subset(train), "query": everything.subset(query)}
        splits["database"] = everything.subset(np.sort(np.concatenate([train, rest])))
        return [
            f"{options.query:,} queries are drawn from a list of all images; the other images are the "
            f"database, from which {options.train:,} training images are drawn"
        ]
    if "train" in splits:
        return []
    assert options.train is not None
    query_ids = set(splits["query"].images.ids)
    rows = np.array([row for row, name in enumerate(splits["database"].images.ids) if name not in query_ids])
    drawn, _ = draw(len(rows), [options.train], options.seed)
    splits["train"] = splits["database"].subset(rows[drawn])
    return [f"the lists have no training images; {options.train:,} are drawn from the database"]


def _read(
    name: str, options: ListOptions, folders: Sequence[Path], orders: ColumnOrders
) -> tuple[dict[str, list[ImageList]], Sequence[str], list[str]]:
    """Return the pieces of the list of each part, the class names, and warnings."""
    if options.lists is not None and not options.lists.is_dir():
        raise UsageError(f"--lists {options.lists}: the folder does not exist")
    searched = [options.lists] if options.lists else folders
    folder = next((f for f in searched if find_lists(f) or find_master(f)), searched[0])
    not_read = in_other_case(folder, _NAMES)
    named = read_names(folder / CLASS_NAMES) if (folder / CLASS_NAMES).is_file() else None
    classes = (
        options.classes or (len(named) if named else None) or (min(orders) if len(orders) == 1 else None)
    )
    if classes == 1 and options.label_format == "auto":
        options = options.model_copy(update={"label_format": "multihot"})  # the only class id would be 0
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
                f"{name}: {source.file} lists all images, and its folder has no split; to draw one, pass "
                "--data query=N and --data train=N"
            )
        else:
            lists = {"all": [everything]}
    else:
        if not found:
            raise _no_lists(name, searched, not_read)
        _require(name, folder, found, options, not_read)
        for part, sources in found.items():
            lists[part] = []
            for source in sources:
                piece = source.read(classes, options)
                classes = piece.labels.shape[1]  # the number of classes must be the same in all lists
                lists[part].append(piece)
    columns = next(iter(lists.values()))[0].labels.shape[1]
    listed, target = _columns(name, columns, named, options.columns, orders)
    if tuple(listed) == tuple(target):
        return lists, target, not_read
    permutation = [listed.index(class_name) for class_name in target]
    ordered = {
        part: [replace(piece, labels=piece.labels[:, permutation]) for piece in pieces]
        for part, pieces in lists.items()
    }
    return ordered, target, not_read


def _no_lists(name: str, searched: Sequence[Path], not_read: Sequence[str]) -> HashbenchError:
    below = lists_below(searched)
    their_folder = "DIR" if below is None or below in searched else shlex.quote(str(below))
    return HashbenchError(
        f"{name}: {searched[0]} has no lists",
        *not_read,
        "expected, with one image per line (its path, then its labels):",
        "├── train.txt",
        "├── test.txt (the queries)",
        "└── database.txt",
        "or another layout of datasets/README.md",
        f"next: pass their folder with --lists {their_folder}",
    )


def _require(
    name: str,
    folder: Path,
    found: Mapping[str, list[Source]],
    options: ListOptions,
    not_read: Sequence[str],
) -> None:
    """Check that there is a list for each part, or an option to draw the part."""
    details = "".join(f"; {warning}" for warning in not_read)
    given = [part for part in ("train", "query") if part in found and getattr(options, part) is not None]
    if given:
        raise UsageError(f"--data {given[0]}: {folder} has a list of them, so none can be drawn; omit it")
    absent = [part for part in _PARTS if part not in found and not (part == "train" and options.train)]
    if absent:
        hint = "; to draw training images from the database, pass --data train=N" if "train" in absent else ""
        raise HashbenchError(
            f"{name}: {folder} has lists for {' and '.join(found)}, but none for {' and '.join(absent)}{hint}"
            f"{details}"
        )


def _columns(
    name: str, classes: int, named: Sequence[str] | None, order: str | None, orders: ColumnOrders
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the class names in the order of the label columns, and in the order of the dataset."""
    known = orders.get(classes, {})
    if orders and not known and named:  # the lists may have a subset of the classes
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
        raise HashbenchError(f"{name}: {CLASS_NAMES} has {quoted(unknown)}, which is not a class of {name}")
    if orders and not known:
        raise HashbenchError(
            f"{name}: expected {' or '.join(map(str, sorted(orders)))} classes, got lists with {classes}; "
            f"for a subset, write the class names into {CLASS_NAMES} in the folder of the lists, one per line"
        )
    target = next(iter(known.values()), named or [str(number) for number in range(classes)])
    if order is not None and order not in known:
        raise unknown_name(f"order of {classes} columns of {name}", order, known)
    if named is None:
        return (known[order] if order else target), target
    if order is not None:
        raise UsageError(f"--data columns={order}: {CLASS_NAMES} already gives the order; omit one of them")
    if len(named) != classes or set(named) != set(target):
        unknown_classes = [*map(quoted, sorted(set(named) - set(target)))]
        problem = (unknown_classes or [f"{len(named)} names for {classes} columns"])[0]
        raise HashbenchError(f"{name}: {CLASS_NAMES} does not match the classes of the lists: {problem}")
    return named, target
