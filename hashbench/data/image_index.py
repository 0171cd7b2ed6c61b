"""Find the files of listed images below a folder."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hashbench.data.dataset import Split
from hashbench.data.list_files import ImageList
from hashbench.data.options import FileOptions
from hashbench.errors import HashbenchError, MissingDataError, quoted
from hashbench.images.image_sets import FileImages
from hashbench.runtime.walking import skipped_warning, walk

SHOWN = 3  # missing images in an error
LISTED = 100  # missing images in a warning


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
    if len(absent) == total:
        raise MissingDataError(f"{text}: {_some([*absent], SHOWN)}{similar}; add them there in any folder")
    if missing == "error":
        raise HashbenchError(
            f"{text}: {_some([*absent], SHOWN)}{similar}; add them there in any folder, or leave them out "
            "with --missing skip, which results in a different split"
        )
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
