"""Prepare datasets: download them, and export list files and images for other code."""

from __future__ import annotations

from pathlib import Path

from hashbench.data.dataset import Dataset, DatasetPlugin
from hashbench.data.list_files import short_ids, write_list
from hashbench.data.list_splits import CLASS_NAMES
from hashbench.data.load import read_dataset
from hashbench.errors import HashbenchError, MissingDataError
from hashbench.images.image_sets import FileImages, Images
from hashbench.runtime.files import atomic_write
from hashbench.runtime.progress import progress

LIST_NAMES = ("train.txt", "test.txt", "database.txt")


def ensure(name: str, plugin: DatasetPlugin, root: Path, protocol: str) -> Dataset:
    """Load a dataset, after downloading its missing files if possible.

    Raises:
        HashbenchError: A download fails, or only the user can get the files.
    """
    try:
        return read_dataset(name, plugin, protocol, root)
    except MissingDataError:
        if not plugin.downloads:
            raise
    plugin.download(root)
    return read_dataset(name, plugin, protocol, root)


def export_lists(dataset: Dataset, folder: Path, *, write_images: bool = False) -> tuple[list[Path], Path]:
    """Write a split as list files with lines `path l1 … lC`, and the names of the classes.

    The paths of image files omit the folders that all of them share; the paths of images in memory are
    ID.png.

    Args:
        dataset: Dataset to export.
        folder: Folder to write to; it is created if necessary.
        write_images: Also write images in memory as PNG files.

    Returns:
        The files train.txt, test.txt (the queries), database.txt and classes.txt, and the folder that the
        paths are relative to.

    Raises:
        HashbenchError: A path has a space, `write_images` is set for image files, or a file cannot be
            written.
    """
    parts = dataset.parts().values()
    in_files = [part.images.paths for part in parts if isinstance(part.images, FileImages)]
    if in_files and write_images:
        raise HashbenchError(f"the images of {dataset.name} are already files, which the lists refer to")
    paths = short_ids(in_files) if in_files else [[f"{n}.png" for n in part.images.ids] for part in parts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, part_paths, part in zip(LIST_NAMES, paths, parts, strict=True):
            write_list(folder / name, part_paths, part.labels, len(dataset.class_names))
        if dataset.class_names:
            with atomic_write(folder / CLASS_NAMES) as partial:
                partial.write_text("".join(f"{c}\n" for c in dataset.class_names), encoding="utf-8")
        if write_images:
            _write_images(folder, [part.images for part in parts], paths)
    except OSError as error:
        raise HashbenchError(f"{folder} cannot be written: {error.strerror}") from error
    base = Path(in_files[0][0].removesuffix(paths[0][0])) if in_files else folder
    names = (*LIST_NAMES, CLASS_NAMES) if dataset.class_names else LIST_NAMES
    return [folder / name for name in names], base


def _write_images(folder: Path, parts: list[Images], paths: list[list[str]]) -> None:
    images_by_path = {
        path: (images, row)
        for images, part_paths in zip(parts, paths, strict=True)
        for row, path in enumerate(part_paths)
    }
    with progress("images", len(images_by_path)) as advance:
        for path, (images, row) in images_by_path.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            images[row].save(file)
            advance(1)
