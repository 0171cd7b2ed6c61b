"""The precision–recall curves and the losses of runs, read from the files beside their records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hashbench.errors import HashbenchError, reason
from hashbench.report.aggregate import Cell, Column
from hashbench.runtime.json_files import parse_json

Curve = NDArray[np.float64]
"""The points of a curve of one run [points, 1 + columns]; the first column identifies a point."""
T = TypeVar("T")

# The other keys of a line of a log are the loss and its parts, or the mAP that selects the epoch.
_NOT_LOSSES = {"epoch", "step", "seconds", "lr"}


def read_cells(
    columns: Mapping[Column, Mapping[str, Cell]], file: str, read: Callable[[Path], T]
) -> tuple[dict[Column, dict[str, tuple[Cell, list[T]]]], list[str]]:
    """Read a file of each run.

    Args:
        columns: The cells.
        file: Name of the file.
        read: Function that reads it.

    Returns:
        The cells with the content of the files of their runs, and the labels of those that lack a file.

    Raises:
        HashbenchError: A file is damaged.
    """
    found: dict[Column, dict[str, tuple[Cell, list[T]]]] = {}
    missing: dict[str, None] = {}
    for column, row in columns.items():
        for label, cell in row.items():
            paths = [run.folder / file for run in cell.runs]
            if all(path.is_file() for path in paths):
                found.setdefault(column, {})[label] = cell, [read(path) for path in paths]
            else:
                missing[label] = None
    return found, list(missing)


@contextmanager
def _refuse_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise HashbenchError(
            f"{path} is damaged ({reason(error)}); `hashbench results verify` shows details"
        ) from error


def read_precision(path: Path, curve: str) -> Curve:
    """Read a curve of `curves.csv` by its name: the rank or radius, precision and recall; empty if absent.

    Raises:
        HashbenchError: The file is damaged.
    """
    with _refuse_damaged(path):
        head, *lines = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
        kind, at, precision, recall = map(head.index, ("curve", "at", "precision", "recall"))
        points = [
            (np.int64(int(float(line[at]))), float(line[precision] or "nan"), float(line[recall] or "nan"))
            for line in lines
            if line[kind] == curve
        ]
        return np.array(points, np.float64).reshape(-1, 3)


def read_losses(path: Path) -> dict[str, Curve]:
    """Read the losses, and the mAP that selects the epoch, by name: the epoch from 1, the mean over steps.

    Steps whose value is not a number are left out of the mean.

    Raises:
        HashbenchError: The file is damaged.
    """
    values: dict[str, dict[int, list[float]]] = {}
    with _refuse_damaged(path):
        for text in path.read_text(encoding="utf-8").splitlines():
            line = parse_json(text)
            for name, value in line.items() if "epoch" in line else ():
                if name not in _NOT_LOSSES and value is not None:  # that is not finite is stored as text
                    values.setdefault(name, {}).setdefault(line["epoch"] + 1, []).append(float(value))
        return {
            name: np.array([(epoch, _mean(steps)) for epoch, steps in by_epoch.items()], np.float64)
            for name, by_epoch in values.items()
        }


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
