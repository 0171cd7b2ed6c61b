"""Images in one folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hashbench.data_options import FileOptions
from hashbench.dataset import Split
from hashbench.errors import HashbenchError
from hashbench.image_sets import FileImages
from hashbench.protocol import Protocol
from hashbench.walking import walk

FOLDERS = "folders"
PROTOCOL = Protocol("the folders train/, query/ (or test/) and database/ decide, each with a folder a class")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".tif", ".tiff"),
)


def class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The names of the subfolders of some folders that have an image in them, sorted; no hidden ones."""
    entries = [entry for folder in folders if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()]
    names = {entry.name for entry in entries if not entry.name.startswith(".") and _images(entry)}
    return tuple(sorted(names))


def read_class_folders(
    folder: Path, classes: Sequence[str], options: FileOptions, image_id: Callable[[str], str]
) -> Split:
    """The images in the folders of some classes, by class and path.

    Args:
        folder: Where the folders of the classes are; there may be more folders inside them.
        classes: Their names; the class id is the place among them.
        options: How to decode.
        image_id: The id of an image by its file.

    Returns:
        The images, with class ids.

    Raises:
        HashbenchError: There is no image.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images(folder / name)
        files += found
        labels += [label] * len(found)
    if not files:
        example = folder / (classes or ["cat"])[0] / "1.jpg"
        raise HashbenchError(f"{folder} has no images in a folder for each class, such as {example}")
    images = FileImages(files, [image_id(f) for f in files], exif=options.exif, truncated=options.truncated)
    return Split(images, np.array(labels))


def read_split_folders(
    base: Path, classes: Sequence[str] | None, options: FileOptions, image_id: Callable[[str], str]
) -> tuple[dict[str, Split], Sequence[str]]:
    """A split that folders decide: train/, query/ (or test/) and database/; see `read_class_folders`.

    Args:
        base: Where these folders are.
        classes: The names of the classes; None: those that there are.
        options: How to decode.
        image_id: The id of an image by its file.

    Returns:
        The parts by name, and the names of the classes.
    """
    folders = {
        "train": base / "train",
        "query": base / ("query" if (base / "query").is_dir() else "test"),
        "database": base / "database",
    }
    classes = classes or class_names([*folders.values()])
    parts = {name: read_class_folders(f, classes, options, image_id) for name, f in folders.items()}
    return parts, classes


def ignored_files(folders: Sequence[Path]) -> list[str]:
    """A warning if some folders have files that are not taken for images, by their suffix."""
    files = [os.path.join(inside, name) for f in folders for inside, names in walk(f) for name in names]  # noqa: PTH118
    others = [file for file in files if not file.lower().endswith(SUFFIXES)]
    if not others:
        return []
    return [
        f"{len(others):,} files are left out, since their suffix is not that of an image, as of {min(others)}"
    ]


def _images(folder: Path) -> list[str]:
    return sorted(
        os.path.join(inside, name)  # noqa: PTH118 - 100,000 of them
        for inside, names in walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES)
    )
