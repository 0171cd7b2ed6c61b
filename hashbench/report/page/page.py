"""One HTML page about runs: tables, curves, ablations, retrieved images, and the details of each run.

`page.html` is the template of the page, with the macros of `elements.html`; this module computes the values.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from hashbench.config import flatten
from hashbench.errors import HashbenchError
from hashbench.evaluation import VERSION
from hashbench.report.aggregate import by_split
from hashbench.report.plots.curve_plots import pr_plot
from hashbench.report.plots.metric_plots import bits_plot, speed_plot
from hashbench.report.plots.style import COLUMN, Plot
from hashbench.report.tables.ablation_table import ablation_table, ablations
from hashbench.report.tables.result_table import result_table
from hashbench.report.tables.table import NOTHING, Table
from hashbench.results.selection import FoundRuns
from hashbench.results.stored_run import StoredRun

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
RetrievalPlots = Mapping[str, "Plot | str"]
"""By run id: the plot of the images that a run retrieves, or the reason why there is none."""

_PIXELS = 130  # of a screen, per inch of a figure for print


def html_page(selected: FoundRuns, retrieval: RetrievalPlots, across_backbones: bool = False) -> str:
    """Return a page that needs no other file and no network.

    Raises:
        UsageError: Runs of one protocol cannot be compared.
    """
    runs = selected.runs
    found = ablations(runs)
    variants = {run.record.run_id for one in found for v in one.variants[1:] for run in v.cell.runs}
    whole = [run for run in runs if run.record.run_id not in variants]
    methods = dict.fromkeys(run.record.method for run in runs)
    titles = {run.record.run_id: f"{run.label}, {run.record.split_name}" for run in runs}
    splits: dict[str, list[str]] = {}  # by metric
    for name, group in by_split(runs).items():
        splits.setdefault(group[0].metric, []).append(name)
    return TEMPLATES.get_template("page.html").render(
        heading="; ".join(f"{metric} on {', '.join(names)}" for metric, names in splits.items()),
        summary=f"{len(runs)} runs of {', '.join(methods)}. "
        f"Made by hashbench {version('hashbench')}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC.",
        warnings=_warnings(selected),
        results=_results(selected, whole, across_backbones),
        curves=_curves(whole),
        ablations=[ablation_table(one) for one in found],
        retrieval=[
            (titles[run_id], plot if isinstance(plot, str) else _embedded(plot, titles[run_id], "webp"))
            for run_id, plot in retrieval.items()
        ],
        overview=_overview(runs),
        runs=[_details(run) for run in runs],
        environments=_environments(runs),
    )


def best_runs(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the run with the highest metric of each dataset and protocol, without collapsed runs."""
    sound = [run for run in runs if not run.record.health.collapsed]
    return [
        max(group, key=lambda run: run.record.metrics[run.metric].expected)
        for group in by_split(sound).values()
    ]


def _warnings(selected: FoundRuns) -> list[str]:
    found = []
    for run in selected.runs:
        record = run.record
        if record.health.collapsed:
            found.append(f"{record.run_id} COLLAPSED: {'; '.join(record.health.reasons)}.")
    found += [
        f"{run.run_id} has not finished: it failed, was stopped, or still runs."
        for run in selected.unfinished
    ]
    found += selected.notes
    for name, runs in by_split(selected.runs).items():
        warnings = dict.fromkeys(warning for run in runs for warning in run.record.split.warnings)
        found += [f"{name}: {warning}" for warning in warnings]
        shared = max(run.record.split.overlaps.query_database for run in runs)
        if shared:
            found.append(f"{name}: {shared:,} queries are also in the database.")
        evaluator = runs[0].record.evaluator  # of all, since they are compared
        if evaluator != VERSION:
            found.append(f"{name}: measured by evaluator {evaluator}; evaluator {VERSION} is installed.")
    return found


def _results(selected: FoundRuns, whole: Sequence[StoredRun], across_backbones: bool) -> dict[str, Table]:
    tables = {}
    for name, runs in by_split(whole).items():
        labels = {run.label for run in runs}
        unfinished = [run for run in selected.unfinished if f"{run.dataset}@{run.protocol_name}" == name]
        part = FoundRuns(runs, [label for label in selected.labels if label in labels], unfinished, [])
        tables[name] = result_table(part, bounds=True, across_backbones=across_backbones)
    return tables


@dataclass(frozen=True)
class EmbeddedImage:
    """A plot inside the page.

    As an image of its own, the names inside an SVG cannot clash with those of another one.

    Attributes:
        source: The image as a data URL.
        alternative: Text for readers who do not see the image.
        width: Width in pixels.
        wide: The plot scrolls on a narrow screen, since its text could not be read if it were shrunk.
        notes: Sentences below the image.
    """

    source: str
    alternative: str
    width: int
    wide: bool
    notes: Sequence[str]


