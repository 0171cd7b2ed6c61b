r"""List files as published with the field's code: a line an image, with its labels.

Labels stand behind the path (`path l1 … lC`, `path 7`) or in a second file of as many lines. They are 0 or 1
for each class, or counts, or class ids, with blanks, tabs or commas between them; in a `.csv`, the path ends
at the first comma. A byte order mark, CRLF, `\` in paths and blanks at the end of a line do not matter.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hashbench.data.options import LabelFormat
from hashbench.errors import HashbenchError, quoted
from hashbench.runtime.files import replacing
from hashbench.runtime.json_files import MAX_DIGITS, parse_json

_SPLIT_KEYS = {"train": ("train",), "query": ("query", "test"), "database": ("database", "db")}

SAVED_BY_TORCH = (b"PK\x03\x04", b"\x80")  # a zip file, and a pickle; no text starts so


@dataclass(frozen=True, eq=False)
class ImageList:
    """Images as a list has them, with their labels.

    Attributes:
        file: The list itself.
        paths: The path of each image as listed, with `/` between its parts and no `.` among them.
        labels: Multi-hot uint8 [n, C].
        lines: The line of each image in the file, from 1 [n], or 0 where the file is no list; None: they are
            all there, in order.
    """

    file: Path
    paths: tuple[str, ...]
    labels: NDArray[np.uint8]
    lines: NDArray[np.integer[Any]] | None = None

    def rows(self, indices: NDArray[np.integer[Any]]) -> ImageList:
        """The list with some of its rows, in the order given.

        Args:
            indices: Rows, integers [m].
        """
        lines = indices + 1 if self.lines is None else self.lines[indices]
        return ImageList(
            self.file, tuple(self.paths[index] for index in indices), self.labels[indices], lines
        )

    def where(self, row: int) -> str:
        """The file and the line of a row, for errors."""
        line = row + 1 if self.lines is None else self.lines[row]
        return f"{self.file}, line {line}" if line else str(self.file)


def read_list(file: Path, classes: int | None, label_format: LabelFormat = "auto") -> ImageList:
    """Read a list of paths with labels.

    Args:
        file: The list.
        classes: The number of classes; None: as many as there are values in a line.
        label_format: See `ListOptions.label_format`.

    Raises:
        HashbenchError: The file cannot be read, or a line is not a path with labels of the format.
    """
    separator = "," if file.suffix.lower() == ".csv" else None
    paths, rows = [], []
    for number, line in enumerate(_lines(file), start=1):
        path, labels = (*line.split(separator, 1), "", "")[:2]
        if not path.strip():
            _refuse(file, number, "a path and labels", "an empty line")
        if not labels.strip():
            _refuse(file, number, "a path and labels, without which nothing can be evaluated", "a path only")
        paths.append(_normal(path))
        rows.append(_label_text(labels))
    return ImageList(file, tuple(paths), _labels(file, rows, classes, label_format))


def read_pair(
    names: Path, labels: Path, classes: int | None, label_format: LabelFormat = "auto"
) -> ImageList:
    """Read a list of paths, and their labels from another file; see `read_list`.

    Raises:
        HashbenchError: A file cannot be read, they differ in length, or a line is not what it should be.
    """
    paths = [_normal(line) for line in _lines(names)]
    rows = [_label_text(line) for line in _text(labels).removesuffix("\n").split("\n")]
    while len(rows) > len(paths) and not rows[-1]:  # else an empty line is an image without a label
        rows.pop()
    if len(paths) != len(rows):
        raise HashbenchError(
            f"{names} has {len(paths):,} lines and {labels} {len(rows):,}; line by line, both must belong to "
            "one image"
        )
    if "." in paths:
        _refuse(names, paths.index(".") + 1, "a path", "an empty line")
    return ImageList(names, tuple(paths), _labels(labels, rows, classes, label_format))


def read_names(file: Path) -> tuple[str, ...]:
    """The lines of a file of names, without what surrounds them.

    Raises:
        HashbenchError: It cannot be read, or has an empty line or a name twice.
    """
    names: dict[str, None] = {}  # in order, and quick to look into: this may be a list of 269,648 images
    for number, line in enumerate(_lines(file), start=1):
        name = line.strip()
        if not name or name in names:
            _refuse(
                file, number, "a name that is on no other line", quoted(name) if name else "an empty line"
            )
        names[name] = None
    return tuple(names)


def read_row_indices(file: Path, rows: int) -> dict[str, NDArray[np.int64]]:
    """Read a split as rows of a list of all images: JSON with the keys train, query (test), database (db).

    Args:
        file: The JSON file.
        rows: The number of images in the list.

    Returns:
        Rows, 0-based, by "train", "query" and "database".

    Raises:
        HashbenchError: It is not that, or a row is not in the list.
    """
    expected = f"{file}: expected a JSON object with lists of rows for train, query and database"
    try:
        content = parse_json(_text(file))
    except ValueError as error:
        raise HashbenchError(f"{expected} ({error})") from error
    if not isinstance(content, dict):
        raise HashbenchError(expected)
    split = {}
    for part, names in _SPLIT_KEYS.items():
        indices = next((content[name] for name in names if name in content), None)
        if indices is None:
            raise HashbenchError(expected)
        if not (isinstance(indices, list) and all(type(index) is int for index in indices)):
            raise HashbenchError(f"{file}: expected a list of row numbers for {part}")
        if indices and not 0 <= min(indices) <= max(indices) < rows:
            raise HashbenchError(
                f"{file}: {part} has rows from {min(indices)} to {max(indices)}; the list has 0 to {rows - 1}"
            )
        split[part] = np.array(indices, np.int64)
    return split


def write_list(file: Path, paths: Sequence[str], labels: NDArray[Any], classes: int) -> None:
    """Write `path l1 … lC`, a line an image.

    Args:
        file: The list; replaced if it is there.
        paths: The paths.
        labels: Multi-hot [n, C] or class ids [n].
        classes: C.

    Raises:
        HashbenchError: A path has a blank, which the format cannot express, or the file cannot be written.
    """
    if spaced := next((path for path in paths if len(path.split()) != 1), None):
        raise HashbenchError(f"{quoted(spaced)} has a blank, which a list cannot have; rename it")
    if labels.ndim == 1:
        labels = np.eye(classes, dtype=np.uint8)[labels]
    rows = (f"{path} {' '.join(map(str, row))}\n" for path, row in zip(paths, labels.tolist(), strict=True))
    try:
        with replacing(file) as part, part.open("w", encoding="utf-8", newline="\n") as output:
            output.writelines(rows)
    except (OSError, UnicodeEncodeError) as error:
        raise HashbenchError(f"{file} cannot be written: {error}") from error


def whole_number(text: str) -> int | None:
    """Return the value of at most `MAX_DIGITS` decimal digits; None: the text is something else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def short_ids(paths: Sequence[Sequence[str]]) -> list[list[str]]:
    """Listed paths without the folders that all of them share, which differ between machines and archives.

    Args:
        paths: The paths of each list of a split.
    """
    shared = posixpath.commonprefix([path for part in paths for path in part]).rpartition("/")[0]
    start = len(shared) + 1 if shared else 0
    return [[path[start:].lstrip("/") for path in part] for part in paths]


