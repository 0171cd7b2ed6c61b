"""NUS-WIDE: 269,648 Flickr images with 81 concepts; most papers use the 21 or 10 most frequent ones."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hashbench.data.dataset import About, ColumnOrders, Dataset, DatasetPlugin
from hashbench.data.image_index import find_folder, locate_all, missing_data, up_to
from hashbench.data.list_files import ImageList, read_names
from hashbench.data.list_splits import LISTS, PROTOCOL, dataset_from_lists, lists_below
from hashbench.data.options import ListOptions
from hashbench.data.protocol import Protocol, draw, draw_by_quota
from hashbench.errors import HashbenchError, quoted

FOLDERS = ("nuswide", "nuswide_21", "NUS-WIDE", "")  # below the root, in order of preference
IMAGE_LISTS = ("ImageList/Imagelist.txt", "ImageList/ImageList.txt", "Imagelist.txt", "ImageList.txt")
LABEL_FOLDERS = ("Groundtruth/AllLabels", "AllLabels")
TRAIN_TEST_LABELS = "Groundtruth/TrainTestLabels"

# In alphabetical order, as in ConceptsList/Concepts81.txt.
CONCEPTS = (
    *("airport", "animal", "beach", "bear", "birds", "boats", "book", "bridge", "buildings", "cars"),
    *("castle", "cat", "cityscape", "clouds", "computer", "coral", "cow", "dancing", "dog", "earthquake"),
    *("elk", "fire", "fish", "flags", "flowers", "food", "fox", "frost", "garden", "glacier", "grass"),
    *("harbor", "horses", "house", "lake", "leaf", "map", "military", "moon", "mountain", "nighttime"),
    *("ocean", "person", "plane", "plants", "police", "protest", "railroad", "rainbow", "reflection", "road"),
    *("rocks", "running", "sand", "sign", "sky", "snow", "soccer", "sports", "statue", "street", "sun"),
    *("sunset", "surf", "swimmers", "tattoo", "temple", "tiger", "tower", "town", "toy", "train", "tree"),
    *("valley", "vehicle", "water", "waterfall", "wedding", "whales", "window", "zebra"),
)
# The most frequent concepts, sorted by frequency as in most lists.
FREQUENT = (
    *("sky", "clouds", "person", "water", "animal", "grass", "buildings", "window", "plants", "lake"),
    *("ocean", "road", "flowers", "sunset", "reflection", "rocks", "vehicle", "snow", "tree", "beach"),
    "mountain",
)
ORDERS: ColumnOrders = {
    21: {"frequency": FREQUENT, "alphabetical": sorted(FREQUENT)},
    10: {"frequency": FREQUENT[:10], "alphabetical": sorted(FREQUENT[:10])},
    81: {"alphabetical": CONCEPTS},
}

# Labels on which published lists agree; other labels mean that ImageList and Groundtruth do not match.
KNOWN_LABELS = {
    "barge/0021_2229209970.jpg": {"buildings", "grass", "reflection", "sky", "water"},
    "eagle/0088_344128068.jpg": {"animal", "clouds", "sky", "snow", "tree", "water"},
    "grizzly/0221_2369900546.jpg": {"animal", "road", "vehicle"},
    "town/0432_2112465299.jpg": {"clouds", "lake", "reflection", "road", "sky", "water"},
}

QUOTAS = {"21": (500, 100), "10": (500, 500)}  # per class: training images, queries
DRAWN_OF_81 = (10_000, 5_000)  # training images, queries


class NUSWide(DatasetPlugin):
    """NUS-WIDE from the official label files, or from list files; the images have no public download."""

    Options = ListOptions
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "21": Protocol(
            "from the images with any of the 21 most frequent concepts: quotas of 500 training images and "
            "100 queries per class, filled in random order by the seed; all but the queries are the database",
            2_100,
            10_500,
            193_734,
        ),
        "10": Protocol(
            "from the images with any of the 10 most frequent concepts: quotas of 500 training images and "
            "500 queries per class, filled in random order by the seed; all but the queries are the database",
            5_000,
            5_000,
            181_577,
        ),
        "81": Protocol(
            "5,000 queries and 10,000 training images, drawn by the seed from the images with any of the 81 "
            "concepts; all but the queries are the database",
            5_000,
            10_000,
            204_347,
        ),
        LISTS: PROTOCOL,
    }
    about: ClassVar[About] = About(
        licence="images belong to the Flickr users; for research, after an agreement with NUS",
        source="https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html",
        size="about 22 GB for the images of the 21 concepts",
        layout=(
            "nuswide/, nuswide_21/, NUS-WIDE/ or the root itself",
            "├── Groundtruth/AllLabels/Labels_<concept>.txt",
            "├── ImageList/Imagelist.txt",
            "├── Flickr/actor/0001_2124494179.jpg, …; or images/0001_2124494179.jpg, …; in any folders",
            "└── train.txt, test.txt, database.txt for the protocol lists; each line a path and its labels",
        ),
        notes=(
            "Published splits of the same sizes share few queries, since each was drawn independently.",
            "In HashNet's lists of 81 concepts, 1,131 of 5,000 queries have no label; the columns of "
            "BiHalf's lists of 21 and 10 concepts are in alphabetical order (--data columns=alphabetical).",
            "Six photographs are included twice; they are never drawn as queries or training images.",
            "Numbers at the start of `…_m.jpg` names are rows of NUS-WIDE-urls.txt, not of Imagelist.txt.",
        ),
        by_hand=(
            "get the images: send the agreement form of\n"
            "  https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html\n"
            "  or copy those of the 21 concepts: ssaysham/nuswide-for-deephash on Kaggle,\n"
            "  jiuntian/OrthoHash on Hugging Face\n"
            "get the labels: Groundtruth.zip and ImageList.zip of the same page,\n"
            "  or Lxyhaha/NUS-WIDE on Hugging Face\n"
            "or the lists of a paper, for --protocol lists:\n"
            "  data/nuswide_21 of https://github.com/swuxyj/DeepHash-pytorch"
        ),
    )
    column_orders: ClassVar[ColumnOrders] = ORDERS
    options: ListOptions

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the labels or lists and find the images; see `DatasetPlugin.load`."""
        folders = [root / name for name in FOLDERS]
        if protocol == LISTS:
            if self.options.lists is None and lists_below(folders) is None:
                raise missing_data("nuswide", self, root, "lists", protocol)
            return dataset_from_lists("nuswide", self.options, folders, self.column_orders)
        image_list, label_folder = (_find(folders, names) for names in (IMAGE_LISTS, LABEL_FOLDERS))
        if image_list is None or label_folder is None:
            raise missing_data("nuswide", self, root, _missing(folders, image_list, label_folder), protocol)
        concepts = CONCEPTS if protocol == "81" else FREQUENT[: int(protocol)]
        listed = read_official(image_list, label_folder, concepts)
        labelled = listed.rows(np.flatnonzero(listed.labels.any(axis=1)))
        everything, warnings = locate_all(labelled, up_to(root, image_list.parent), self.options)
        warnings += _conflicts(everything.images.ids, everything.labels)
        train, query, rest = draw_split(everything.images.ids, everything.labels, protocol, self.options.seed)
        return Dataset.from_splits(
            "nuswide",
            protocol,
            concepts,
            train=everything.subset(train),
            query=everything.subset(query),
            database=everything.subset(np.sort(np.concatenate([train, rest]))),
            options=self.options,
            warnings=warnings,
        )


