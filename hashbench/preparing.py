"""Getting the data of a dataset ready: downloads, list files, images for other people's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hashbench.dataset import Dataset, DatasetPlugin
from hashbench.errors import HashbenchError, UsageError
from hashbench.image_sets import FileImages, Images
from hashbench.lists import short_ids, write_list
from hashbench.progress import progress
from hashbench.split_lists import CLASS_NAMES

LIST_NAMES = ("train.txt", "test.txt", "database.txt")


def obtain(plugin: DatasetPlugin, root: Path, protocol: str) -> Dataset:
    """Load a dataset, and download first what it lacks and may be downloaded.

    Args:
        plugin: The dataset.
        root: The data root.
        protocol: One of its protocols.

    Raises:
        HashbenchError: Something cannot be downloaded, or only the user can get it.
    """
    try:
        return plugin.load(root, protocol)
    except HashbenchError as error:
        if isinstance(error, UsageError) or not plugin.downloads:
            raise
    for archive in plugin.downloads:
        archive.obtain(root)
    return plugin.load(root, protocol)


def export_lists(dataset: Dataset, folder: Path, *, write_images: bool = False) -> list[Path]:
    """Write a split as list files, `path l1 … lC` a line, and the names of the classes.

    Paths of images in files leave out the folders that all of them share; those of images in memory are their
    ids, as PNG files.

    Args:
        dataset: What to write.
        folder: Where to; made if it is missing.
        write_images: Write the PNG files of images in memory, too.

    Returns:
        The files: train.txt, test.txt (the queries), database.txt, classes.txt.

    Raises:
        HashbenchError: A path has a blank, images in files should be written, or something cannot be written.
    """
    parts: list[tuple[Images, NDArray[Any]]] = [
        (dataset.train, dataset.train_labels),
        (dataset.query.images, dataset.query.labels),
        (dataset.database.images, dataset.database.labels),
    ]
    in_files = [images.paths for images, _ in parts if isinstance(images, FileImages)]
    if in_files and write_images:
        raise HashbenchError(f"the images of {dataset.name} are files already; the lists name them")
    paths = short_ids(in_files) if in_files else [[f"{name}.png" for name in p.ids] for p, _ in parts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, part_paths, (_, labels) in zip(LIST_NAMES, paths, parts, strict=True):
            write_list(folder / name, part_paths, labels, len(dataset.class_names))
        (folder / CLASS_NAMES).write_text("".join(f"{c}\n" for c in dataset.class_names), encoding="utf-8")
        if write_images:
            _write_images(folder, parts, paths)
    except OSError as error:
        raise HashbenchError(f"{folder} cannot be written: {error.strerror}") from error
    return [folder / name for name in (*LIST_NAMES, CLASS_NAMES)]


def _write_images(folder: Path, parts: list[tuple[Images, NDArray[Any]]], paths: list[list[str]]) -> None:
    todo = {
        path: (images, row)
        for (images, _), part_paths in zip(parts, paths, strict=True)
        for row, path in enumerate(part_paths)
    }
    with progress("images", len(todo)) as advance:
        for path, (images, row) in todo.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            images[row].save(file)
            advance(1)
