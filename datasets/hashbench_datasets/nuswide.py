"""NUS-WIDE: 269,648 Flickr images with 81 concepts, of which papers use the 21 or 10 most frequent."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hashbench.data.dataset import About, ColumnOrders, Dataset, DatasetPlugin
from hashbench.data.image_index import locate_all
from hashbench.data.list_files import ImageList, read_names
from hashbench.data.list_splits import LISTS, PROTOCOL, dataset_from_lists, find_lists, find_master
from hashbench.data.options import ListOptions
from hashbench.data.protocol import Protocol, draw, draw_by_quota
from hashbench.errors import HashbenchError, quoted

FOLDERS = ("nuswide", "nuswide_21", "NUS-WIDE", "")  # below the root, in order of preference
IMAGE_LISTS = ("ImageList/Imagelist.txt", "ImageList/ImageList.txt", "Imagelist.txt", "ImageList.txt")
LABEL_FOLDERS = ("Groundtruth/AllLabels", "AllLabels")
TRAIN_TEST_LABELS = "Groundtruth/TrainTestLabels"

# By name; ConceptsList/Concepts81.txt has the same order.
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
# The most frequent by frequency, the order that most lists have.
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

# Labels that published lists agree on; others mean that ImageList and Groundtruth do not belong together.
KNOWN_LABELS = {
    "barge/0021_2229209970.jpg": {"buildings", "grass", "reflection", "sky", "water"},
    "eagle/0088_344128068.jpg": {"animal", "clouds", "sky", "snow", "tree", "water"},
    "grizzly/0221_2369900546.jpg": {"animal", "road", "vehicle"},
    "town/0432_2112465299.jpg": {"clouds", "lake", "reflection", "road", "sky", "water"},
}

QUOTAS = {"21": (500, 100), "10": (500, 500)}  # a class: training images, queries
DRAWN_OF_81 = (10_000, 5_000)  # training images, queries


class NUSWide(DatasetPlugin):
    """NUS-WIDE from the official label files, or from list files; the images cannot be downloaded freely."""

    Options = ListOptions
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "21": Protocol(
            "of the images with any of the 21 most frequent concepts: places for 500 training images and 100 "
            "queries a class, filled in random order by the seed; all but the queries are the database",
            2_100,
            10_500,
            193_734,
        ),
        "10": Protocol(
            "of the images with any of the 10 most frequent concepts: places for 500 training images and 500 "
            "queries a class, filled in random order by the seed; all but the queries are the database",
            5_000,
            5_000,
            181_577,
        ),
        "81": Protocol(
            "of the images with any of the 81 concepts: 5,000 queries and 10,000 training images, drawn by "
            "the seed; all but the queries are the database",
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
            "nuswide/, nuswide_21/, NUS-WIDE/ or the root itself, with",
            "Groundtruth/AllLabels/Labels_<concept>.txt and ImageList/Imagelist.txt, as NUS distributes them",
            "and the images in any folders: Flickr/actor/0001_2124494179.jpg, images/0001_2124494179.jpg, …",
            "for the protocol lists: train.txt, test.txt, database.txt, one image a line: path, then the "
            "labels",
        ),
        notes=(
            "Published splits of these very sizes share few queries, since each was drawn anew.",
            "HashNet's lists of 81 concepts have 1,131 of 5,000 queries without a label; BiHalf's lists of "
            "21 and of 10 order their columns by name (--data columns=alphabetical).",
            "Six photographs are there twice; they are never drawn as queries or training images.",
            "Numbers at the start of `…_m.jpg` names are rows of NUS-WIDE-urls.txt, not of Imagelist.txt.",
        ),
        by_hand=(
            "NUS-WIDE needs two things, which only you can get. (1) The images: send the agreement form of "
            "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html; others "
            "keep copies of the 21-class images, such as ssaysham/nuswide-for-deephash on Kaggle and "
            "jiuntian/OrthoHash on Hugging Face. (2) The labels: Groundtruth.zip and ImageList.zip of the "
            "same page (also Lxyhaha/NUS-WIDE on Hugging Face); or the lists of a paper, such as "
            "data/nuswide_21 of https://github.com/swuxyj/DeepHash-pytorch, for --protocol lists. Put all "
            "of it into the folder nuswide below the data root"
        ),
    )
    column_orders: ClassVar[ColumnOrders] = ORDERS
    options: ListOptions

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the labels or lists and find the images; see `DatasetPlugin.load`."""
        folders = [root / name for name in FOLDERS]
        if protocol == LISTS:
            if self.options.lists is None and not any(map(_has_lists, folders)):
                raise HashbenchError(f"nuswide: no lists in {folders[0]}. {self.about.by_hand}")
            return dataset_from_lists("nuswide", self.options, folders, self.column_orders)
        folder = _official_folder(folders, self.about.by_hand)
        concepts = CONCEPTS if protocol == "81" else FREQUENT[: int(protocol)]
        listed = read_official(folder, concepts)
        labelled = listed.rows(np.flatnonzero(listed.labels.any(axis=1)))
        everything, warnings = locate_all(labelled, [folder, root], self.options)
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
        paths: Those of the labelled images.
        labels: Their labels, multi-hot [n, C].
        protocol: "21", "10" or "81".
        seed: Seed of the draw.

    Returns:
        Rows of the training images, of the queries, and of the others.

    Raises:
        HashbenchError: There are too few images.
    """
    photographs = [flickr_id(path) for path in paths]
    times = Counter(photographs)
    single = np.array([times[photograph] == 1 for photograph in photographs])
    if protocol != "81":
        return draw_by_quota(labels, QUOTAS[protocol], seed, only=single, class_names=FREQUENT)
    rows = np.flatnonzero(single)
    train, query, _ = (rows[drawn] for drawn in draw(len(rows), DRAWN_OF_81, seed))
    return [train, query, np.setdiff1d(np.arange(len(single)), np.concatenate([train, query]))]


def _conflicts(paths: Sequence[str], labels: NDArray[np.uint8]) -> list[str]:
    """A warning of photographs that are there twice with different labels."""
    rows: dict[str, int] = {}
    pairs = [
        (paths[first], path)
        for row, path in enumerate(paths)
        if (first := rows.setdefault(flickr_id(path), row)) != row and (labels[first] != labels[row]).any()
    ]
    if not pairs:
        return []
    listed = "; ".join(" and ".join(pair) for pair in pairs)
    return [f"{len(pairs):,} photographs are there twice with different labels: {listed}"]


def flickr_id(path: str) -> str:
    """The number of a photograph at Flickr, which is behind the `_` of a file's name."""
    return posixpath.basename(path).partition("_")[2].partition(".")[0]


