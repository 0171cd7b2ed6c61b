"""Plots of retrieved images: some queries of a run and the images nearest to each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from hashbench.codes import BinaryCodes
from hashbench.data.dataset import Dataset
from hashbench.report.line_styles import BLACK, GREEN, VERMILION
from hashbench.report.plots.style import PAGE, SMALL, Plot, add_legend, add_run_title, style
from hashbench.report.retrieval import Search, evenly_spaced, query_metric, query_values, require_data
from hashbench.results.stored_run import StoredRun

_THUMBNAIL = 96  # pixels of the longer side

_GAP = 0.4  # between a query and its nearest image, in widths of an image
_TEXT = 0.17  # height of the text below an image, in inches
_FRAMES = {True: (GREEN, "-"), False: (VERMILION, (0, (2.5, 2)))}  # by relevance


def retrieval_plot(
    run: StoredRun, dataset: Dataset, metric: str | None = None, queries: int = 5, top: int = 10
) -> Plot:
    """Plot queries of a run and their nearest images, with frames that show their relevance.

    The queries are evenly spaced in their order by AP, from best to worst. Images at equal distances keep the
    order of the database.

    Args:
        run: A run with its codes.
        dataset: The dataset of the run.
        metric: The mAP whose AP orders the queries, as in "mAP@all"; if the run has no such mAP, its first.
        queries: Number of queries; all if there are fewer.
        top: Number of images per query; all if there are fewer.

    Returns:
        The plot; `data` has a row for each retrieved image: query (its id), ap, rank (from 1), image (its
        id), distance, relevant.

    Raises:
        HashbenchError: The codes are missing, the dataset is not that of the run, or an image cannot be read.
    """
    require_data(run, dataset)
    search = Search(run)
    metric = query_metric(run, metric)
    values = query_values(run, metric)
    found = [
        _Found(query, values[query], *search.nearest(query, top)) for query in evenly_spaced(values, queries)
    ]
    distance = "Hamming distance" if isinstance(search.database, BinaryCodes) else "distance"
    sentence = (
        f"Queries, evenly spaced in their order by A{metric[2:]} from best to worst, and the images "
        f"nearest to each, with their {distance}; equal distances in the order of the database."
    )
    with style():
        figure = _draw(dataset, found)
        add_run_title(figure, run, sentence)
        frames = {True: "shares a label with the query", False: "shares no label with the query"}
        if "neighbours" in search.known:
            frames = {True: "a neighbour of the query by features", False: "not a neighbour of the query"}
        add_legend(figure, {text: _frame(*_FRAMES[relevant]) for relevant, text in frames.items()})
    return Plot(figure, _table(dataset, found))


class _Found(NamedTuple):
    """A query and its nearest images; arrays are [top]."""

    query: int
    ap: float
    nearest: NDArray[np.intp]
    distances: NDArray[Any]
    relevant: NDArray[np.bool_]


def _draw(dataset: Dataset, found: Sequence[_Found]) -> Figure:
    top = len(found[0].nearest)
    height = PAGE / (top + 1 + _GAP) + _TEXT
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure((PAGE, height * len(found)), layout=layout)
    axes = figure.subplots(len(found), top + 2, squeeze=False, width_ratios=[1, _GAP, *[1] * top])
    for (first, gap, *others), row in zip(axes, found, strict=True):
        gap.remove()
        _show(first, dataset.query.images[row.query], f"AP {row.ap:.2f}", BLACK, "-")
        for axis, image, distance, relevant in zip(
            others, row.nearest, row.distances, row.relevant, strict=True
        ):
            _show(axis, dataset.database.images[image], f"{distance:.3g}", *_FRAMES[bool(relevant)])
    return figure


def _show(axis: Axes, image: Image.Image, text: str, colour: str, dashes: Any) -> None:
    small = image.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    axis.imshow(np.asarray(small), interpolation="none")
    axis.set(xticks=[], yticks=[], anchor="S")  # so that the texts of a row are aligned
    axis.set_xlabel(text, loc="left", fontsize=SMALL, labelpad=2)
    axis.spines[:].set(visible=True, color=colour, linestyle=dashes, linewidth=1.5)


def _frame(colour: str, dashes: Any) -> Patch:
    return Patch(fill=False, edgecolor=colour, linestyle=dashes, linewidth=1.5)


def _table(dataset: Dataset, found: Sequence[_Found]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "query": dataset.query.images.ids[row.query],
            "ap": row.ap,
            "rank": rank,
            "image": dataset.database.images.ids[image],
            "distance": distance,
            "relevant": bool(relevant),
        }
        for row in found
        for rank, (image, distance, relevant) in enumerate(
            zip(row.nearest, row.distances, row.relevant, strict=True), start=1
        )
    )
