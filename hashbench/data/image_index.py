"""Find the folder of a dataset below the data root, and the files of listed images below a folder."""

from __future__ import annotations

import os
import posixpath
import shlex
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hashbench.data.dataset import DatasetPlugin, Split
from hashbench.data.list_files import ImageList
from hashbench.data.options import FileOptions
from hashbench.errors import HashbenchError, MissingDataError, quoted
from hashbench.images.image_sets import FileImages
from hashbench.runtime.walking import is_system_folder, skipped_warning, walk

SHOWN = 3  # missing images in an error
LISTED = 100  # missing images in a warning
DEPTH = 2  # levels below the expected folders in which a dataset is also found


def with_subfolders(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the folders, then the subfolders of all of them, then the subfolders of these."""
    level = [*folders]
    for _ in range(DEPTH):
        yield level
        found = (subfolder for folder in level for subfolder in _subfolders(folder))
        level = [*{subfolder.resolve(): subfolder for subfolder in found}.values()]
    yield level


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []
    visible = (folder / name for name in names if name[0] != "." and not is_system_folder(name))
    return [subfolder for subfolder in visible if os.access(subfolder, os.R_OK | os.X_OK)]


def find_folder(folders: Sequence[Path], has_data: Callable[[Path], object]) -> Path | None:
    """Find the folder with the data of a dataset.

    Args:
        folders: The expected folders, in order of preference.
        has_data: Returns a true value for a folder with the data.

    Returns:
        The first expected folder with the data; otherwise, the only such folder one level deeper; otherwise,
        two levels; None if there is none.

    Raises:
        HashbenchError: Several folders at the same depth have the data.
    """
    for depth, level in enumerate(with_subfolders(folders)):
        found = [*filter(has_data, level)]
        if depth and len(found) > 1:
            raise HashbenchError(
                f"{found[0]} and {found[1]} both have the data; rename the one to use to {folders[0]}"
            )
        if found:
            return found[0]
    return None


def up_to(root: Path, folder: Path) -> list[Path]:
    """Return a folder below the data root, and the folders that contain it, up to the root."""
    return [parent for parent in (folder, *folder.parents) if parent == root or root in parent.parents]


def missing_data(
    name: str, plugin: DatasetPlugin, root: Path, missing: str, protocol: str
) -> MissingDataError:
    """Return the error for missing data, with the expected layout and the next command.

    Args:
        name: Name of the dataset.
        plugin: Its plugin.
        root: The data root.
        missing: What was not found there.
        protocol: The protocol that needs it.
    """
    command = "next: hashbench data prepare" if plugin.downloads else "then check it: hashbench data verify"
    default = next(iter(plugin.protocols))
    chosen = "" if protocol == default else f" --protocol {protocol}"
    return MissingDataError(
        f"{name}: no {missing} in {root}, nor up to two levels deeper",
        f"expected in {root}:",
        *(f"  {line}" for line in plugin.about.layout),
        *plugin.about.by_hand.splitlines(),
        f"{command} {name}{chosen} --data-root {shlex.quote(str(root))}",
    )


class ImageIndex:
    """Index of the files below a folder by name, to find listed paths whose folders differ."""

    def __init__(self, root: Path, key: Callable[[str], str] = posixpath.basename) -> None:
        """Walk the folder, following links.

        Args:
            root: The folder; it need not exist.
            key: Maps a path to the key that identifies its image; by default the file name.
        """
        self.root = root
        self.skipped: list[str] = []
        self._key = key
        self._found: dict[str, list[str]] = {}
        self._similar: dict[str, str] = {}
        for folder, names in walk(root, self.skipped):
            for name in names:
                self._found.setdefault(key(name), []).append(f"{folder}{os.sep}{name}")

    def __contains__(self, path: str) -> bool:
        return self._key(path) in self._found

    def find(self, path: str) -> str | None:
        """Find the file of a listed path.

        It is the file at this path below the root; otherwise, the only one with the same last folder and
        name; otherwise, the only one with the same name.

        Returns:
            The path of the file, or None if there is no such file.

        Raises:
            HashbenchError: Several files match equally well.
        """
        files = self._found.get(self._key(path), [])
        if len(files) > 1:
            folder = Path(posixpath.dirname(path))
            folders = {file: Path(file).parent.relative_to(self.root) for file in files}
            files = (
                [file for file in files if folders[file] == folder]
                or [file for file in files if folders[file].name == folder.name]
                or files
            )
        if len(files) > 1:
            raise HashbenchError(
                f"{quoted(path)} matches {len(files)} files: {', '.join(sorted(files)[:4])}"
                f"{', …' if len(files) > 4 else ''}; keep one of them, or write the full path into the list"
            )
        return files[0] if files else None

    def find_similar(self, path: str) -> str | None:
        """Return a file whose name differs from a listed one only in letter case or Unicode normal form."""
        if not self._similar:
            self._similar = {_folded(name): files[0] for name, files in self._found.items()}
        return self._similar.get(_folded(self._key(path)))


def locate(
    lists: Sequence[ImageList],
    roots: Sequence[Path],
    *,
    missing: Literal["error", "skip"] = "error",
    key: Callable[[str], str] = posixpath.basename,
) -> tuple[list[tuple[ImageList, list[str]]], list[str]]:
    """Find the files of all images in lists.

    Args:
        lists: The lists of one dataset.
        roots: Folders to search, including their subfolders; see `ImageIndex.find`. The first one that has
            any of the images must have them all.
        missing: What to do about missing images.
        key: Maps a path to the key that identifies its image; by default the file name.

    Returns:
        Each list, without the rows of skipped images, and the files of its images; and warnings about skipped
        images and files of the operating system.

    Raises:
        HashbenchError: Images are missing, a path matches several files, or two paths match the same file.
    """
    for root in roots:
        index = ImageIndex(root, key)
        if any(path in index for entry in lists for path in entry.paths):
            break
    listed_as: dict[str, str] = {}
    absent: dict[str, str] = {}  # path and line -> path
    located = []
    for entry in lists:
        files, rows = [], []
        listed_in: dict[str, int] = {}
        for row, path in enumerate(entry.paths):
            if (earlier := listed_in.setdefault(path, row)) != row:
                raise HashbenchError(
                    f"{entry.where(row)}: {quoted(path)} is already listed ({entry.where(earlier)})"
                )
            file = index.find(path)
            if file is None:
                absent[f"{quoted(path)} ({entry.where(row)})"] = path
                continue
            if listed_as.setdefault(file, path) != path:  # it would hide an image that is in two parts
                raise HashbenchError(
                    f"{entry.where(row)}: {quoted(path)} is {file}, which is also listed as "
                    f"{quoted(listed_as[file])}; use the same path in all lists"
                )
            files.append(file)
            rows.append(row)
        complete = len(rows) == len(entry.paths)
        located.append((entry if complete else entry.rows(np.array(rows, np.int64)), files))
    skipped = skipped_warning(index.skipped)
    if not absent:
        return located, skipped
    total = sum(len(entry.paths) for entry in lists)
    text = f"{len(absent):,} of {total:,} listed images are not below {index.root}"
    similar = _similar_names(index, [*absent.values()])
    hint = "next: add them there, in any folder"
    if len(absent) == total:
        raise MissingDataError(f"{text}: {_some([*absent], SHOWN)}{similar}", hint)
    if missing == "error":
        alternative = "or leave them out with --missing skip, which results in a different split"
        raise HashbenchError(f"{text}: {_some([*absent], SHOWN)}{similar}", hint, alternative)
    left_out = f"{text} and are left out, which is a different split: {_some([*absent], LISTED)}{similar}"
    return located, [left_out, *skipped]


def locate_all(
    listed: ImageList,
    roots: Sequence[Path],
    options: FileOptions,
    *,
    key: Callable[[str], str] = posixpath.basename,
    image_id: Callable[[str, str], str] = lambda path, _: path,
) -> tuple[Split, list[str]]:
    """Find the files of all images in one list; see `locate`.

    Args:
        listed: The list.
        roots: Folders to search.
        options: Options for missing images and for decoding.
        key: Maps a path to the key that identifies its image; by default the file name.
        image_id: Maps a listed path and its file to the id of the image.

    Returns:
        The images with their labels, and the warnings of `locate`.

    Raises:
        HashbenchError: Images are missing, a path matches several files, or two paths match the same file.
    """
    ((found, files),), warnings = locate([listed], roots, missing=options.missing, key=key)
    ids = [image_id(path, file) for path, file in zip(found.paths, files, strict=True)]
    images = FileImages(files, ids, exif=options.exif, truncated=options.truncated)
    return Split(images, found.labels), warnings


def _similar_names(index: ImageIndex, absent: Sequence[str]) -> str:
    """Describe the missing images for which there is a file with a similar name."""
    found = {path: file for path in absent if (file := index.find_similar(path)) is not None}
    names = [(posixpath.basename(path), os.path.basename(file)) for path, file in found.items()]  # noqa: PTH119
    in_other_form = [pair for pair in names if _composed(pair[0]) == _composed(pair[1])]
    in_other_case = [pair for pair in names if _composed(pair[0]) != _composed(pair[1])]
    text = ""
    if in_other_case:
        listed, name = in_other_case[0]
        text += (
            f"; {len(in_other_case):,} of them differ in letter case: found {name!r} for {listed!r}; names "
            "are case-sensitive, so rename the files or change the list"
        )
    if in_other_form:
        listed, name = in_other_form[0]
        text += (
            f"; {len(in_other_form):,} of them differ in Unicode normal form: found {name!a} for {listed!a}; "
            "rename the files or change the list"
        )
    return text


def _folded(name: str) -> str:
    return _composed(_composed(name).casefold())


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _some(names: list[str], shown: int) -> str:
    return ", ".join(names[:shown]) + (", …" if len(names) > shown else "")
