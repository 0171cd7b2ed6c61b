"""Plots of a metric against code length and against its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from hashbench.errors import UsageError
from hashbench.report.aggregate import Cell, Column, cells
from hashbench.report.line_styles import LineStyle, line_styles
from hashbench.report.plots.style import Plot, add_legend, legend_lines, log_axis, panels, set_title, style
from hashbench.results.stored_run import StoredRun

_SHORTEST_S = 0.01  # the resolution of a record, since a logarithmic axis has no zero
_HARDWARE = ("processor", "threads", "gpu")  # of a record's environment

_Panels = dict[str, dict[str, dict[int, Cell]]]  # by dataset and protocol, label, code length


def bits_plot(runs: Sequence[StoredRun]) -> Plot:
    """Plot the metric of runs against code length, with a panel for each dataset and a line for each method.

    A point is the mean over seeds, and its bar their standard deviation. It is hollow if codes collapsed.
    What was measured at one code length only is left out.

    Returns:
        The plot; `data` has a row for each point: dataset, protocol, bits, label, metric, seeds and collapsed
        (numbers of runs), mean, deviation, bytes (of a code), train_seconds, encode_seconds (means).

    Raises:
        UsageError: The runs cannot be compared, or have one code length only.
    """
    columns = cells(runs)
    styles = line_styles(run.label for run in runs)
    shown, notes = _without_lone_points(_panels(columns))
    if not shown:
        raise UsageError(f"there is nothing to draw; {notes[0]}; run several lengths with --bits 16,32,64")
    columns = _shown(columns, shown)
    with style():
        figure, axes = panels(len(shown), height=2.4)
        for axis, (name, row) in zip(axes, shown.items(), strict=True):
            for index, (label, by_bits) in enumerate(row.items()):
                factor = _dodge_factor(index, len(row))
                _draw(axis, styles[label], [bits * factor for bits in by_bits], list(by_bits.values()))
            _mark_lengths(axis, {bits: str(bits) for by_bits in row.values() for bits in by_bits})
            set_title(axis, name)
            axis.set(xlabel="Code length (bits); markers side by side", ylabel=_y_label(row))
        add_legend(figure, legend_lines(styles, columns.values()))
    return Plot(figure, _table(columns), notes)


def speed_plot(runs: Sequence[StoredRun]) -> Plot:
    """Plot the metric of runs against its cost: the seconds of training, and the bytes of an image's code.

    Each dataset has a row of two panels. A line joins the code lengths of a method; larger markers in the
    panel of seconds are longer codes. Seconds include those of the features that a run used, even if an
    earlier run had computed them. What was measured at one code length only is left out where it would be
    alone or beside lines.

    Returns:
        The plot; `data` has the columns of `bits_plot`.

    Raises:
        UsageError: The runs cannot be compared.
    """
    columns = cells(runs)
    styles = line_styles(run.label for run in runs)
    shown, notes = _without_lone_points(_panels(columns), keep_compared=True)
    columns = _shown(columns, shown)
    with style():
        figure, axes = panels(2 * len(shown), height=2.4, columns=2)
        for time, size, (name, row) in zip(axes[::2], axes[1::2], shown.items(), strict=True):
            for label, by_bits in row.items():
                found = list(by_bits.values())
                seconds = [max(_SHORTEST_S, _mean_seconds(cell, "whole_training")) for cell in found]
                _draw(time, styles[label], seconds, found, sizes=[1.5 + bits**0.5 / 2 for bits in by_bits])
                _draw(size, styles[label], [bits / 8 for bits in by_bits], found)
            log_axis(time)
            time.set(xlabel="Training (s); larger marker: longer code", ylabel=_y_label(row))
            _mark_lengths(size, {bits / 8: f"{bits / 8:g}" for by_bits in row.values() for bits in by_bits})
            size.set(xlabel="Code of an image (bytes)")
            time.set_title(name, loc="left")
        add_legend(figure, legend_lines(styles, columns.values()))
    hardware = {tuple(run.record.environment.get(key) for key in _HARDWARE) for run in runs}
    notes.append("the seconds of a run include those of the features that it used, cached or not")
    if len(hardware) > 1:
        notes.append("runs were timed on different hardware, so their seconds are not comparable")
    return Plot(figure, _table(columns), notes)


def _panels(columns: Mapping[Column, Mapping[str, Cell]]) -> _Panels:
    shown: _Panels = {}
    for column in sorted(columns, key=lambda column: column.bits):
        for label, cell in columns[column].items():
            panel = shown.setdefault(column.split_name, {})
            panel.setdefault(label, {})[column.bits] = cell
    return shown


def _without_lone_points(panels: _Panels, *, keep_compared: bool = False) -> tuple[_Panels, list[str]]:
    """Return the panels without labels that have one code length, and a note on these.

    Args:
        panels: The cells of each panel by label and code length.
        keep_compared: Keep them in a panel without lines where they are several, or which is the only one.
    """
    shown: _Panels = {}
    lone: list[str] = []
    for name, row in panels.items():
        kept = {label: by_bits for label, by_bits in row.items() if len(by_bits) > 1}
        if not kept and keep_compared and (len(row) > 1 or len(panels) == 1):
            kept = row
        lone += [f"{label} on {name}" for label in row if label not in kept]
        if kept:
            shown[name] = kept
    return shown, [f"left out, since there is only one code length: {', '.join(lone)}"] if lone else []


def _shown(columns: Mapping[Column, Mapping[str, Cell]], panels: _Panels) -> dict[Column, dict[str, Cell]]:
    """Return the cells of columns that panels contain."""
    return {
        column: {label: cell for label, cell in row.items() if label in panels[column.split_name]}
        for column, row in columns.items()
        if column.split_name in panels
    }


def _draw(
    axis: Axes, line: LineStyle, x: Sequence[float], found: Sequence[Cell], sizes: Iterable[float | None] = ()
) -> None:
    """Draw means with their standard deviations; `sizes` are those of the markers, in points."""
    means = [cell.mean for cell in found]
    deviations = [np.nan if cell.deviation is None else cell.deviation for cell in found]
    axis.errorbar(x, means, deviations, color=line.colour, linestyle=line.dashes)
    for value, mean, cell, size in zip(x, means, found, sizes or [None] * len(found), strict=True):
        axis.plot(value, mean, markersize=size, **line.keywords(bool(cell.collapsed)))


def _dodge_factor(index: int, count: int) -> float:
    """Return the factor that shifts a label's points along the code lengths, so that bars do not overlap."""
    return float(2 ** (0.03 * (index - (count - 1) / 2)))


