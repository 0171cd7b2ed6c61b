"""MIRFLICKR-25k: 25,000 Flickr images with 24 or 38 labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from hashbench.data.dataset import About, ColumnOrders, Dataset, DatasetPlugin
from hashbench.data.download import Archive
from hashbench.data.image_index import find_folder, locate_all, missing_data, up_to
from hashbench.data.list_files import ImageList, read_names, whole_number
from hashbench.data.list_splits import LISTS, PROTOCOL, dataset_from_lists
from hashbench.data.options import ListOptions
from hashbench.data.protocol import Protocol, draw
from hashbench.errors import HashbenchError, quoted

FOLDERS = ("flickr25k", "mirflickr25k", "mirflickr", "")  # below the root, in order of preference
ANNOTATIONS = "mirflickr25k_annotations_v080"
MARKER = "plant_life.txt"  # the label file whose name is least likely in other datasets
SITE = "https://press.liacs.nl/mirflickr/mirflickr25k.v3b"
IMAGES = 25_000

POTENTIAL = (
    *("animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor", "lake"),
    *("male", "night", "people", "plant_life", "portrait", "river", "sea", "sky", "structures", "sunset"),
    *("transport", "tree", "water"),
)
# Stricter annotations of some of these labels.
RELEVANT = (
    *("baby_r1", "bird_r1", "car_r1", "clouds_r1", "dog_r1", "female_r1", "flower_r1", "male_r1", "night_r1"),
    *("people_r1", "portrait_r1", "river_r1", "sea_r1", "tree_r1"),
)
ALL = tuple(sorted(POTENTIAL + RELEVANT))
# Some published lists have the columns in the order in which their author's machine listed the files.
ORDERS: ColumnOrders = {
    24: {
        "alphabetical": POTENTIAL,
        "bihalf": (
            *("people", "plant_life", "car", "portrait", "female", "indoor", "night", "baby", "structures"),
            *("clouds", "tree", "flower", "transport", "animals", "water", "dog", "sunset", "male", "food"),
            *("sea", "lake", "river", "sky", "bird"),
        ),
        "dpchash": (
            *("transport", "car", "portrait", "indoor", "river", "clouds", "animals", "people", "food"),
            *("plant_life", "male", "lake", "sea", "water", "bird", "baby", "tree", "female", "night"),
            *("sunset", "structures", "flower", "dog", "sky"),
        ),
    },
    38: {"alphabetical": ALL},
}
DRAWN = {"24": (5_000, 2_000), "38": (4_000, 1_000)}  # number of labels -> training images, queries


class Flickr25k(DatasetPlugin):
    """MIRFLICKR-25k from its annotation files, or from list files."""

    Options = ListOptions
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "24": Protocol(
            "24 labels, all images: 2,000 queries and 5,000 training images, drawn by the seed; all but the "
            "queries are the database (the sizes of BiHalf and SPQ)",
            2_000,
            5_000,
            23_000,
        ),
        "24-labelled": Protocol(
            "as 24, from the 24,581 images with any label",
            2_000,
            5_000,
            22_581,
        ),
        "38": Protocol(
            "38 labels, all images: 1,000 queries and 4,000 training images, drawn by the seed; all others "
            "are the database (the sizes of DeepHash-pytorch)",
            1_000,
            4_000,
            20_000,
        ),
        "38-labelled": Protocol(
            "as 38, from the 24,581 images with any label",
            1_000,
            4_000,
            19_581,
        ),
        LISTS: PROTOCOL,
    }
    about: ClassVar[About] = About(
        licence="each image under a Creative Commons licence, named in meta/license",
        source="https://press.liacs.nl/mirflickr/mirdownload.html",
        size="3.1 GB",
        layout=(
            "flickr25k/, mirflickr25k/, mirflickr/ or the root itself",
            f"├── {ANNOTATIONS}/animals.txt, …",
            "├── mirflickr/im1.jpg to im25000.jpg, in any folder",
            "└── train.txt, test.txt, database.txt for the protocol lists; each line a path and its labels",
        ),
        notes=(
            "419 images have none of the labels; as queries, they have an AP of 0 with any method.",
            "24 labels are usual; the 38 labels include stricter annotations of 14 of them.",
            "The order of the label columns differs between repositories: pass --data columns=bihalf or "
            "columns=dpchash; the default is alphabetical.",
        ),
    )
    downloads: ClassVar[Sequence[Archive]] = (
        Archive(
            f"{SITE}/mirflickr25k_annotations_v080.zip",
            "aa0138c79892b1b670184d142380948f",
            "flickr25k/mirflickr25k_annotations_v080.zip",
            f"flickr25k/{ANNOTATIONS}",
            "207 kB",
        ),
        Archive(
            f"{SITE}/mirflickr25k.zip",
            "a23d0a8564ee84cda5622a6c2f947785",
            "flickr25k/mirflickr25k.zip",
            "flickr25k/mirflickr",
            "3.1 GB",
        ),
    )
    column_orders: ClassVar[ColumnOrders] = ORDERS
    options: ListOptions

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the annotations or lists and find the images; see `DatasetPlugin.load`."""
        folders = [root / name for name in FOLDERS]
        if protocol == LISTS:
            return dataset_from_lists("flickr25k", self.options, folders, self.column_orders)
        folder = find_folder(folders, _annotations)
        annotations = _annotations(folder) if folder else None
        if annotations is None:
            raise missing_data("flickr25k", self, root, f"{ANNOTATIONS}/{MARKER}", protocol)
        labels, _, labelled = protocol.partition("-")
        classes = POTENTIAL if labels == "24" else ALL
        listed = read_annotations(annotations, classes)
        if labelled:
            listed = listed.rows(np.flatnonzero(listed.labels.any(axis=1)))
        everything, warnings = locate_all(listed, up_to(root, annotations), self.options)
        train, query, rest = draw(len(everything.images), DRAWN[labels], self.options.seed)
        database = np.sort(np.concatenate([train, rest])) if labels == "24" else rest
        return Dataset.from_splits(
            "flickr25k",
            protocol,
            classes,
            train=everything.subset(train),
            query=everything.subset(query),
            database=everything.subset(database),
            options=self.options,
            warnings=warnings,
        )


def _annotations(folder: Path) -> Path | None:
    return next((folder / n for n in (ANNOTATIONS, "") if (folder / n / MARKER).is_file()), None)


def read_annotations(folder: Path, classes: Sequence[str]) -> ImageList:
    """Read the label files, which list the numbers of the images of a class, from 1.

    Args:
        folder: Folder of the files `<class>.txt`.
        classes: Classes to read.

    Returns:
        All images, with and without labels, sorted by number.

    Raises:
        HashbenchError: A file is missing, or has a line that is not the number of an image.
    """
    labels = np.zeros((IMAGES, len(classes)), np.uint8)
    for column, name in enumerate(classes):
        file = folder / f"{name}.txt"
        for line, text in enumerate(read_names(file), start=1):
            number = whole_number(text)
            if number is None or not 1 <= number <= IMAGES:
                raise HashbenchError(
                    f"{file}, line {line}: expected the number of an image from 1 to {IMAGES}, got "
                    f"{quoted(text)}; get the annotations again"
                )
            labels[number - 1, column] = 1
    paths = tuple(f"im{number}.jpg" for number in range(1, IMAGES + 1))
    return ImageList(folder, paths, labels, np.zeros(IMAGES, np.int64))