def read_official(folder: Path, concepts: Sequence[str]) -> ImageList:
    r"""Read the official label files; their lines go with those of the list (`actor\0001_2124494179.jpg`).

    Args:
        folder: Where ImageList and Groundtruth are.
        concepts: Which to read.

    Returns:
        All images, labelled or not, in the order of the list.

    Raises:
        HashbenchError: A file is missing or damaged, or the list and the labels do not belong together.
    """
    image_list = _first(folder, IMAGE_LISTS)
    label_folder = _first(folder, LABEL_FOLDERS)
    assert image_list is not None
    assert label_folder is not None
    paths = tuple(path.replace("\\", "/") for path in read_names(image_list))
    columns = [read_column(label_folder / f"Labels_{name}.txt", len(paths)) for name in concepts]
    listed = ImageList(image_list, paths, np.stack(columns, axis=1))
    rows = {path: row for row, path in enumerate(paths) if path in KNOWN_LABELS}
    for path, row in rows.items():
        expected = KNOWN_LABELS[path] & set(concepts)
        found = {concept for concept, label in zip(concepts, listed.labels[row], strict=True) if label}
        if found & set(FREQUENT) != expected:
            raise HashbenchError(
                f"{label_folder} does not belong to {image_list}: {path} (line {row + 1}) would be "
                f"{', '.join(sorted(found)) or 'nothing'} and is {', '.join(sorted(expected))}; get both "
                "from one distribution"
            )
    return listed


def read_column(file: Path, images: int) -> NDArray[np.uint8]:
    """The labels of one concept, 0 or 1 a line.

    Args:
        file: `Labels_<concept>.txt`.
        images: How many lines it must have.

    Raises:
        HashbenchError: The file is missing, has another number of lines, or a line with something else.
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
            f"{file} has {len(lines):,} lines, and the image list {images:,}; they must have as many"
        )
    if len(digits) != images or digits.max() > 1:
        line = next(number for number, value in enumerate(lines, start=1) if value not in (b"0", b"1"))
        found = quoted(lines[line - 1].decode(errors="replace"))
        raise HashbenchError(f"{file}, line {line}: expected 0 or 1, found {found}; get the file again")
    return digits


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def _has_lists(folder: Path) -> bool:
    return bool(find_lists(folder) or find_master(folder))


def _official_folder(folders: Sequence[Path], by_hand: str) -> Path:
    """The folder that has the official label files."""
    there = [(folder, _first(folder, IMAGE_LISTS), _first(folder, LABEL_FOLDERS)) for folder in folders]
    for folder, image_list, labels in there:
        if image_list and labels:
            return folder
    for folder, image_list, labels in there:
        if labels:
            raise HashbenchError(f"nuswide: {folder} lacks {IMAGE_LISTS[0]}, which NUS distributes")
        if image_list or (folder / TRAIN_TEST_LABELS).is_dir():
            raise HashbenchError(
                f"nuswide: {folder} lacks {LABEL_FOLDERS[0]}, which NUS distributes; {TRAIN_TEST_LABELS} "
                "does not replace it, since line 78,372 of its Labels_lake_Train.txt is broken"
            )
        if _has_lists(folder):
            raise HashbenchError(
                f"nuswide: {folder} has lists, but not the official labels that this protocol is drawn from; "
                "say --protocol lists"
            )
    raise HashbenchError(f"nuswide: neither labels nor lists in {folders[0]}. {by_hand}")
