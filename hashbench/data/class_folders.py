"""Images that are stored in one folder per class."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hashbench.data.dataset import Split
from hashbench.data.options import FileOptions
from hashbench.data.protocol import Protocol
from hashbench.errors import HashbenchError, UsageError
from hashbench.images.image_sets import FileImages
from hashbench.runtime.walking import is_system_folder, skipped_warning, walk

FOLDERS = "folders"
PROTOCOL = Protocol(
    "given by the folders train/, query/ (or test/, else val/) and database/ (or gallery/), each with one "
    "folder per class; train/ may have images without class folders; without database/, the training images "
    "are the database"
)
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif"),
    *(".ppm", ".pgm", ".tif", ".tiff"),
)

_PART_NAMES = {  # upper or lower case
    "train": ("train", "training"),
    "query": ("query", "queries", "test", "testing"),
    "database": ("database", "db", "gallery"),
    "validation": ("val", "valid", "validation"),
}


def class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Return the sorted names of the subfolders that contain an image.

    Hidden folders and folders of the operating system are not classes.
    """
    names: set[str] = set()
    for folder in folders:
        if folder.is_dir():
            with os.scandir(folder) as entries:
                names.update(entry.name for entry in entries if _is_class(entry))
    return tuple(sorted(names))


def read_class_folders(
    folder: Path, classes: Sequence[str], options: FileOptions, image_id: Callable[[str], str]
) -> Split:
    """Read the images in class folders, sorted by class and path.

    Args:
        folder: Folder that contains the class folders, which may have subfolders.
        classes: Names of the classes; the class id is the index. If there are none, the images in the folder
            itself are read.
        options: Options for decoding.
        image_id: Maps a file to the id of its image.

    Returns:
        The images, with class ids; without classes, with labels of shape [n, 0].

    Raises:
        HashbenchError: There are no images.
    """
    found = [sorted(_images(folder / name)) for name in classes or (".",)]
    files = [*itertools.chain.from_iterable(found)]
    labels = np.repeat(np.arange(len(found)), [*map(len, found)])
    if not files:
        example = folder / (classes or ["cat"])[0] / "1.jpg"
        raise HashbenchError(f"{folder} has no images; expected one folder per class, such as {example}")
    images = FileImages(files, [image_id(f) for f in files], exif=options.exif, truncated=options.truncated)
    return Split(images, labels if classes else np.zeros((len(files), 0), np.uint8))


def split_folders(base: Path) -> dict[str, Path]:
    """Find the folders of a split, each of which contains class folders, or images for training.

    Returns:
        "train", "query" and "database" -> folder, if it exists; "validation" -> val/, if another folder has
        the queries.

    Raises:
        UsageError: Several folders could be the same part.
    """
    found: dict[str, Path] = {}
    for part in _PART_NAMES:
        named = [
            folder
            for folder in _named(base, part)
            if _has_classes(folder) or (part == "train" and _has_images(folder))
        ]
        if len(named) > 1:
            raise UsageError(
                f"{base} has the folders {' and '.join(folder.name for folder in named)}, and each could be "
                f"the {part} part of a split; rename or move all but one"
            )
        if named:
            found[part] = named[0]
    if "query" not in found and "validation" in found:
        found["query"] = found.pop("validation")
    return found


def read_split_folders(
    base: Path, classes: Sequence[str] | None, options: FileOptions, image_id: Callable[[str], str]
) -> tuple[dict[str, Split], Sequence[str], list[str]]:
    """Read a split that is given by folders; see `split_folders` and `read_class_folders`.

    Training images without class folders have no labels.

    Args:
        base: Folder that contains the folders of the split.
        classes: Names of the classes; None: the names of the class folders.
        options: Options for decoding.
        image_id: Maps a file to the id of its image.

    Returns:
        The parts by name, the names of the classes, and warnings.

    Raises:
        HashbenchError: There are no training images or no queries, there is only one class, or the database
            has no labels.
    """
    folders = split_folders(base)
    unread = folders.pop("validation", None)
    if absent := next((part for part in ("train", "query") if part not in folders), None):
        deeper = _common_folder(base)
        if deeper is not None and "train" in split_folders(deeper) and "train" not in folders:
            raise UsageError(f"{base} has no folders of a split; did you mean --data-root {deeper}?")
        names = [*_PART_NAMES[absent], *(_PART_NAMES["validation"] if absent == "query" else ())]
        raise HashbenchError(
            f"{base} has no folder {names[0]} (or {', '.join(names[1:])}) with images in one folder per "
            f"class; expected files such as {base / names[0] / (classes or ['cat'])[0] / '1.jpg'}"
        )
    flat = [folder for folder in folders.values() if not _has_classes(folder)]  # of training images
    labelled = [folder for folder in folders.values() if folder not in flat]
    if "database" not in folders and (bare := [*flat, *filter(_has_images, _named(base, "database"))]):
        raise HashbenchError(
            f"the images of {bare[0]} are not in class folders, so they have no labels and cannot be the "
            f"database; expected one folder per class, such as {base / 'database' / 'cat' / '1.jpg'}"
        )
    classes = classes or class_names(labelled)
    if len(classes) == 1:
        raise HashbenchError(
            f"the folders of the split in {base} have only one class, {classes[0]!r}, so any code would have "
            f"mAP 1; expected one folder per class directly in {folders['train'].name}"
        )
    parts = {
        part: read_class_folders(folder, () if folder in flat else classes, options, image_id)
        for part, folder in folders.items()
    }
    class_folders = [folder / name for folder in labelled for name in classes]
    warnings = ignored_files([*class_folders, *flat], [base, *labelled])
    if unread is not None:
        warnings.append(f"the folder {unread.name} is ignored, since {folders['query'].name} has the queries")
    if "database" not in parts:
        parts["database"] = parts["train"]
        warnings.append("there is no database folder, so the training images are also the database")
    return parts, classes, warnings


