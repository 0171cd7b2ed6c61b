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
from hashbench.report.line_styles import BLACK, BLUE, ORANGE, VERMILION
from hashbench.report.plots.style import Plot, add_legend, add_run_title, panels, style
from hashbench.results.stored_run import StoredRun

_PAIRS: dict[str, tuple[str, Any]] = {"relevant": (BLUE, "-"), "irrelevant": (VERMILION, (0, (5, 1.5)))}


def codes_plot(run: StoredRun) -> Plot:
    """Plot how the codes of a run use their bits, and how they separate relevant from irrelevant pairs.

    The panels show the mean sign of each bit in the database; the absolute Pearson correlation between bits,
    since inverting a bit changes no distance; and the shares of relevant and of irrelevant pairs of a query
    and a database item at each Hamming distance, counted over all pairs. Product codes have no Hamming
    distance and therefore no last panel; their bits are those of the indices of their codewords.

    Returns:
        The plot; `data` has a row for each value: panel ("balance", "correlation", "distances"), bit and
        other_bit (from 0), distance, pairs ("relevant", "irrelevant"), value.

    Raises:
        HashbenchError: The codes are missing or cannot be read.
    """
    rankings = run.evaluate().rankings
    _, database = run.codes()
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
            notes.append("product codes have no Hamming distances, so their distribution is not shown")
    data = pd.concat(tables, ignore_index=True)
    whole = {name: "Int64" for name in ("bit", "other_bit", "distance") if name in data}
    return Plot(figure, data.astype(whole), notes)


def _correlations(means: NDArray[np.float64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Pearson correlation between bits [bits, bits]; NaN for dead bits."""
    deviations = np.sqrt(1 - means**2)
    deviations[deviations == 0] = np.nan
    return np.asarray((products - np.outer(means, means)) / np.outer(deviations, deviations))


def _shares(counts: Counts) -> dict[str, NDArray[np.float64]]:
    """Return the shares of relevant and of irrelevant pairs at each distance [bits + 1]."""
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