def in_other_case(folder: Path, pattern: str) -> list[str]:
    """Return warnings of files that are not read, since their names are not in lower case.

    Args:
        folder: Where the files are; it may not exist.
        pattern: Regular expression of the names that are read, in lower case.
    """
    found = [
        file
        for file in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if file.name != file.name.lower() and re.fullmatch(pattern, file.name.lower())
    ]
    return [
        f"{file} is not read, since its name is not {file.name.lower()}, in lower case"
        for file in found
        if not ((same := file.with_name(file.name.lower())).exists() and same.samefile(file))  # as on macOS
    ]


def _text(file: Path) -> str:
    try:
        with file.open("rb") as start:
            if start.read(8).startswith(SAVED_BY_TORCH):
                raise HashbenchError(
                    f"{file} is no text: it was saved by torch or pickle, which could run any code when it "
                    "is read; write it as text where you trust it"
                )
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise HashbenchError(f"cannot read the list {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HashbenchError(f"cannot read the list {file}: {error}; save it as UTF-8") from error


def _lines(file: Path) -> list[str]:
    return _text(file).rstrip().split("\n")


def _normal(path: str) -> str:
    return posixpath.normpath(path.strip().replace("\\", "/"))


def _label_text(text: str) -> str:
    return text.replace(",", " ").strip()


def _labels(file: Path, rows: list[str], classes: int | None, label_format: LabelFormat) -> NDArray[np.uint8]:
    """The labels of all lines, multi-hot."""
    values = len(rows[0].split())
    if label_format == "auto":
        # Published files of this name hold any number of ids a line, one id, or 0 and 1 for each class.
        if file.stem.endswith("_label") and len({len(row.split()) for row in rows}) > 1:
            label_format = "ids"
        elif values == 1 == (classes or 1):
            raise HashbenchError(
                f"{file} has one value a line: a class id, or whether it is the only class? Say "
                "--data label_format=id and --data classes=N, or --data label_format=multihot"
            )
        else:
            label_format = "id" if values == 1 else "multihot"
    if label_format in ("id", "ids"):
        return _from_ids(file, rows, classes, single=label_format == "id")
    return _from_values(file, rows, classes or values or 1, counts=label_format == "counts")


def _from_values(file: Path, rows: list[str], classes: int, *, counts: bool) -> NDArray[np.uint8]:
    if all(len(row) == 2 * classes - 1 and row.isascii() for row in rows):
        # One digit a label and one blank between two, as nearly always, go many times as fast as the rest.
        characters = np.frombuffer(" ".join(rows).encode("ascii"), np.uint8)
        digits = characters[::2] - ord("0")
        if (characters[1::2] == ord(" ")).all() and digits.max() <= (9 if counts else 1):
            return (digits > 0).astype(np.uint8).reshape(len(rows), classes)
    for number, row in enumerate(rows, start=1):
        if (found := len(row.split())) != classes:
            _refuse(file, number, f"{classes} labels", f"{found} labels")
    labels = np.zeros((len(rows), classes), np.uint8)
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row.split()):
            count = whole_number(value)
            if count is None or not (counts or value in ("0", "1")):
                hint = "" if count is None else "; if these are counts, say --data label_format=counts"
                _refuse(file, number, "counts" if counts else "labels 0 or 1", f"{quoted(value)}{hint}")
            labels[number - 1, column] = count > 0
    return labels


def _from_ids(file: Path, rows: list[str], classes: int | None, *, single: bool) -> NDArray[np.uint8]:
    if classes is None:
        raise HashbenchError(
            f"{file} has class ids, which do not tell how many classes there are; say it by --data classes=N"
        )
    labels = np.zeros((len(rows), classes), np.uint8)
    for number, row in enumerate(rows, start=1):
        values = row.split()
        if single and len(values) != 1:
            _refuse(
                file, number, "one class id", f"{len(values)} values; several ids are --data label_format=ids"
            )
        for value in values:
            class_id = whole_number(value)
            if class_id is None or class_id >= classes:
                _refuse(file, number, f"a class id from 0 to {classes - 1}", quoted(value))
            if labels[number - 1, class_id]:  # 0 and 1 for each class look like ids
                _refuse(
                    file,
                    number,
                    "each class id once",
                    f"{quoted(value)} twice; 0 or 1 for each class is --data label_format=multihot",
                )
            labels[number - 1, class_id] = 1
    return labels


def _refuse(file: Path, line: int, expected: str, found: str) -> NoReturn:
    raise HashbenchError(
        f"{file}, line {line}: expected {expected}, found {found}; mend the line or get the list again"
    )