def _embedded(plot: Plot, alternative: str, format: Literal["svg", "webp"] = "svg") -> EmbeddedImage:
    """Render a plot for the page; "webp" makes photographs a fifth as large as PNG."""
    if format == "svg":
        media_type, content = "image/svg+xml", plot.render("svg")
    else:
        stream = io.BytesIO()
        with Image.open(io.BytesIO(plot.render("png"))) as image:
            image.convert("RGB").save(stream, "WEBP", quality=85)
        media_type, content = "image/webp", stream.getvalue()
        alternative = f"Queries and their nearest images, {alternative}"
    source = f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
    width = plot.figure.get_figwidth()
    return EmbeddedImage(source, alternative, round(_PIXELS * width), width > COLUMN, plot.notes)


def _curves(runs: Sequence[StoredRun]) -> dict[str, EmbeddedImage | str]:
    """Return the plots by title, each of them or the reason why it cannot be drawn."""
    metric = " and ".join(dict.fromkeys(run.metric for run in runs))
    plots: dict[str, Callable[[], Plot]] = {
        "Precision against recall, by rank over the full database": lambda: pr_plot(runs),
        f"{metric} against code length": lambda: bits_plot(runs),
        f"{metric} against seconds of training and bytes of a code": lambda: speed_plot(runs),
    }
    shown: dict[str, EmbeddedImage | str] = {}
    for title, draw in plots.items():
        try:
            shown[title] = _embedded(draw(), title)
        except HashbenchError as error:  # for example if the runs came without curves.csv
            shown[title] = str(error)
    return shown


def _overview(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the head, rows and caption of a table with a row for each run."""
    head = (
        "run", "dataset", "backbone", "bits", "seed", "metric", "value", "chance", "codes", "distinct codes",
        "dead bits", "balance", "correlation", "largest tie", "training, s", "encoding, s", "evaluation, s",
        "bytes a code",
    )  # fmt: skip
    rows = []
    for run in runs:
        record, health = run.record, run.record.health
        chance = health.chance_map.get(run.metric)
        rows.append(
            (
                run.label,
                record.split_name,
                run.backbone,
                record.bits,
                record.seed,
                run.metric,
                f"{record.metrics[run.metric].expected:.4f}",
                NOTHING if chance is None else f"{chance:.4f}",
                "COLLAPSED" if health.collapsed else "healthy",
                f"{health.unique_code_ratio:.3f}",
                health.dead_bits,
                f"{health.bit_balance:.3f}",
                f"{health.mean_bit_correlation:.3f}",
                f"{health.largest_tie_block_mean:.3f}",
                f"{record.timing.whole_training:.1f}",
                f"{record.timing.whole_encoding:.1f}",
                f"{record.timing.evaluate:.1f}",
                f"{record.bits / 8:g}",
            )
        )
    caption = (
        "Chance is the metric of a random ranking. Columns on the codes of the database: distinct codes as a "
        "share of the items, dead bits, mean |mean sign| of a bit, mean |correlation| of two bits, largest "
        "share of the database at one distance from a query. Seconds include those of the features that a "
        "run used, even if an earlier run had computed them."
    )
    return {"head": head, "rows": rows, "caption": caption}


def _details(run: StoredRun) -> dict[str, Any]:
    record = run.record
    overlaps = record.split.overlaps
    return {
        "title": f"{record.run_id}, {run.label}",
        "collapsed": record.health.collapsed,
        "facts": {
            "created": f"{record.created:%Y-%m-%d %H:%M:%S} UTC",
            "folder": "/".join(run.folder.parts[-4:]),
            "queries": f"{record.split.query:,}",
            "training images": f"{record.split.train:,}",
            "database images": f"{record.split.database:,}",
            "split": record.split.sha256,
            "shared images": f"{overlaps.query_database:,} query and database, "
            f"{overlaps.query_train:,} query and train, {overlaps.train_database:,} train and database",
            "source code": record.environment.get("source", NOTHING),
            "evaluator": record.evaluator,
            "queries without relevant": record.queries_without_relevant,
        },
        "metrics": {
            name: f"{metric.expected:.4f} ({metric.lowest:.4f} to {metric.highest:.4f})"
            for name, metric in record.metrics.items()
        },
        "changes": {path: json.dumps(value) for path, value in (record.changes or {}).items()},
        "settings": {path: json.dumps(value) for path, value in flatten(record.config).items()},
    }


def _environments(runs: Sequence[StoredRun]) -> list[tuple[dict[str, Any], list[str]]]:
    """Return each environment and the ids of its runs; the source hash differs by method and is omitted."""
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for run in runs:
        facts = {key: value for key, value in run.record.environment.items() if key != "source"}
        groups.setdefault(json.dumps(facts, sort_keys=True), (facts, []))[1].append(run.record.run_id)
    return list(groups.values())
