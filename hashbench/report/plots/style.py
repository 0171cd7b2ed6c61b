"""The style of all plots, made for print and legible in colour and in grey, and how plots become files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from hashbench.report.aggregate import Cell, Column, column_of
from hashbench.report.line_styles import LineStyle
from hashbench.results.stored_run import StoredRun

Format = Literal["pdf", "svg", "png"]

COLUMN, PAGE = 3.3, 6.8  # widths of a column of text and of a page, in inches
FONT, SMALL = 8, 7  # font sizes, in points

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a file is the same on every machine
    "font.size": FONT,
    "text.parse_math": False,  # a label may contain a dollar sign
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "figure.titlesize": FONT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "lines.markeredgewidth": 0.8,
    "errorbar.capsize": 2,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType, which journals require
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "svg.hashsalt": "hashbench",
}
_METADATA: Mapping[Format, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
_CHARACTERS_PER_INCH = 15  # of a label
_HANDLE = 0.4  # width of a legend handle, in inches


def style() -> AbstractContextManager[None]:
    """Apply the style of all plots in a `with` block, independent of the user's matplotlibrc."""
    return matplotlib.style.context(["default", _STYLE])


@dataclass(frozen=True)
class Plot:
    """A figure and its numbers.

    Attributes:
        figure: The figure.
        data: The numbers in the figure.
        notes: Sentences that a reader should know and the figure does not show.
    """

    figure: Figure
    data: pd.DataFrame
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Laid out once, since another layout would start from the result of this one and differ from it.
        if (engine := self.figure.get_layout_engine()) is not None:
            with style():
                engine.execute(self.figure)
        self.figure.set_layout_engine("none")

    def render(self, format: Format) -> bytes:
        """Return the content of a file of the figure; the same records give the same bytes."""
        stream = io.BytesIO()
        with style():
            self.figure.savefig(stream, format=format, metadata=_METADATA[format])
        return stream.getvalue()


def panels(
    count: int, *, height: float, columns: int = 0, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Create a figure with panels side by side.

    Args:
        count: Number of panels.
        height: Height of each panel, in inches.
        columns: Number of panels in a row; 0 is as many as are readable.
        share_y: All panels share one vertical scale.
    """
    columns = columns or {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    figure = Figure((COLUMN if columns == 1 else PAGE, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def panel_rows(counts: Sequence[int], *, height: float) -> tuple[Figure, list[list[Axes]]]:
    """Create a figure with a row of panels for each number, which fill the width of the figure.

    Args:
        counts: Number of panels in each row, from 1 to 3.
        height: Height of each row, in inches.
    """
    figure = Figure((COLUMN if max(counts) == 1 else PAGE, height * len(counts)), layout="constrained")
    grid = figure.add_gridspec(len(counts), 6)
    spans = [[slice(6 * n // count, 6 * (n + 1) // count) for n in range(count)] for count in counts]
    return figure, [[figure.add_subplot(grid[row, span]) for span in each] for row, each in enumerate(spans)]


def set_column_titles(axes: Sequence[Axes], columns: Sequence[Column]) -> None:
    """Set the titles of panels; a dataset that all of them share is the title of the figure."""
    common = len({column.split_name for column in columns}) == 1 and len(columns) > 1
    if common:
        axes[0].figure.suptitle(columns[0].split_name)
    for axis, column in zip(axes, columns, strict=True):
        set_title(axis, f"{column.bits} bits" if common else str(column))


def set_title(axis: Axes, text: str) -> None:
    """Set the title of a panel, wrapped to its width."""
    grid = axis.get_gridspec()
    assert grid is not None
    axis.set_title(wrapped(text, axis.figure.bbox.width / axis.figure.dpi / grid.ncols))


def log_axis(axis: Axes) -> None:
    """Make the horizontal axis of a drawn panel logarithmic, with plain numbers at its ticks."""
    axis.set_xscale("log")
    least, most = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=[1] if most > 30 * least else [1, 2, 5]))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """Add a legend of the lowest possible height below the panels, and increase the figure's height by it."""

    def add(columns: int) -> Legend:
        width = figure.get_figwidth() / columns - _HANDLE
        labels = [wrapped(label, width, cut=columns == 1) for label in entries]
        return figure.legend(
            list(entries.values()), labels, loc="outside lower center", ncols=columns, borderaxespad=0.2
        )

    heights = {}
    for columns in range(1, 5):
        legend = add(columns)
        extent = legend.get_window_extent()
        if columns == 1 or extent.width < figure.bbox.width:
            heights[columns] = extent.height / figure.dpi
        legend.remove()
    columns = min(heights, key=lambda columns: round(heights[columns], 1))  # the fewest of equal heights
    add(columns)
    figure.set_figheight(figure.get_figheight() + heights[columns])


def legend_lines(styles: Mapping[str, LineStyle], groups: Iterable[Mapping[str, Cell]]) -> dict[str, Line2D]:
    """Return the legend entries of lines, which tell whose codes collapsed, and the settings of a name.

    The markers of an entry are hollow if all points of the label are.
    """
    found: dict[str, list[Cell]] = {}
    for group in groups:
        for label, cell in group.items():
            found.setdefault(label, []).append(cell)
    entries = {}
    for label, cells in found.items():
        runs, collapsed = sum(len(cell.runs) for cell in cells), sum(len(cell.collapsed) for cell in cells)
        share = "" if collapsed == runs else f"{collapsed} of {runs} runs "
        text = f"{label}, {share}collapsed" if collapsed else label
        text += f": {cells[0].runs[0].note}" if cells[0].runs[0].note else ""
        entries[text] = Line2D([], [], **styles[label].keywords(all(cell.collapsed for cell in cells)))
    return entries


def wrapped(text: str, width: float, cut: bool = True) -> str:
    """Wrap text to a width in inches; if `cut`, words that are longer are cut."""
    return textwrap.fill(text, max(1, int(_CHARACTERS_PER_INCH * width)), break_long_words=cut)


def add_run_title(figure: Figure, run: StoredRun, *more: str) -> None:
    """Add a title that names a run and tells if its codes collapsed; the figure grows by its height."""
    record = run.record
    reasons = (f"COLLAPSED: {reason}" for reason in record.health.reasons)
    sentences = (f"{run.label}, {column_of(record)}, seed {record.seed}", *reasons, *more)
    text = figure.suptitle("\n".join(wrapped(sentence, figure.get_figwidth()) for sentence in sentences))
    figure.set_figheight(figure.get_figheight() + text.get_window_extent().height / figure.dpi)
