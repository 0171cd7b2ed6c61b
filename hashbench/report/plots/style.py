"""How plots look, and how they become files: one style for print, told apart in colour and in grey."""

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

from hashbench.report.aggregate import Cell, Column
from hashbench.results.stored_run import StoredRun

Format = Literal["pdf", "svg", "png"]

COLUMN, PAGE = 3.3, 6.8  # width in inches: of a column of text, and of a page
FONT, SMALL = 8, 7  # points

# Okabe and Ito's colours, which the colour-blind tell apart, with grey for yellow, which paper hides.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#666666",
)  # fmt: skip
# As many colours, dashes and markers as have no common divisor, so that labels share all three only late.
_DASHES: Sequence[Any] = (
    "-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
_MARKERS = "os^Dv<>PX"

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a file is the same on any machine
    "font.size": FONT,
    "text.parse_math": False,  # a label may have a dollar sign
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
    "pdf.fonttype": 42,  # TrueType, which journals ask for
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "svg.hashsalt": "hashbench",
}
_METADATA: Mapping[Format, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
_CHARACTERS = 15  # of a label that fit in an inch
_HANDLE = 0.4  # width of what stands before a label, in inches


def style() -> AbstractContextManager[None]:
    """The style of all plots, whatever the user's matplotlibrc says."""
    return matplotlib.style.context(["default", _STYLE])


@dataclass(frozen=True)
class Plot:
    """A plot, and what it shows.

    Attributes:
        figure: The figure.
        data: The numbers in it.
        notes: What a reader should know that the figure does not say, one sentence each.
    """

    figure: Figure
    data: pd.DataFrame
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        # Else each rendering would lay it out anew, starting from where the last one left it.
        if (engine := self.figure.get_layout_engine()) is not None:
            with style():
                engine.execute(self.figure)
        self.figure.set_layout_engine("none")

    def render(self, format: Format) -> bytes:
        """The figure as the content of a file; the same records give the same bytes."""
        stream = io.BytesIO()
        with style():
            self.figure.savefig(stream, format=format, metadata=_METADATA[format])
        return stream.getvalue()


@dataclass(frozen=True)
class Look:
    """How the line of a label is drawn.

    Attributes:
        colour: One of `COLOURS`.
        dashes: Line style, as matplotlib takes it.
        marker: A marker that can be filled.
    """

    colour: str
    dashes: Any
    marker: str

    def line(self, hollow: bool) -> dict[str, Any]:
        """Arguments of a line; `hollow` empties its markers."""
        return {
            "color": self.colour,
            "linestyle": self.dashes,
            "marker": self.marker,
            "markerfacecolor": "white" if hollow else self.colour,
        }


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for each label, by its place: plots of the same runs give it the same one."""
    return {
        label: Look(
            COLOURS[place % len(COLOURS)], _DASHES[place % len(_DASHES)], _MARKERS[place % len(_MARKERS)]
        )
        for place, label in enumerate(dict.fromkeys(labels))
    }


def panels(
    count: int, *, height: float, columns: int = 0, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side.

    Args:
        count: Number of panels.
        height: Of each, in inches.
        columns: Panels in a row; 0: as many as are readable.
        share_y: All have one vertical scale.
    """
    columns = columns or {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    figure = Figure((COLUMN if columns == 1 else PAGE, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def set_title(axis: Axes, text: str) -> None:
    """Give a panel a title, in lines that fit above it."""
    grid = axis.get_gridspec()
    assert grid is not None
    axis.set_title(wrapped(text, axis.figure.bbox.width / axis.figure.dpi / grid.ncols))


def log_axis(axis: Axes) -> None:
    """Make the horizontal axis of what is drawn logarithmic, with plain numbers at its ticks."""
    axis.set_xscale("log")
    least, most = axis.get_xlim()
    axis.xaxis.set_major_locator(LogLocator(subs=[1] if most > 30 * least else [1, 2, 5]))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def add_legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """Put a legend below the panels, as low as it can be, and make the figure higher by it.

    Args:
        figure: The figure.
        entries: What stands before each label: lines or patches.
    """

    def put(columns: int) -> Legend:
        width = figure.get_figwidth() / columns - _HANDLE
        labels = [wrapped(label, width, cut=columns == 1) for label in entries]
        return figure.legend(
            list(entries.values()), labels, loc="outside lower center", ncols=columns, borderaxespad=0.2
        )

    heights = {}
    for columns in range(1, 5):
        legend = put(columns)
        extent = legend.get_window_extent()
        if columns == 1 or extent.width < figure.bbox.width:
            heights[columns] = extent.height / figure.dpi
        legend.remove()
    columns = min(heights, key=lambda columns: round(heights[columns], 1))  # of a height, the fewest columns
    put(columns)
    figure.set_figheight(figure.get_figheight() + heights[columns])


def lines(look: Mapping[str, Look], groups: Iterable[Mapping[str, Cell]]) -> dict[str, Line2D]:
    """The legend of lines: a label whose codes collapsed says so, and is hollow where all its points are.

    Args:
        look: From `looks`.
        groups: What each panel shows, by label.
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
        entries[text] = Line2D([], [], **look[label].line(all(cell.collapsed for cell in cells)))
    return entries


def wrapped(text: str, width: float, cut: bool = True) -> str:
    """Text in lines that fit in a width in inches; `cut` says whether a word may be cut for it."""
    return textwrap.fill(text, max(1, int(_CHARACTERS * width)), break_long_words=cut)


def add_run_title(figure: Figure, run: StoredRun, *more: str) -> None:
    """Say above all panels what run it is and whether its codes collapsed, and make the figure higher by it.

    Args:
        figure: The figure.
        run: The run.
        more: Further sentences.
    """
    record = run.record
    column = Column(record.dataset, record.protocol, record.bits)
    reasons = (f"COLLAPSED: {reason}" for reason in record.health.reasons)
    sentences = (f"{run.label}, {column}, seed {record.seed}", *reasons, *more)
    text = figure.suptitle("\n".join(wrapped(sentence, figure.get_figwidth()) for sentence in sentences))
    figure.set_figheight(figure.get_figheight() + text.get_window_extent().height / figure.dpi)
