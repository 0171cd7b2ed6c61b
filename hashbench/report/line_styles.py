"""The colours and line styles of plots and of the page, legible in colour and in grey."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# Okabe and Ito's palette for the colour-blind, with grey instead of yellow, which is faint on paper.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY = COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#666666",
)  # fmt: skip
# The numbers of colours, dashes and markers are chosen such that few labels share all three.
_DASHES: Sequence[Any] = (
    "-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)),
)  # fmt: skip
_MARKERS = "os^Dv<>PX"


@dataclass(frozen=True)
class LineStyle:
    """The style of the line of a label.

    Attributes:
        colour: One of `COLOURS`.
        dashes: A line style of matplotlib.
        marker: A marker that can be filled.
    """

    colour: str
    dashes: Any
    marker: str

    def keywords(self, hollow: bool) -> dict[str, Any]:
        """Return the keyword arguments of a matplotlib line, with hollow or filled markers."""
        return {
            "color": self.colour,
            "linestyle": self.dashes,
            "marker": self.marker,
            "markerfacecolor": "white" if hollow else self.colour,
        }


def line_styles(labels: Iterable[str]) -> dict[str, LineStyle]:
    """Return a style for each label by its index, so that all plots of the same runs use the same styles."""
    return {
        label: LineStyle(
            COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)], _MARKERS[index % len(_MARKERS)]
        )
        for index, label in enumerate(dict.fromkeys(labels))
    }
