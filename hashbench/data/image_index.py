"""Finding the files of listed images, in whatever folders they are."""

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

SHOWN = 3  # of the images that are missing, in an error
LISTED = 100  # of the images that are left out


class ImageIndex:
    """Where the files below a folder are, by name, so that listed paths with another folder are found."""

    def __init__(self, root: Path, key: Callable[[str], str] = posixpath.basename) -> None:
        """Walk the folder once, through links to folders too.

        Args:
            root: The folder; one that does not exist holds nothing.
            key: What of a path names an image.
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
        """The file that a listed path means.

        That is the file at this very path below the root; else the only one that shares its last folder and
        its name; else the only one of its name.

        Args:
            path: A listed path, with `/` between its parts.

        Returns:
            The path of the file, or None where there is none.

        Raises:
            HashbenchError: Several files fit equally well.
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
                f"{quoted(path)} may be any of {len(files)} files: {', '.join(sorted(files)[:4])}"
                f"{', …' if len(files) > 4 else ''}; keep one, or give the path in the list in full"
            )
        return files[0] if files else None

    def find_similar(self, path: str) -> str | None:
        """Return a file whose name differs from a listed one in letter case or Unicode normal form only.

        Args:
            path: A listed path that `find` does not find.
        """
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
    """Find the files of all images of some lists.

    Args:
        lists: The lists of one dataset.
        roots: Folders below which the images may be, in whatever folders; see `ImageIndex.find`. The first
            that has any of them must have them all.
        missing: What to do if it has not.
        key: What of a path names an image.

    Returns:
        Each list, without the rows of images that are skipped, with the path of each file; and warnings if
        any is skipped, or if there are files of the operating system.

    Raises:
        HashbenchError: Images are missing, a path fits several files, or two paths mean one file.
    """
    for root in roots:
        index = ImageIndex(root, key)
        if any(path in index for entry in lists for path in entry.paths):
            break
    listed_as: dict[str, str] = {}
    absent: dict[str, str] = {}  # path by path and line
    located = []
    for entry in lists:
        files, rows = [], []
        listed_in: dict[str, int] = {}
        for row, path in enumerate(entry.paths):
            if (earlier := listed_in.setdefault(path, row)) != row:
                raise HashbenchError(
                    f"{entry.where(row)}: {quoted(path)} is there already ({entry.where(earlier)})"
                )
            file = index.find(path)
            if file is None:
                absent[f"{quoted(path)} ({entry.where(row)})"] = path
                continue
            if listed_as.setdefault(file, path) != path:  # would hide an image that is in two parts
                raise HashbenchError(
                    f"{entry.where(row)}: {quoted(path)} is {file}, which is also listed as "
                    f"{quoted(listed_as[file])}; list it under one path"
                )
            files.append(file)
            rows.append(row)
        whole = len(rows) == len(entry.paths)
        located.append((entry if whole else entry.rows(np.array(rows, np.int64)), files))
    skipped = skipped_warning(index.skipped)
    if not absent:
        return located, skipped
    total = sum(len(entry.paths) for entry in lists)
    those = f"{len(absent):,} of {total:,} listed images are not below {index.root}"
    similar = _similar_names(index, [*absent.values()])
    if len(absent) == total:
        raise MissingDataError(f"{those}: {_some([*absent], SHOWN)}{similar}; add them there in any folder")
    if missing == "error":
        raise HashbenchError(
            f"{those}: {_some([*absent], SHOWN)}{similar}; add them there in any folder, or leave them out "
            "by --missing skip, which makes another split"
        )
    left_out = f"{those} and are left out, so that this is another split: {_some([*absent], LISTED)}{similar}"
    return located, [left_out, *skipped]


def locate_all(
    listed: ImageList,
    roots: Sequence[Path],
    options: FileOptions,
    *,
    key: Callable[[str], str] = posixpath.basename,
    image_id: Callable[[str, str], str] = lambda path, _: path,
) -> tuple[Split, list[str]]:
    """Find the files of all images of one list; see `locate`.

    Args:
        listed: The list.
        roots: Folders below which the images may be.
        options: What to do with missing images, and how to decode.
        key: What of a path names an image.
        image_id: The id of an image by its listed path and its file.

    Returns:
        The images with their labels, and the warnings of `locate`.

    Raises:
        HashbenchError: Images are missing, a path fits several files, or two paths mean one file.
    """
    ((found, files),), warnings = locate([listed], roots, missing=options.missing, key=key)
    ids = [image_id(path, file) for path, file in zip(found.paths, files, strict=True)]
    images = FileImages(files, ids, exif=options.exif, truncated=options.truncated)
    return Split(images, found.labels), warnings


def _similar_names(index: ImageIndex, absent: Sequence[str]) -> str:
    """Say which missing images are there under a name that only looks the same."""
    found = {path: file for path in absent if (file := index.find_similar(path)) is not None}
    names = [(posixpath.basename(path), os.path.basename(file)) for path, file in found.items()]  # noqa: PTH119
    in_other_form = [pair for pair in names if _composed(pair[0]) == _composed(pair[1])]
    in_other_case = [pair for pair in names if _composed(pair[0]) != _composed(pair[1])]
    text = ""
    if in_other_case:
        listed, name = in_other_case[0]
        text += (
            f"; {len(in_other_case):,} of them differ in letter case: found {name!r} for {listed!r}; names "
            "are case-sensitive, rename the files or change the list"
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