def require_classes(root: Path, classes: Sequence[str]) -> None:
    """Check by their names and contents that folders are classes.

    Raises:
        UsageError: The folders are the parts of a split, or the class folders are further down.
        HashbenchError: There is only one class.
    """
    if len(classes) == 1:
        deeper = _common_folder(root / classes[0])
        inside = class_names([deeper]) if deeper is not None else ()
        if len(inside) > 1:
            protocol = f" --protocol {FOLDERS}" if len(_split_names(inside)) > 1 else ""
            raise UsageError(
                f"{root} has only one class, {classes[0]!r}; did you mean --data-root {deeper}{protocol}?"
            )
        raise HashbenchError(
            f"{root} has only one class, {classes[0]!r}, so any code would have mAP 1; expected one folder "
            f"per class, or for images without labels, --data-root {root / classes[0]}"
        )
    parts = _split_names(classes)
    if len(parts) > 1 or (parts and len(class_names([root / parts[0]])) > 1):  # one class may be named train
        raise UsageError(
            f"{root} has the folders of a split instead of classes; pass --protocol {FOLDERS}, which reads "
            f"{', '.join(parts)}; if these are classes, rename them"
        )
    inside = class_names([root / name for name in classes[:1]])
    if len(inside) > 1 and all(class_names([root / name]) == inside for name in classes[1:]):
        raise UsageError(
            f"all {len(classes)} folders of {root} have the same subfolders ({', '.join(inside[:3])}"
            f"{', …' if len(inside) > 3 else ''}), which may be the classes; for one folder, pass "
            f"--data-root {root / classes[0]}; for a split, name the folders train, query and database and "
            f"pass --protocol {FOLDERS}; if the folders are classes, list their images in labels.csv"
        )


def ignored_files(folders: Sequence[Path], parents: Sequence[Path]) -> list[str]:
    """Return warnings with the number of files that are not read.

    Args:
        folders: Class folders; files without the suffix of an image are ignored.
        parents: Folders that contain the class folders; images directly in them have no class.
    """
    skipped: list[str] = []
    inner = itertools.chain.from_iterable(walk(folder, skipped) for folder in folders)
    outer = itertools.chain.from_iterable(itertools.islice(walk(folder, skipped), 1) for folder in parents)
    others = [file for file in _join(inner) if not file.lower().endswith(SUFFIXES)]
    loose = [file for file in _join(outer) if file.lower().endswith(SUFFIXES)]
    warnings = []
    if others:
        warnings.append(
            f"{len(others):,} files are left out, since they do not have the suffix of an image, such as "
            f"{min(others)}"
        )
    if loose:
        warnings.append(
            f"{len(loose):,} images are left out, since they are not in a class folder, such as {min(loose)}"
        )
    return warnings + skipped_warning(skipped)


def _named(base: Path, part: str) -> list[Path]:
    """Return the folders that are named like a part of a split."""
    folders = base.iterdir() if base.is_dir() else ()
    return sorted(
        folder for folder in folders if folder.is_dir() and folder.name.lower() in _PART_NAMES[part]
    )


def _has_images(folder: Path) -> bool:
    return any(_images(folder))


def _has_classes(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(map(_is_class, entries))


def _is_class(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".") or is_system_folder(entry.name)
    # entry.is_dir would fail for a link to itself.
    return not hidden and os.path.isdir(entry.path) and any(_images(entry.path))  # noqa: PTH112


def _split_names(names: Sequence[str]) -> list[str]:
    """Return the names that are used for parts of a split."""
    known = {name for part in _PART_NAMES.values() for name in part}
    return [name for name in names if name.lower() in known]


def _common_folder(folder: Path) -> Path | None:
    """Return the deepest folder that contains all images below a folder, or None if there are no images."""
    inside = {os.path.dirname(file) for file in _images(folder)}  # noqa: PTH120
    return Path(os.path.commonpath(inside)) if inside else None


def _images(folder: Path | str) -> Iterator[str]:
    """Find the images below a folder, in arbitrary order."""
    return (file for file in _join(walk(folder)) if file.lower().endswith(SUFFIXES))


def _join(walked: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    # pathlib is slow for 100,000 files.
    return (os.path.join(folder, name) for folder, names in walked for name in names)  # noqa: PTH118