def draw_split(
    paths: Sequence[str], labels: NDArray[np.uint8], protocol: str, seed: int
) -> list[NDArray[np.int64]]:
    """Draw training images and queries.

    Args:
        paths: Paths of the labelled images.
        labels: Labels of these images, multi-hot [n, C].
        protocol: "21", "10" or "81".
        seed: Random seed.

    Returns:
        Row indices of the training images, the queries and the remaining images.

    Raises:
        HashbenchError: There are too few images.
    """
    photographs = [flickr_id(path) for path in paths]
    counts = Counter(photographs)
    unique = np.array([counts[photograph] == 1 for photograph in photographs])
    if protocol != "81":
        return draw_by_quota(labels, QUOTAS[protocol], seed, only=unique, class_names=FREQUENT)
    rows = np.flatnonzero(unique)
    train, query, _ = (rows[drawn] for drawn in draw(len(rows), DRAWN_OF_81, seed))
    return [train, query, np.setdiff1d(np.arange(len(unique)), np.concatenate([train, query]))]


def _conflicts(paths: Sequence[str], labels: NDArray[np.uint8]) -> list[str]:
    """Return a warning about photographs that are included twice with different labels."""
    rows: dict[str, int] = {}
    pairs = [
        (paths[first], path)
        for row, path in enumerate(paths)
        if (first := rows.setdefault(flickr_id(path), row)) != row and (labels[first] != labels[row]).any()
    ]
    if not pairs:
        return []
    listed = "; ".join(" and ".join(pair) for pair in pairs)
    return [f"{len(pairs):,} photographs are included twice with different labels: {listed}"]


