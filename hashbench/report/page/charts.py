"""The numbers of the page's charts: means over seeds, for the script that draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.report.aggregate import Cell, Column
from hashbench.report.curves import Curve, read_cells, read_losses, read_precision
from hashbench.report.line_styles import COLOURS, line_styles
from hashbench.results.record import CURVES, LOG

POINTS = 100  # of a line, at most
DIGITS = 5  # of a number, significant

Chart = dict[str, Any]
"""A chart: `lines` (of the legend), `panels` (each with the points of its lines) and `notes`."""
Columns = Mapping[Column, Mapping[str, Cell]]
_SHORTEST_S = 0.01  # the resolution of a record, since a logarithmic axis has no zero


def pr_chart(columns: Columns, index: Mapping[str, int]) -> Chart:
    """Return precision against recall by rank; the panels are columns and the lines methods.

    Args:
        columns: The cells.
        index: The index of each run on the page, by run id.
    """
    read, missing = read_cells(columns, CURVES, lambda path: read_precision(path, "rank"))
    chart = _chart((label for row in read.values() for label in row), _missing(CURVES, missing))
    for column, row in read.items():
        lines = []
        for label, (cell, curves) in row.items():
            ranks, mean, least, most = _means(curves)
            line = _line(chart, label, [cell], index, mean[:, 1], mean[:, 0], least[:, 0], most[:, 0])
            lines.append(line | {"rank": ranks.astype(int).tolist()})
        chart["panels"].append(_panel(str(column), "Recall", "Precision", lines, y=[0, 1], x=[0, 1]))
    return chart


def training_charts(columns: Columns, index: Mapping[str, int]) -> dict[str, Chart]:
    """Return a chart for each method and split, with panels for the loss and its parts."""
    read, missing = read_cells(columns, LOG, read_losses)
    parts: dict[str, dict[str, list[tuple[str, Cell, list[Curve]]]]] = {}  # by title, then by part
    for column, row in read.items():
        for label, (cell, logs) in row.items():
            for part in dict.fromkeys(part for log in logs for part in log):
                drawn = parts.setdefault(f"{cell.runs[0].record.method}, {column.split_name}", {})
                curves = [log[part] for log in logs if part in log]
                drawn.setdefault(part, []).append((f"{label}, {column.bits} bits", cell, curves))
    charts = {}
    for title, drawn in parts.items():
        chart = charts[title] = _chart(
            (name for lines in drawn.values() for name, *_ in lines), _missing(LOG, missing)
        )
        for part, found in drawn.items():
            lines = []
            for name, cell, curves in found:
                epochs, mean, least, most = _means(curves)
                lines.append(_line(chart, name, [cell], index, epochs, mean[:, 0], least[:, 0], most[:, 0]))
            chart["panels"].append(_panel("", "Epoch", part, lines, whole=True))
    return charts


def bits_chart(columns: Columns, index: Mapping[str, int]) -> Chart:
    """Return the metric against code length; the panels are splits and the lines methods."""
    chart = _metric_chart(columns, index, "Code length (bits)", lambda cell: cell.runs[0].record.bits)
    for panel in chart["panels"]:
        panel["ticks"] = sorted({x for line in panel["lines"] for x in line["x"]})
    return chart


def speed_chart(columns: Columns, index: Mapping[str, int]) -> Chart:
    """Return the metric against the seconds of training; the panels are splits and the lines methods."""
    return _metric_chart(
        columns,
        index,
        "Training (s)",
        lambda cell: max(_SHORTEST_S, np.mean([run.record.timing.whole_training for run in cell.runs])),
    )


def _metric_chart(
    columns: Columns, index: Mapping[str, int], x_label: str, x_of: Callable[[Cell], Any]
) -> Chart:
    splits: dict[str, dict[str, list[Cell]]] = {}
    for column, row in columns.items():
        for label, cell in row.items():
            splits.setdefault(column.split_name, {}).setdefault(label, []).append(cell)
    chart = _chart((label for by_label in splits.values() for label in by_label), [])
    for split, by_label in splits.items():
        lines = []
        for label, cells in by_label.items():
            means = np.array([cell.mean for cell in cells])
            deviations = np.array([cell.deviation or 0 for cell in cells])
            x, band = [x_of(cell) for cell in cells], (means - deviations, means + deviations)
            line = _line(chart, label, cells, index, x, means, *band)
            line["bits"] = [cell.runs[0].record.bits for cell in cells]
            lines.append(line | {"hollow": [bool(cell.collapsed) for cell in cells]})
        if len({x for line in lines for x in line["x"]}) > 1:
            chart["panels"].append(_panel(split, x_label, cells[0].metric, lines, log=True))
        else:
            chart["notes"].append(
                f"{split} is left out, since all its runs have the same {x_label[0].lower()}{x_label[1:]}."
            )
    return chart


def _chart(names: Iterable[str], notes: Sequence[str]) -> Chart:
    lines = [
        {
            "name": name,
            "colour": COLOURS.index(style.colour),
            # As SVG takes them; empty is a solid line.
            "dashes": "" if style.dashes == "-" else " ".join(f"{2 * part:g}" for part in style.dashes[1]),
        }
        for name, style in line_styles(names).items()
    ]
    return {"lines": lines, "panels": [], "notes": list(notes)}


def _panel(title: str, x_label: str, y_label: str, lines: list[Any], **more: Any) -> dict[str, Any]:
    return {"title": title, "xLabel": x_label, "yLabel": y_label, "lines": lines, **more}


def _line(
    chart: Chart,
    name: str,
    cells: Sequence[Cell],
    index: Mapping[str, int],
    x: Any,
    y: NDArray[np.float64],
    least: NDArray[np.float64],
    most: NDArray[np.float64],
) -> dict[str, Any]:
    """Return a line of a panel; without a band, if there is a single seed."""
    line = {
        "line": next(at for at, one in enumerate(chart["lines"]) if one["name"] == name),
        "runs": [index[run.record.run_id] for cell in cells for run in cell.runs],
        "x": _rounded(x),
        "y": _rounded(y),
    }
    return line if np.array_equal(least, most) else line | {"least": _rounded(least), "most": _rounded(most)}


def _rounded(values: Iterable[float]) -> list[float | None]:
    """Round values; one that is not finite becomes None, since JSON has no other numbers."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values]


def _means(curves: Sequence[Curve]) -> tuple[NDArray[np.float64], ...]:
    """Average the curves of several runs, and thin them.

    Returns:
        The keys [points] of at most `POINTS` evenly spaced points, with the first and the last; the means,
        minima and maxima of their columns [points, columns].
    """
    points = np.concatenate(curves)
    keys, index = np.unique(points[:, 0], return_inverse=True)
    shape = len(keys), points.shape[1] - 1
    sums, least, most = np.zeros(shape), np.full(shape, np.inf), np.full(shape, -np.inf)
    np.add.at(sums, index, points[:, 1:])
    np.minimum.at(least, index, points[:, 1:])
    np.maximum.at(most, index, points[:, 1:])
    kept = np.unique(np.linspace(0, len(keys) - 1, min(len(keys), POINTS)).round().astype(int))
    return keys[kept], (sums / np.bincount(index)[:, None])[kept], least[kept], most[kept]


def _missing(file: str, labels: Sequence[str]) -> list[str]:
    return [f"Left out, since they have no {file}: {', '.join(labels)}."] if labels else []
