"""Plots of the codes of one run: balance of bits, correlation between them, distances of pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from hashbench.codes import ProductCodes
from hashbench.evaluation import Counts
from hashbench.evaluation.health import moments
from hashbench.report.plots.style import (
    BLACK,
    BLUE,
    ORANGE,
    VERMILLION,
    Plot,
    add_legend,
    add_run_title,
    panels,
    style,
)
from hashbench.results.stored_run import StoredRun

_PAIRS: dict[str, tuple[str, Any]] = {"relevant": (BLUE, "-"), "irrelevant": (VERMILLION, (0, (5, 1.5)))}


def codes_plot(run: StoredRun) -> Plot:
    """How the codes of a run use their bits, and how far they part relevant from irrelevant pairs.

    Panels: the mean sign of each bit in the database; the absolute Pearson correlation between bits, since a
    code means the same with a bit inverted; the shares of relevant and of irrelevant pairs of a query and a
    database item at each Hamming distance, counted over all pairs. Product codes have no Hamming distance and
    so no last panel; their bits are the numbers of their codewords in binary.

    Args:
        run: A run with its codes.

    Returns:
        The plot; `data` has a row a number: panel ("balance", "correlation", "distances"), bit and other_bit
        (from 0), distance, pairs ("relevant", "irrelevant"), value.

    Raises:
        HashbenchError: The codes are not there or cannot be read.
    """
    rankings = run.evaluate().rankings
    _, database, *_ = run.codes()
    binary = database.to_binary() if isinstance(database, ProductCodes) else database
    means, products = moments(binary)
    correlations = _correlations(means, products)
    bits = np.arange(binary.bits)
    tables = [
        pd.DataFrame({"panel": "balance", "bit": bits, "value": means}),
        pd.DataFrame(
            {
                "panel": "correlation",
                "bit": np.repeat(bits, binary.bits),
                "other_bit": np.tile(bits, binary.bits),
                "value": correlations.ravel(),
            }
        ),
    ]
    notes = []
    with style():
        figure, axes = panels(3 if isinstance(rankings, Counts) else 2, height=2.4)
        add_run_title(figure, run)
        _draw_balance(axes[0], means)
        _draw_correlations(axes[1], correlations)
        if isinstance(rankings, Counts):
            shares = _shares(rankings)
            tables += [
                pd.DataFrame(
                    {"panel": "distances", "distance": np.arange(len(share)), "pairs": pairs, "value": share}
                )
                for pairs, share in shares.items()
            ]
            for pairs, share in shares.items():
                colour, dashes = _PAIRS[pairs]
                axes[2].stairs(share, np.arange(len(share) + 1) - 0.5, color=colour, linestyle=dashes)
            axes[2].set(xlabel="Hamming distance", ylabel="Share of the pairs")
            legend = {
                f"{pairs} pairs": Line2D([], [], color=colour, linestyle=dashes)
                for pairs, (colour, dashes) in _PAIRS.items()
            }
            add_legend(figure, legend)
        else:
            notes.append("product codes have no Hamming distances, so there is no distribution of them")
    data = pd.concat(tables, ignore_index=True)
    whole = {name: "Int64" for name in ("bit", "other_bit", "distance") if name in data}
    return Plot(figure, data.astype(whole), notes)


def _correlations(means: NDArray[np.float64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation between bits [bits, bits]; NaN where a bit is dead."""
    deviations = np.sqrt(1 - means**2)
    deviations[deviations == 0] = np.nan
    return np.asarray((products - np.outer(means, means)) / np.outer(deviations, deviations))


def _shares(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Shares of pairs at each distance [bits + 1], of the relevant ones and of the others."""
    items, relevant = counts.items.sum(axis=0), counts.relevant.sum(axis=0)
    pairs = {"relevant": relevant, "irrelevant": items - relevant}
    return {name: count / max(1, count.sum()) for name, count in pairs.items()}


def _draw_balance(axis: Axes, means: NDArray[np.float64]) -> None:
    axis.bar(np.arange(len(means)), means, width=0.8, color=BLUE)
    axis.axhline(0, color=BLACK, linewidth=0.6)
    axis.set(xlabel="Bit", ylabel="Mean sign (±1: dead)", ylim=(-1.05, 1.05))


def _draw_correlations(axis: Axes, correlations: NDArray[np.float64]) -> None:
    dead = bool(np.isnan(correlations).any())
    colours = colormaps["Greys"].with_extremes(bad=ORANGE)
    image = axis.imshow(np.abs(correlations), cmap=colours, vmin=0, vmax=1, interpolation="none")
    axis.grid(visible=False)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(5, integer=True))
    axis.set(xlabel="Bit (orange: dead)" if dead else "Bit", ylabel="Bit")
    axis.figure.colorbar(image, ax=axis, label="|Pearson correlation|", shrink=0.8)
