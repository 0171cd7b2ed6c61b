"""Plots of curves, averaged over seeds: precision against recall or rank, losses against epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hashbench.errors import UsageError
from hashbench.report.aggregate import Cell, Column, cells
from hashbench.report.curves import read_cells, read_losses, read_precision
from hashbench.report.line_styles import LineStyle, line_styles
from hashbench.report.plots.style import (
    Plot,
    add_legend,
    legend_lines,
    log_axis,
    panel_rows,
    panels,
    set_column_titles,
    style,
)
from hashbench.results.record import CURVES, LOG
from hashbench.results.stored_run import StoredRun

Kind = Literal["rank", "radius", "topn"]
T = TypeVar("T")

_MAX_COLUMNS = 3  # panels in a row


@dataclass(frozen=True)
class _Axes:
    curve: str  # name in curves.csv
    x: str  # column of the horizontal axis
    x_label: str
    y_label: str


_AXES: dict[Kind, _Axes] = {
    "rank": _Axes("rank", "recall", "Recall (by rank, full database)", "Precision"),
    "radius": _Axes("radius-macro", "recall", "Recall (by Hamming radius)", "Precision (empty radius: 0)"),
    "topn": _Axes("rank", "at", "N, number of images retrieved", "Precision of the top N"),
}


@dataclass(frozen=True)
class _Curve:
    """The points of a cell: means, minima and maxima over seeds."""

    cell: Cell
    points: pd.DataFrame


_Curves = dict[Column, dict[str, _Curve]]


def pr_plot(runs: Sequence[StoredRun], kind: Kind = "rank") -> Plot:
    """Plot precision against recall or rank, with a panel per dataset and code length and a line per method.

    A line is the mean over seeds, and its band extends from their minimum to their maximum precision.

    Args:
        runs: The runs, from `select`.
        kind: "rank" is precision against recall for ranks up to the size of the database; "radius" is
            precision against recall, as means over the queries, for Hamming radii from 0 to the code length;
            "topn" is precision against rank.

    Returns:
        The plot; `data` has a row for each point: dataset, protocol, bits, label, seeds (number of seeds), at
        (the rank or radius), precision, recall, precision_least, precision_most.

    Raises:
        UsageError: The runs cannot be compared, or none has such a curve.
        HashbenchError: The curves of a run cannot be read.
    """
    axes = _AXES[kind]
    curves, notes = _curves(
        runs,
        CURVES,
        lambda path: _precision(path, axes.curve),
        ["at"],
        "precision",
        "product codes have no Hamming radius",
    )
    styles = line_styles(run.label for run in runs)
    with style():
        figure, panel_axes = panels(len(curves), height=2.5, share_y=True)
        for axis, row in zip(panel_axes, curves.values(), strict=True):
            for index, (label, curve) in enumerate(row.items()):
                # Staggered, so that markers of different lines do not overlap; in shares of the diagonal.
                every = 1 if kind == "radius" else (0.03 * (index + 1), 0.2)
                _draw(axis, styles[label], curve, curve.points, axes.x, "precision", every)
            axis.set_xlabel(axes.x_label)
            if (spec := axis.get_subplotspec()) and spec.is_first_col():
                axis.set_ylabel(axes.y_label)
            if kind == "topn":
                log_axis(axis)
            else:
                axis.set_xlim(0, 1.02)
        panel_axes[0].set_ylim(bottom=0)  # the panels share the axis
        set_column_titles(panel_axes, [*curves])
        add_legend(figure, legend_lines(styles, [_cells(row) for row in curves.values()]))
    return Plot(figure, _table(curves), notes)


def training_plot(runs: Sequence[StoredRun]) -> Plot:
    """Plot the loss and its parts over epochs, with rows of panels for a method, dataset and code length.

    If a mAP selected the epoch, it is also a part. Lines are variants of the method. A value is the mean over
    the steps of an epoch and over seeds, and its band extends from the minimum to the maximum of the seeds.

    Returns:
        The plot; `data` has a row for each point: dataset, protocol, bits, label, seeds (number of seeds),
        part, epoch (from 1), value, value_least, value_most.

    Raises:
        UsageError: The runs cannot be compared, or none was trained by epochs.
        HashbenchError: The log of a run cannot be read.
    """
    curves, notes = _curves(runs, LOG, _losses, ["part", "epoch"], "value", "they are fitted without epochs")
    shown: dict[str, dict[str, dict[str, _Curve]]] = {}  # a row of panels for each method
    for column, row in curves.items():
        for label, curve in row.items():
            parts = shown.setdefault(f"{curve.cell.runs[0].record.method}, {column}", {})
            for part in curve.points["part"].unique():
                parts.setdefault(part, {})[label] = curve
    rows: list[tuple[str, Sequence[tuple[str, dict[str, _Curve]]]]] = [
        (title if first else "", some)
        for title, every in shown.items()
        for first, some in _even_rows([*every.items()])
    ]
    styles = line_styles(run.label for run in runs)
    with style():
        figure, axes_of_rows = panel_rows([len(some) for _, some in rows], height=1.8)
        for axes, (title, some) in zip(axes_of_rows, rows, strict=True):
            axes[0].set_title(title, loc="left")
            for axis, (part, panel) in zip(axes, some, strict=True):
                for label, curve in panel.items():
                    points = curve.points[curve.points["part"] == part]
                    _draw(axis, styles[label], curve, points, "epoch", "value", max(1, len(points) // 6))
                axis.set(xlabel="Epoch", ylabel=part)
                axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
                if all((curve.points["epoch"] == 1).all() for curve in panel.values()):
                    axis.set(xlim=(0.5, 1.5), xticks=[1])
        add_legend(figure, legend_lines(styles, [_cells(row) for row in curves.values()]))
    return Plot(figure, _table(curves), notes)


def _even_rows(panels: Sequence[T]) -> Iterator[tuple[bool, Sequence[T]]]:
    """Yield rows of nearly equal length, each with True for the first one."""
    rows = -(-len(panels) // _MAX_COLUMNS)
    limits = [round(len(panels) * row / rows) for row in range(rows + 1)]
    for start, stop in pairwise(limits):
        yield start == 0, panels[start:stop]


def _curves(
    runs: Sequence[StoredRun],
    file: str,
    read: Callable[[Path], pd.DataFrame],
    keys: list[str],
    value: str,
    why_none: str,
) -> tuple[_Curves, list[str]]:
    """Return the curves of all cells that have one, and notes on those that have none.

    Args:
        runs: The runs.
        file: Name of the file with the points of a run.
        read: Function that returns the points in a file; none if the run has no such curve.
        keys: Columns that identify a point.
        value: Column whose minimum and maximum are also returned.
        why_none: Reason why a file may have no points, as in "they are fitted without epochs".

    Raises:
        UsageError: No cell has a curve.
    """
    found, missing = read_cells(cells(runs), file, read)
    curves: _Curves = {}
    left_out = {f"they have no {file}": dict.fromkeys(missing)} if missing else {}
    for column, row in found.items():
        for label, (cell, tables) in row.items():
            grouped = pd.concat(tables).groupby(keys, sort=False)
            if not len(grouped):
                left_out.setdefault(why_none, {})[label] = None
                continue
            points = grouped.mean()
            points[f"{value}_least"], points[f"{value}_most"] = grouped[value].min(), grouped[value].max()
            curves.setdefault(column, {})[label] = _Curve(cell, points.reset_index())
    notes = [f"left out, since {reason}: {', '.join(labels)}" for reason, labels in left_out.items()]
    if not curves:
        raise UsageError(f"there is nothing to draw; {'; '.join(notes)}")
    return curves, notes


def _precision(path: Path, curve: str) -> pd.DataFrame:
    """Read the columns at, precision and recall."""
    table = pd.DataFrame(read_precision(path, curve), columns=["at", "precision", "recall"])
    return table.astype({"at": int})


def _losses(path: Path) -> pd.DataFrame:
    """Read the columns part, epoch (from 1) and value; the log of a fitted method has no rows."""
    losses = read_losses(path)
    rows = [(part, int(epoch), value) for part, curve in losses.items() for epoch, value in curve]
    return pd.DataFrame(rows, columns=["part", "epoch", "value"])


def _draw(
    axis: Axes, line: LineStyle, curve: _Curve, points: pd.DataFrame, x: str, y: str, markevery: Any
) -> None:
    axis.plot(points[x], points[y], markevery=markevery, **line.keywords(bool(curve.cell.collapsed)))
    if len(curve.cell.runs) > 1:
        band = points[f"{y}_least"], points[f"{y}_most"]
        axis.fill_between(points[x], *band, color=line.colour, alpha=0.2, linewidth=0)


def _cells(row: Mapping[str, _Curve]) -> dict[str, Cell]:
    return {label: curve.cell for label, curve in row.items()}


def _table(curves: _Curves) -> pd.DataFrame:
    keys: list[tuple[Any, ...]] = []
    tables = []
    for column, row in curves.items():
        for label, curve in row.items():
            keys.append((*column, label, len(curve.cell.runs)))
            tables.append(curve.points)
    named = pd.concat(tables, keys=keys, names=["dataset", "protocol", "bits", "label", "seeds"])
    return named.reset_index(level=-1, drop=True).reset_index()