def _mark_lengths(axis: Axes, texts: Mapping[float, str]) -> None:
    """Set a tick for each code length, on a scale that suits lengths that double."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(texts), list(texts.values()))
    axis.xaxis.set_minor_locator(NullLocator())
    if len(texts) == 1:
        (only,) = texts
        axis.set_xlim(only / 2, only * 2)


def _y_label(row: Mapping[str, Mapping[int, Cell]]) -> str:
    found = [cell for by_bits in row.values() for cell in by_bits.values()]
    several = any(cell.deviation is not None for cell in found)
    return f"{found[0].metric} (± std over seeds)" if several else found[0].metric


def _mean_seconds(cell: Cell, step: str) -> float:
    return float(np.mean([getattr(run.record.timing, step) for run in cell.runs]))


def _table(columns: Mapping[Column, Mapping[str, Cell]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **column._asdict(),
            "label": label,
            "metric": cell.metric,
            "seeds": len(cell.runs),
            "collapsed": len(cell.collapsed),
            "mean": cell.mean,
            "deviation": cell.deviation,
            "bytes": column.bits / 8,
            "train_seconds": _mean_seconds(cell, "whole_training"),
            "encode_seconds": _mean_seconds(cell, "whole_encoding"),
        }
        for column, row in columns.items()
        for label, cell in row.items()
    )
