"""Images in one folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hashbench.data_options import FileOptions
from hashbench.dataset import Split
from hashbench.errors import HashbenchError
from hashbench.image_sets import FileImages

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")


def class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The names of the subfolders of some folders that have an image in them, sorted; no hidden ones."""
    entries = [entry for folder in folders if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()]
    names = {entry.name for entry in entries if not entry.name.startswith(".") and any(_images(entry))}
    return tuple(sorted(names))


def read_class_folders(folder: Path, classes: Sequence[str], base: Path, options: FileOptions) -> Split:
    """The images in the folders of some classes, by class and path.

    Args:
        folder: Where the folders of the classes are; there may be more folders inside them.
        classes: Their names; the class id is the place among them.
        base: Ids are paths relative to it.
        options: How to decode.

    Returns:
        The images, with class ids.

    Raises:
        HashbenchError: There is no image.
    """
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(_images(folder / name))  # the order of a folder differs between machines
        files += found
        labels += [label] * len(found)
    if not files:
        example = folder / (classes or ["cat"])[0] / "1.jpg"
        raise HashbenchError(f"{folder} has no images in a folder for each class, such as {example}")
    ids = [Path(os.path.relpath(file, base)).as_posix() for file in files]
    images = FileImages(files, ids, exif=options.exif, truncated=options.truncated)
    return Split(images, np.array(labels))


def _images(folder: Path) -> Iterator[str]:
    for inside, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]  # thumbnails and the like
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(inside, name)  # noqa: PTH118 - 100,000 of them
