r"""List files in the format that is common in image hashing: one image with its labels per line.

Labels follow the path (`path l1 … lC`, `path 7`) or are in a second file with the same number of lines. They
are 0 or 1 per class, counts, or class ids, separated by spaces, tabs or commas; in a `.csv` file, the path
ends at the first comma. A byte order mark, CRLF, `\` in paths and trailing spaces are accepted.
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
from hashbench.runtime.files import atomic_write
from hashbench.runtime.json_files import MAX_DIGITS, parse_json

_SPLIT_KEYS = {"train": ("train",), "query": ("query", "test"), "database": ("database", "db")}

SAVED_BY_TORCH = (b"PK\x03\x04", b"\x80")  # the first bytes of a zip file and of a pickle


@dataclass(frozen=True, eq=False)
class ImageList:
    """Listed images with their labels.

    Attributes:
        file: The list file.
        paths: Normalized path of each image, separated by `/`.
        labels: Multi-hot uint8 [n, C].
        lines: Line number of each image in the file, from 1 [n], or 0 if the file is not a list; None: the
            images are all lines of the file in order.
    """

    file: Path
    paths: tuple[str, ...]
    labels: NDArray[np.uint8]
    lines: NDArray[np.integer[Any]] | None = None

    def rows(self, indices: NDArray[np.integer[Any]]) -> ImageList:
        """Return a list of the rows at the given indices [m], in that order."""
        lines = indices + 1 if self.lines is None else self.lines[indices]
        return ImageList(
            self.file, tuple(self.paths[index] for index in indices), self.labels[indices], lines
        )

    def where(self, row: int) -> str:
        """Return the file and the line of a row, for errors."""
        line = row + 1 if self.lines is None else self.lines[row]
        return f"{self.file}, line {line}" if line else str(self.file)


def read_list(file: Path, classes: int | None, label_format: LabelFormat = "auto") -> ImageList:
    """Read a list of paths with labels.

    Args:
        file: The list.
        classes: Number of classes; None: the number of values in a line.
        label_format: See `ListOptions.label_format`.

    Raises:
        HashbenchError: The file cannot be read, or a line is not a path with labels in this format.
    """
    separator = "," if file.suffix.lower() == ".csv" else None
    paths, rows = [], []
    for number, line in enumerate(_lines(file), start=1):
        path, labels = (*line.split(separator, 1), "", "")[:2]
        if not path.strip():
            _fail(file, number, "a path and labels", "an empty line")
        if not labels.strip():
            _fail(file, number, "a path and labels, which the evaluation needs", "only a path")
        paths.append(_normalize(path))
        rows.append(_label_text(labels))
    return ImageList(file, tuple(paths), _labels(file, rows, classes, label_format))


def read_pair(
    names: Path, labels: Path, classes: int | None, label_format: LabelFormat = "auto"
) -> ImageList:
    """Read a list of paths, and the labels from another file; see `read_list`.

    Raises:
        HashbenchError: A file cannot be read, the files differ in length, or a line is not valid.
    """
    paths = [_normalize(line) for line in _lines(names)]
    rows = [_label_text(line) for line in _text(labels).removesuffix("\n").split("\n")]
    while len(rows) > len(paths) and not rows[-1]:  # any other empty line is an image without labels
        rows.pop()
    if len(paths) != len(rows):
        raise HashbenchError(
            f"{names} has {len(paths):,} lines, but {labels} has {len(rows):,}; both need one line per "
            "image, in the same order"
        )
    if "." in paths:
        _fail(names, paths.index(".") + 1, "a path", "an empty line")
    return ImageList(names, tuple(paths), _labels(labels, rows, classes, label_format))


def read_names(file: Path) -> tuple[str, ...]:
    """Read a file with one name per line.

    Raises:
        HashbenchError: The file cannot be read, or has an empty line or a name twice.
    """
    names: dict[str, None] = {}  # an ordered set: a file may list 269,648 images
    for number, line in enumerate(_lines(file), start=1):
        name = line.strip()
        if not name or name in names:
            _fail(file, number, "a name that no other line has", quoted(name) if name else "an empty line")
        names[name] = None
    return tuple(names)


def read_row_indices(file: Path, rows: int) -> dict[str, NDArray[np.int64]]:
    """Read a split as row indices: a JSON object with the keys train, query (or test) and database (or db).

    Returns:
        "train", "query" and "database" -> row indices, from 0.

    Raises:
        HashbenchError: The file has another content, or an index is out of range.
    """
    expected = f"{file}: expected a JSON object with lists of row indices for train, query and database"
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
            raise HashbenchError(f"{file}: expected a list of row indices for {part}")
        if indices and not 0 <= min(indices) <= max(indices) < rows:
            raise HashbenchError(
                f"{file}: expected row indices from 0 to {rows - 1} for {part}, got {min(indices)} to "
                f"{max(indices)}"
            )
        split[part] = np.array(indices, np.int64)
    return split


def write_list(file: Path, paths: Sequence[str], labels: NDArray[Any], classes: int) -> None:
    """Write a list with one image per line: `path l1 … lC`.

    Args:
        file: The list; an existing file is replaced.
        paths: Paths of the images.
        labels: Multi-hot [n, C] or class ids [n]; [n, 0] without labels.
        classes: C.

    Raises:
        HashbenchError: A path has a space, which the format does not allow, or the file cannot be written.
    """
    if spaced := next((path for path in paths if len(path.split()) != 1), None):
        raise HashbenchError(f"{quoted(spaced)} has a space, which list files do not allow; rename it")
    if labels.ndim == 1:
        labels = np.eye(classes, dtype=np.uint8)[labels]
    elif labels.shape[1] == 0:
        labels = np.zeros((len(labels), classes), np.uint8)
    rows = (f"{' '.join([path, *map(str, row)])}\n" for path, row in zip(paths, labels.tolist(), strict=True))
    try:
        with atomic_write(file) as part, part.open("w", encoding="utf-8", newline="\n") as output:
            output.writelines(rows)
    except (OSError, UnicodeEncodeError) as error:
        raise HashbenchError(f"{file} cannot be written: {error}") from error


def whole_number(text: str) -> int | None:
    """Return the value of at most `MAX_DIGITS` decimal digits, or None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def short_ids(paths: Sequence[Sequence[str]]) -> list[list[str]]:
    """Remove the folders that all paths of a split share, since they differ between machines and archives."""
    shared = posixpath.commonprefix([path for part in paths for path in part]).rpartition("/")[0]
    start = len(shared) + 1 if shared else 0
    return [[path[start:].lstrip("/") for path in part] for part in paths]


