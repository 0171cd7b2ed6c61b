"""Plots of retrieved images: some queries of a run and the images nearest to each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from hashbench.codes import BinaryCodes, Codes, ProductCodes, count_bits
from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError
from hashbench.evaluation.inputs import read_vectors
from hashbench.report.plots.style import (
    BLACK,
    GREEN,
    PAGE,
    SMALL,
    VERMILION,
    Plot,
    add_legend,
    add_run_title,
    style,
)
from hashbench.results.stored_run import StoredRun

THUMBNAIL = 96  # pixels of the longer side

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


def require_data(run: StoredRun, dataset: Dataset) -> None:
    """Check that a dataset is that of a run.

    Raises:
        HashbenchError: The fingerprints differ.
    """
    if dataset.fingerprint != run.record.split.sha256:
        raise HashbenchError(
            f"{dataset.name}@{dataset.protocol} here is not the data of {run.record.run_id}: expected the "
            f"fingerprint {run.record.split.sha256[:8]}…, got {dataset.fingerprint[:8]}…; pass the folder of "
            "the run's data by --data-root or --lists"
        )


def query_metric(run: StoredRun, metric: str | None) -> str:
    """Return the name of a mAP of a run: the given one, if the run has it, else the first."""
    metric = metric or run.record.first_metric
    if not metric.startswith("mAP") or metric not in run.record.metrics:
        metric = next(name for name in run.record.metrics if name.startswith("mAP"))
    return metric


def query_values(run: StoredRun, metric: str) -> NDArray[np.float64]:
    """Return the AP of each query for a mAP [queries], NaN for those that the mean leaves out.

    Raises:
        HashbenchError: The AP is not known.
    """
    values = run.average_precisions(metric)
    if values is None:
        raise HashbenchError(
            f"{run.folder} has no AP of its queries by the installed evaluator; run it again with --force"
        )
    return values


def evenly_spaced(values: NDArray[np.float64], count: int) -> list[int]:
    """Return queries evenly spaced in their order by value, highest first, without those that are NaN."""
    order = np.argsort(-values, kind="stable")[: np.count_nonzero(~np.isnan(values))]
    ranks = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(query) for query in order[ranks]]


class Nearest(NamedTuple):
    """The images nearest to a query; arrays are [top]."""

    images: NDArray[np.intp]
    distances: NDArray[Any]
    relevant: NDArray[np.bool_]


class Search:
    """The codes of a run, for the search of the images nearest to a query."""

    def __init__(self, run: StoredRun) -> None:
        """Read the codes.

        Raises:
            HashbenchError: The codes are missing or cannot be read.
        """
        (self.query, self.database), self.known = run.codes(), run.relevant()

    def nearest(self, query: int, top: int) -> Nearest:
        """Return the images nearest to a query, those at equal distances in the order of the database."""
        distances = _distances(self.query, self.database, query)
        images = np.argsort(distances, kind="stable")[:top]
        return Nearest(images, distances[images], _relevant(self.known, query, images))


class _Found(NamedTuple):
    """A query and its nearest images; arrays are [top]."""

    query: int
    ap: float
    nearest: NDArray[np.intp]
    distances: NDArray[Any]
    relevant: NDArray[np.bool_]


def _distances(query: Codes | NDArray[Any], database: Codes, index: int) -> NDArray[Any]:
    """Return the distances of the database from one query [n], as in `hashbench.evaluate`."""
    if isinstance(database, ProductCodes):
        books, _, dim = database.codebooks.shape
        pieces = read_vectors(query, database)[index].reshape(books, 1, dim)
        table = np.sqrt(np.square(pieces - database.codebooks.astype(np.float64)).sum(axis=-1))
        return np.asarray(table[np.arange(books), database.indices].sum(axis=1))
    assert isinstance(query, BinaryCodes)  # `StoredRun.codes` returns both or neither as BinaryCodes
    distances = count_bits(database.packed ^ query.packed[index])
    return distances.astype(np.min_scalar_type(database.bits))  # small integers are sorted faster


def _relevant(known: Mapping[str, NDArray[Any]], query: int, images: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return a mask [n] of the images that are relevant to a query, by the result of `StoredRun.relevant`."""
    if "neighbours" in known:
        return np.isin(images, known["neighbours"][query])
    label, labels = known["query_labels"][query], known["database_labels"][images]
    return np.asarray(labels == label if labels.ndim == 1 else (labels & label).any(axis=1))


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
    small.thumbnail((THUMBNAIL, THUMBNAIL))
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
