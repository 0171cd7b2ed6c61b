"""Split lists as published with the field's code: one image a line, `path l1 … lC`, each label 0 or 1."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashbench.errors import HashbenchError


@dataclass(frozen=True, eq=False)
class ImageList:
    """A list that was read; row i is line i + 1 of the file.

    Attributes:
        file: The list itself.
        paths: The path of each image as listed, with `/` between its parts and no `.` among them.
        labels: Multi-hot uint8 [n, C].
    """

    file: Path
    paths: tuple[str, ...]
    labels: NDArray[np.uint8]


def read_list(file: Path, classes: int) -> ImageList:
    r"""Read a list; a byte order mark, CRLF, `\` in paths and blanks at the end of lines do not matter.

    Args:
        file: The list.
        classes: The number of labels a line.

    Raises:
        HashbenchError: The file cannot be read, or a line is not a path and `classes` values 0 or 1.
    """
    try:
        text = file.read_text(encoding="utf-8-sig").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise HashbenchError(f"cannot read the list {file}: {error}") from error

    paths: list[str] = []
    rows: list[str] = []
    expected = f"expected a path and {classes} labels"
    for number, line in enumerate(text.split("\n"), start=1):
        path, *labels = line.split() or [""]
        if not path:
            raise HashbenchError(f"{file}, line {number}: {expected}, found an empty line; take it out")
        if not labels:
            raise HashbenchError(
                f"{file}, line {number}: {expected}, found a path only; there is no evaluation without labels"
            )
        if len(labels) != classes:
            raise HashbenchError(
                f"{file}, line {number}: {expected}, found {len(labels)} labels; "
                "mend the line or get the list again"
            )
        if wrong := set(labels) - {"0", "1"}:
            raise HashbenchError(
                f"{file}, line {number}: expected labels 0 or 1, found {min(wrong)!r}; "
                "mend the line or get the list again"
            )
        paths.append(posixpath.normpath(path.replace("\\", "/")))
        rows.append("".join(labels))
    digits = np.frombuffer("".join(rows).encode("ascii"), dtype=np.uint8)
    return ImageList(file, tuple(paths), (digits - ord("0")).reshape(len(paths), classes))


class ImageIndex:
    """Where the files below a folder are, by name, so that listed paths with another folder are found."""

    def __init__(self, root: Path) -> None:
        """Walk the folder once, through links to folders too.

        Args:
            root: The folder; one that does not exist holds nothing.
        """
        self.root = root
        self._folders: dict[str, list[str]] = {}  # name of a file -> its folders, relative to the root
        seen = set()
        for folder, subfolders, names in os.walk(root, followlinks=True):
            status = os.stat(folder)  # noqa: PTH116 - os.walk gives strings
            if (status.st_dev, status.st_ino) in seen:  # a link back, which would be walked without end
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            subfolders.sort()
            relative = Path(folder).relative_to(root).as_posix()
            for name in names:
                self._folders.setdefault(name, []).append("" if relative == "." else relative)

    def __contains__(self, path: str) -> bool:
        return posixpath.basename(path) in self._folders

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
        folder, name = posixpath.split(path)
        there = self._folders.get(name, [])
        last = posixpath.basename(folder)
        fitting = (
            [found for found in there if found == folder]
            or [found for found in there if posixpath.basename(found) == last]
            or there
        )
        files = [os.path.join(self.root, found, name) for found in fitting]  # noqa: PTH118 - 270,000 of them
        if len(files) > 1:
            raise HashbenchError(
                f"{path!r} may be any of {len(files)} files: {', '.join(sorted(files)[:4])}"
                f"{', …' if len(files) > 4 else ''}; keep one, or give the path in the list in full"
            )
        return files[0] if files else None


def locate(lists: Sequence[ImageList], roots: Sequence[Path]) -> list[list[str]]:
    """Find the files of all images of some lists.

    Args:
        lists: The lists of one dataset.
        roots: Folders below which the images may be, in whatever folders; see `ImageIndex.find`. The first
            that has any of them must have them all.

    Returns:
        The path of each image, for each list.

    Raises:
        HashbenchError: Images are missing, a path fits several files, or two paths mean one file.
    """
    for root in roots:
        index = ImageIndex(root)
        if any(path in index for entry in lists for path in entry.paths):
            break
    listed_as: dict[str, str] = {}
    missing: list[str] = []
    located = []
    for entry in lists:
        files = []
        for number, path in enumerate(entry.paths, start=1):
            file = index.find(path)
            if file is None:
                missing.append(f"{path!r} ({entry.file}, line {number})")
                continue
            if listed_as.setdefault(file, path) != path:  # would hide an image that is in two parts
                raise HashbenchError(
                    f"{entry.file}, line {number}: {path!r} is {file}, which is also listed as "
                    f"{listed_as[file]!r}; list it under one path"
                )
            files.append(file)
        located.append(files)
    if missing:
        total = sum(len(entry.paths) for entry in lists)
        raise HashbenchError(
            f"{len(missing):,} of {total:,} listed images are not below {index.root}, "
            f"the first is {missing[0]}; add them there in any folder, "
            "or remove their lines, which makes another split"
        )
    return located
