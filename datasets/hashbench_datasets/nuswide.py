"""NUS-WIDE: Flickr images of the 21 most frequent of 81 concepts, split by lists of hashing papers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hashbench.dataset import Dataset, DatasetPlugin, FileImages, Split
from hashbench.errors import HashbenchError
from hashbench.lists import locate, read_list

FOLDERS = ("nuswide", "nuswide_21", "NUS-WIDE", "")  # below the root, in order of preference
LISTS = ("train.txt", "test.txt", "database.txt")

# By frequency, as in the lists of HashNet, DeepHash-pytorch and others; some lists order them by name.
# Relevance is the same in any order that all three lists share.
CLASSES = (
    *("sky", "clouds", "person", "water", "animal", "grass", "buildings", "window", "plants", "lake"),
    *("ocean", "road", "flowers", "sunset", "reflection", "rocks", "vehicle", "snow", "tree", "beach"),
    "mountain",
)
USUAL_COUNTS = (10_500, 2_100, 193_734)  # of LISTS


class NUSWide(DatasetPlugin):
    """NUS-WIDE from image files and lists that the user provides; it cannot be downloaded freely."""

    protocols: ClassVar[Mapping[str, str]] = {
        "21": "the 21 most frequent concepts, split by the lists train.txt, test.txt (queries) and "
        "database.txt; usually 10,500, 2,100 and 193,734 images"
    }

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the lists and find the images; see `DatasetPlugin.load`."""
        folder = _list_folder(root)
        lists = [read_list(folder / name, len(CLASSES)) for name in LISTS]
        train, query, database = (
            Split(FileImages(files, entry.paths), entry.labels)
            for entry, files in zip(lists, locate(lists, [folder, root]), strict=True)
        )
        counts = tuple(len(entry.paths) for entry in lists)
        unusual = f"the lists have {_spell(counts)}; the usual split has {_spell(USUAL_COUNTS)}"
        return Dataset.from_splits(
            "nuswide",
            protocol,
            CLASSES,
            train=train,
            query=query,
            database=database,
            warnings=[unusual] if counts != USUAL_COUNTS else [],
        )


def _list_folder(root: Path) -> Path:
    """The folder that holds the lists."""
    for folder in (root / name for name in FOLDERS):
        absent = [name for name in LISTS if not (folder / name).is_file()]
        if not absent:
            return folder
        if len(absent) < len(LISTS):
            raise HashbenchError(
                f"nuswide: {folder} lacks {' and '.join(absent)}; "
                f"all of {', '.join(LISTS)} of one split must be there"
            )
    raise HashbenchError(
        f"nuswide: found none of {', '.join(LISTS)} in {root} or its folders {', '.join(FOLDERS[:-1])}. "
        "NUS-WIDE needs two things, which only you can get. "
        "(1) The images: send the agreement form of "
        "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html, which also has "
        "the labels of all 81 concepts; others keep copies of the 21-class images, such as "
        "ssaysham/nuswide-for-deephash on Kaggle and jiuntian/OrthoHash on Hugging Face. "
        "(2) The lists, one image a line, `path l1 … l21`, such as data/nuswide_21 of "
        "https://github.com/swuxyj/DeepHash-pytorch. "
        f"Put the lists into {root / FOLDERS[0]} and the images anywhere below it"
    )


def _spell(counts: tuple[int, ...]) -> str:
    train, query, database = counts
    return f"{query:,} queries, {train:,} training images and a database of {database:,}"