def flickr_id(path: str) -> str:
    """Return the id of a photograph at Flickr, which follows the `_` in the file name."""
    return posixpath.basename(path).partition("_")[2].partition(".")[0]


def read_official(image_list: Path, label_folder: Path, concepts: Sequence[str]) -> ImageList:
    r"""Read the official label files, whose lines match the image list (`actor\0001_2124494179.jpg`).

    Args:
        image_list: The file `Imagelist.txt`.
        label_folder: The folder `AllLabels`.
        concepts: Concepts to read.

    Returns:
        All images, with and without labels, in the order of the list.

    Raises:
        HashbenchError: A file is missing or damaged, or the list and the labels do not match.
    """
    paths = tuple(path.replace("\\", "/") for path in read_names(image_list))
    columns = [read_column(label_folder / f"Labels_{name}.txt", len(paths)) for name in concepts]
    listed = ImageList(image_list, paths, np.stack(columns, axis=1))
    rows = {path: row for row, path in enumerate(paths) if path in KNOWN_LABELS}
    for path, row in rows.items():
        expected = KNOWN_LABELS[path] & set(concepts)
        found = {concept for concept, label in zip(concepts, listed.labels[row], strict=True) if label}
        if found & set(FREQUENT) != expected:
            raise HashbenchError(
                f"{label_folder} does not match {image_list}: expected {path} (line {row + 1}) to be "
                f"{', '.join(sorted(expected))}, got {', '.join(sorted(found)) or 'nothing'}; get both from "
                "the same source"
            )
    return listed


def read_column(file: Path, images: int) -> NDArray[np.uint8]:
    """Read the labels of a concept, with 0 or 1 in each line.

    Args:
        file: `Labels_<concept>.txt`.
        images: Expected number of lines.

    Raises:
        HashbenchError: The file is missing, or has another number of lines or other values.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise HashbenchError(f"{file} cannot be read: {error.strerror}") from error
    characters = np.frombuffer(content, np.uint8)
    digits = characters[characters > ord(" ")] - ord("0")
    lines = content.split()
    if len(lines) != images:
        raise HashbenchError(
            f"{file}: expected {images:,} lines as in the image list, got {len(lines):,}; get both from the "
            "same source"
        )
    if len(digits) != images or digits.max() > 1:
        line = next(number for number, value in enumerate(lines, start=1) if value not in (b"0", b"1"))
        found = quoted(lines[line - 1].decode(errors="replace"))
        raise HashbenchError(f"{file}, line {line}: expected 0 or 1, got {found}; get the file again")
    return digits


def _first(names: Sequence[str], folder: Path) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _find(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    """Find one of several files or folders in the folder of the dataset."""
    folder = find_folder(folders, partial(_first, names))
    return None if folder is None else _first(names, folder)


def _missing(folders: Sequence[Path], image_list: Path | None, label_folder: Path | None) -> str:
    """Describe what is missing of the official files, and why what is there does not replace it."""
    if label_folder is not None:
        return f"{IMAGE_LISTS[0]} for {label_folder}"
    if _find(folders, [TRAIN_TEST_LABELS]) is not None:
        return (
            f"{LABEL_FOLDERS[0]} ({TRAIN_TEST_LABELS} cannot replace it, since line 78,372 of its "
            "Labels_lake_Train.txt is broken)"
        )
    if image_list is None and (with_lists := lists_below(folders)) is not None:
        return f"{LABEL_FOLDERS[0]} ({with_lists} has lists; to use them, pass --protocol lists)"
    return LABEL_FOLDERS[0]