def in_other_case(folder: Path, pattern: str) -> list[str]:
    """Return warnings about files that are not read because their names are not in lower case.

    Args:
        folder: Folder to search; it need not exist.
        pattern: Regular expression of the names that are read, in lower case.
    """
    found = [
        file
        for file in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if file.name != file.name.lower() and re.fullmatch(pattern, file.name.lower())
    ]
    return [
        f"{file} is not read, since its name is not in lower case ({file.name.lower()})"
        for file in found
        if not ((same := file.with_name(file.name.lower())).exists() and same.samefile(file))  # as on macOS
    ]


def _text(file: Path) -> str:
    try:
        with file.open("rb") as start:
            if start.read(8).startswith(SAVED_BY_TORCH):
                raise HashbenchError(
                    f"{file} is not a text file: it was saved by torch or pickle, and loading it could "
                    "execute any code; convert it to text where you trust it"
                )
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise HashbenchError(f"cannot read the list {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HashbenchError(f"cannot read the list {file}: {error}; save it as UTF-8") from error


def _lines(file: Path) -> list[str]:
    return _text(file).rstrip().split("\n")


def _normalize(path: str) -> str:
    return posixpath.normpath(path.strip().replace("\\", "/"))


def _label_text(text: str) -> str:
    return text.replace(",", " ").strip()


def _labels(file: Path, rows: list[str], classes: int | None, label_format: LabelFormat) -> NDArray[np.uint8]:
    """Parse the labels of all lines into multi-hot rows."""
    values = len(rows[0].split())
    if label_format == "auto":
        # Published files of this name have any number of ids per line, one id, or 0 and 1 for each class.
        if file.stem.endswith("_label") and len({len(row.split()) for row in rows}) > 1:
            label_format = "ids"
        elif values == 1 == (classes or 1):
            raise HashbenchError(
                f"{file} has one value per line, which may be a class id or the label of a single class; "
                "pass --data label_format=id and --data classes=N, or --data label_format=multihot"
            )
        else:
            label_format = "id" if values == 1 else "multihot"
    if label_format in ("id", "ids"):
        return _from_ids(file, rows, classes, single=label_format == "id")
    return _from_values(file, rows, classes or values or 1, counts=label_format == "counts")


def _from_values(file: Path, rows: list[str], classes: int, *, counts: bool) -> NDArray[np.uint8]:
    if all(len(row) == 2 * classes - 1 and row.isascii() for row in rows):
        # Fast path for labels of one digit that are separated by one space, as in nearly all lists.
        characters = np.frombuffer(" ".join(rows).encode("ascii"), np.uint8)
        digits = characters[::2] - ord("0")
        if (characters[1::2] == ord(" ")).all() and digits.max() <= (9 if counts else 1):
            return (digits > 0).astype(np.uint8).reshape(len(rows), classes)
    for number, row in enumerate(rows, start=1):
        if (found := len(row.split())) != classes:
            _fail(file, number, f"{classes} labels", f"{found} labels")
    labels = np.zeros((len(rows), classes), np.uint8)
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row.split()):
            count = whole_number(value)
            if count is None or not (counts or value in ("0", "1")):
                hint = "" if count is None else "; if these are counts, pass --data label_format=counts"
                _fail(file, number, "counts" if counts else "labels 0 or 1", f"{quoted(value)}{hint}")
            labels[number - 1, column] = count > 0
    return labels


def _from_ids(file: Path, rows: list[str], classes: int | None, *, single: bool) -> NDArray[np.uint8]:
    if classes is None:
        raise HashbenchError(
            f"{file} has class ids, from which the number of classes is not known; pass --data classes=N"
        )
    labels = np.zeros((len(rows), classes), np.uint8)
    for number, row in enumerate(rows, start=1):
        values = row.split()
        if single and len(values) != 1:
            hint = "for several ids, pass --data label_format=ids"
            _fail(file, number, "one class id", f"{len(values)} values; {hint}")
        for value in values:
            class_id = whole_number(value)
            if class_id is None or class_id >= classes:
                _fail(file, number, f"a class id from 0 to {classes - 1}", quoted(value))
            if labels[number - 1, class_id]:  # multi-hot labels look like ids
                hint = "for 0 or 1 per class, pass --data label_format=multihot"
                _fail(file, number, "each class id once", f"{quoted(value)} twice; {hint}")
            labels[number - 1, class_id] = 1
    return labels


def _fail(file: Path, line: int, expected: str, found: str) -> NoReturn:
    raise HashbenchError(
        f"{file}, line {line}: expected {expected}, got {found}; correct the line or get the list again"
    )
