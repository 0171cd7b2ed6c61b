"""Retrieved images on the page: several methods with the same queries, and the queries that each fails on."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashbench.data.dataset import Dataset, Split
from hashbench.errors import HashbenchError
from hashbench.report.aggregate import by_split
from hashbench.report.retrieval import Search, evenly_spaced, query_metric, query_values, require_data
from hashbench.results.stored_run import IN_PROTOCOL_NAME, StoredRun

MAX_RUNS = 8  # methods side by side, those with the highest metric
TOP = 10  # images per query
_SIDE = 64  # pixels of the longer side of a thumbnail
_SHARP = 32  # pixels up to which an image is enlarged without blur
_CONFUSED = 5  # classes in the table
_SAMPLE = 200  # queries that the table counts


class Thumbnails:
    """The small images of a page; each is embedded once, however often it is shown.

    Attributes:
        sources: The index of each image, by its data URL and by whether it is enlarged without blur.
    """

    def __init__(self) -> None:
        """Create an empty collection."""
        self.sources: dict[tuple[str, bool], int] = {}

    def add(self, image: Image.Image) -> int:
        """Return the index of an image, which may be there already."""
        small, stream = image.convert("RGB"), io.BytesIO()
        small.thumbnail((_SIDE, _SIDE))
        sharp = max(small.size) <= _SHARP
        small.save(stream, "WEBP", quality=80, lossless=sharp)
        source = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
        return self.sources.setdefault((source, sharp), len(self.sources))


class Shown(NamedTuple):
    """An image of the page; without the dataset, `image` is None."""

    image: int | None
    text: str
    relevant: bool | None = None


class Result(NamedTuple):
    """A query by one run: its AP and the nearest images; empty if the codes are not known."""

    run: int
    label: str
    ap: float
    nearest: Sequence[Shown] = ()


class Query(NamedTuple):
    """A query and its results by several runs."""

    shown: Shown
    results: list[Result]


class Failures(NamedTuple):
    """The queries with the lowest AP of a run, and the classes that it confuses most."""

    run: int
    label: str
    queries: list[Query]
    confused: list[tuple[str, str, str]]


class SplitRetrieval(NamedTuple):
    """The queries of one split that the page shows, and what they find.

    Attributes:
        title: The split and the code length.
        notes: Sentences on what is shown and what cannot be.
        queries: The same queries by all runs; empty if no nearest images are known.
        failures: The failures of each run.
    """

    title: str
    notes: list[str]
    queries: list[Query]
    failures: list[Failures]


def runs_to_show(runs: Sequence[StoredRun]) -> dict[str, list[StoredRun]]:
    """Return the best run of each method by split, at the code length with the most runs, best first.

    A method is shown with its recipe unchanged, if it was run so. Runs with collapsed codes are left out. Of
    code lengths with equally many runs, the middle one is used.
    """
    chosen = {}
    for name, group in by_split(run for run in runs if not run.record.health.collapsed).items():
        counts = Counter(run.record.bits for run in group)
        usual = sorted(bits for bits, count in counts.items() if count == max(counts.values()))
        best: dict[str, StoredRun] = {}
        for run in sorted(group, key=lambda run: (not _changed(run), _value(run)), reverse=True):
            if run.record.bits == usual[len(usual) // 2]:
                best.setdefault(run.record.method, run)
        chosen[name] = sorted(best.values(), key=_value, reverse=True)[:MAX_RUNS]
    return chosen


def split_retrieval(
    runs: Sequence[StoredRun],
    dataset: Dataset | str,
    count: int,
    index: Mapping[str, int],
    thumbnails: Thumbnails,
) -> SplitRetrieval:
    """Return what the page shows of the queries of one split.

    Args:
        runs: The runs from `runs_to_show`.
        dataset: Their dataset, or the reason why it cannot be loaded.
        count: Number of queries.
        index: The index of each run on the page, by run id.
        thumbnails: The collection that receives the images.
    """
    arguments = count, index, thumbnails
    try:
        if isinstance(dataset, Dataset):
            require_data(runs[0], dataset)
            return _retrieval(runs, dataset, *arguments)
    except HashbenchError as error:
        dataset = str(error)
    found = _retrieval(runs, None, *arguments)
    return found._replace(notes=[f"The images cannot be shown: {dataset}.", *found.notes])


def _retrieval(
    runs: Sequence[StoredRun],
    dataset: Dataset | None,
    count: int,
    index: Mapping[str, int],
    thumbnails: Thumbnails,
) -> SplitRetrieval:
    values, searches, notes = _read(runs, dataset)
    queries, failures = [], []
    images = _Images(dataset, thumbnails)

    def result(run: StoredRun, query: int) -> Result:
        search = searches.get(run.record.run_id)
        shown = images.nearest(search, query) if search else ()
        return Result(index[run.record.run_id], run.label, values[run.record.run_id][query], shown)

    known = [run for run in runs if run.record.run_id in values]
    if searches:
        mean = np.mean([values[run.record.run_id] for run in known], axis=0)
        for query in evenly_spaced(mean, count):
            results = [result(run, query) for run in known if run.record.run_id in searches]
            queries.append(Query(images.query(query, known[0].query_ids()[query]), results))
    for run in known:
        own, ids = values[run.record.run_id], run.query_ids()
        lowest = np.argsort(own, kind="stable")[: min(count, np.count_nonzero(~np.isnan(own)))]
        failed = [Query(images.query(query, ids[query]), [result(run, query)]) for query in lowest.tolist()]
        search = searches.get(run.record.run_id)
        confused = _confused(search, dataset) if search and dataset else []
        failures.append(Failures(index[run.record.run_id], run.label, failed, confused))
    title = f"{runs[0].record.split_name}, {runs[0].record.bits} bits"
    return SplitRetrieval(title, notes, queries, failures)


def _read(
    runs: Sequence[StoredRun], dataset: Dataset | None
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Search], list[str]]:
    """Return the AP of the queries and the codes of each run by its id, and notes on what is not known."""
    notes = []
    values: dict[str, NDArray[np.float64]] = {}
    searches: dict[str, Search] = {}
    missing: dict[str, str] = {}
    for run in runs:
        try:
            values[run.record.run_id] = query_values(run, query_metric(run, run.metric))
        except HashbenchError as error:
            notes.append(f"{run.label} is left out: {error}.")
            continue
        try:
            if dataset is not None:
                searches[run.record.run_id] = Search(run)
        except HashbenchError as error:
            missing[run.label] = str(error)
    if missing:
        whose = f" of {', '.join(missing)}" if searches else ""
        notes.append(f"The nearest images{whose} are not known: {next(iter(missing.values()))}.")
    return values, searches, notes


class _Images:
    """The images of a dataset with their texts; without the dataset, only ids."""

    def __init__(self, dataset: Dataset | None, thumbnails: Thumbnails) -> None:
        self.dataset, self.thumbnails = dataset, thumbnails

    def query(self, index: int, name: str) -> Shown:
        if self.dataset is None:
            return Shown(None, name)
        return self._shown(self.dataset.query, index)

    def nearest(self, search: Search, query: int) -> list[Shown]:
        assert self.dataset is not None
        found = search.nearest(query, TOP)
        return [
            self._shown(self.dataset.database, image, f", distance {distance:.3g}", bool(relevant))
            for image, distance, relevant in zip(*found, strict=True)
        ]

    def _shown(self, part: Split, index: int, more: str = "", relevant: bool | None = None) -> Shown:
        assert self.dataset is not None
        classes = np.atleast_1d(
            part.labels[index] if part.labels.ndim == 1 else part.labels[index].nonzero()[0]
        )
        names = ", ".join(self.dataset.class_names[at] for at in classes[:3] if at >= 0)
        text = f"{part.images.ids[index]} ({names}){more}"
        return Shown(self.thumbnails.add(part.images[index]), text, relevant)


def _confused(search: Search, dataset: Dataset) -> list[tuple[str, str, str]]:
    """Return the classes whose queries find most of other classes: name, own share, others."""
    if dataset.query.labels.ndim != 1 or "neighbours" in search.known:
        return []
    queries = np.linspace(0, len(dataset.query.labels) - 1, min(_SAMPLE, len(dataset.query.labels)))
    counts: dict[int, Counter[int]] = {}
    for query in np.unique(queries.round().astype(int)).tolist():
        own = int(dataset.query.labels[query])
        found: Any = dataset.database.labels[search.nearest(query, TOP).images]
        counts.setdefault(own, Counter()).update(found.tolist())
    shares = {
        own: {other: count / found.total() for other, count in found.most_common()}
        for own, found in counts.items()
    }
    rows = []
    for own in sorted(shares, key=lambda own: shares[own].get(own, 0))[:_CONFUSED]:
        others = [
            f"{dataset.class_names[other]} ({share:.0%})"
            for other, share in list(shares[own].items())[:4]
            if other != own and share >= 0.01
        ]
        if others:
            rows.append((dataset.class_names[own], f"{shares[own].get(own, 0):.0%}", ", ".join(others)))
    return rows


def _changed(run: StoredRun) -> bool:
    return not set(run.changes or ()) <= {*run.common, *IN_PROTOCOL_NAME}


def _value(run: StoredRun) -> float:
    return run.record.metrics[run.metric].expected
