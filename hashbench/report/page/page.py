"""One HTML page about runs: tables, curves, ablations, what is retrieved, and what each run was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hashbench.config import flatten
from hashbench.errors import HashbenchError
from hashbench.evaluation import VERSION
from hashbench.report.aggregate import cells
from hashbench.report.page.elements import (
    element,
    folded,
    grid_table,
    items,
    pairs,
    plain_table,
    plot_image,
    text,
)
from hashbench.report.plots.curve_plots import pr_plot
from hashbench.report.plots.metric_plots import bits_plot, speed_plot
from hashbench.report.plots.style import Plot
from hashbench.report.tables.ablation_table import ablation_grid, ablations
from hashbench.report.tables.result_table import result_grid
from hashbench.report.tables.table import NOTHING
from hashbench.results.query import FoundRuns
from hashbench.results.stored_run import StoredRun

_HERE = Path(__file__).parent
Grids = Mapping[str, "Plot | str"]
"""By run id: what a run retrieves, or why that cannot be shown."""


def html_page(selected: FoundRuns, metric: str, grids: Grids) -> str:
    """A page that needs no other file and no network.

    Args:
        selected: The runs, from `select`.
        metric: A metric of all of them.
        grids: What runs retrieve, from `retrieval_plot`.

    Raises:
        UsageError: Runs of one protocol cannot be compared.
    """
    found = ablations(selected.runs, metric)
    parts = {run.record.run_id for one in found for v in one.variants[1:] for run in v.cell.runs}
    whole = [run for run in selected.runs if run.record.run_id not in parts]
    names = dict.fromkeys(f"{run.record.dataset}@{run.record.protocol}" for run in selected.runs)
    methods = dict.fromkeys(run.record.method for run in selected.runs)
    sections = {
        "Warnings": items(_warnings(selected), class_="warnings"),
        "Results": _results(selected, whole, metric),
        "Curves": _curves(whole, metric),
        "Ablation": "".join(grid_table(ablation_grid(one)) for one in found),
        "Retrieval": _retrieval(selected.runs, grids),
        "Runs": _runs(selected.runs, metric),
        "Environment": _environments(selected.runs),
    }
    shown = {title: content for title, content in sections.items() if content}
    heading = f"{metric} on {', '.join(names)}"
    body = [
        text("h1", heading),
        text(
            "p",
            f"{len(selected.runs)} runs of {', '.join(methods)}. "
            f"Made by hashbench {version('hashbench')}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC.",
        ),
        element("nav", *(text("a", title, href=f"#{title.lower()}") for title in shown)),
        *(
            element("section", text("h2", title), content, id=title.lower())
            for title, content in shown.items()
        ),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n<style>\n{_file('page.css')}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n<script>\n{_file('page.js')}</script>\n</body>\n</html>\n"
    )


def best_runs(runs: Sequence[StoredRun], metric: str) -> list[StoredRun]:
    """The run with the highest metric of each dataset and protocol, of those whose codes did not collapse.

    Raises:
        UsageError: Runs of one protocol cannot be compared, or lack the metric.
    """
    compared = (cell for row in cells(runs, metric).values() for cell in row.values())
    sound = [run for cell in compared for run in cell.runs if not run.record.health.collapsed]
    return [
        max(group, key=lambda run: run.record.metrics[metric].expected)
        for group in _by_protocol(sound).values()
    ]


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _by_protocol(runs: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(f"{run.record.dataset}@{run.record.protocol}", []).append(run)
    return groups


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
    for name, runs in _by_protocol(selected.runs).items():
        said = dict.fromkeys(warning for run in runs for warning in run.record.split.warnings)
        found += [f"{name}: {warning}" for warning in said]
        shared = max(run.record.split.overlaps.query_database for run in runs)
        if shared:
            found.append(f"{name}: {shared:,} queries are also in the database.")
        evaluator = runs[0].record.evaluator  # of all, since they are compared
        if evaluator != VERSION:
            found.append(f"{name}: measured by evaluator {evaluator}; installed is evaluator {VERSION}.")
    return found


def _results(selected: FoundRuns, whole: Sequence[StoredRun], metric: str) -> str:
    parts = []
    for name, runs in _by_protocol(whole).items():
        labels = {run.label for run in runs}
        unfinished = [run for run in selected.unfinished if f"{run.dataset}@{run.protocol}" == name]
        part = FoundRuns(runs, [label for label in selected.labels if label in labels], unfinished, [])
        parts += [text("h3", name), grid_table(result_grid(part, metric, bounds=True))]
    return "".join(parts)


def _curves(runs: Sequence[StoredRun], metric: str) -> str:
    plots: dict[str, Callable[[], Plot]] = {
        "Precision against recall, by rank over the full database": lambda: pr_plot(runs),
        f"{metric} against code length": lambda: bits_plot(runs, metric),
        f"{metric} against seconds of training and bytes of a code": lambda: speed_plot(runs, metric),
    }
    shown = []
    for title, draw in plots.items():
        try:
            shown += [text("h3", title), plot_image(draw(), title)]
        except HashbenchError as error:  # as where curves.csv did not come along
            shown.append(text("p", error))
    return "".join(shown)


def _retrieval(runs: Sequence[StoredRun], grids: Grids) -> str:
    labels = {run.record.run_id: f"{run.label}, {run.record.dataset}@{run.record.protocol}" for run in runs}
    return "".join(
        text("p", f"{labels[run_id]}: {grid}")
        if isinstance(grid, str)
        else plot_image(grid, f"Queries and their nearest images, {labels[run_id]}", "webp")
        for run_id, grid in grids.items()
    )


def _runs(runs: Sequence[StoredRun], metric: str) -> str:
    head = (
        "run", "dataset", "bits", "seed", metric, "chance", "codes", "distinct codes", "dead bits", "balance",
        "correlation", "largest tie", "training, s", "encoding, s", "evaluation, s", "bytes a code",
    )  # fmt: skip
    rows = []
    for run in runs:
        record, health = run.record, run.record.health
        chance = health.chance_map.get(metric)
        rows.append(
            (
                run.label,
                f"{record.dataset}@{record.protocol}",
                record.bits,
                record.seed,
                f"{record.metrics[metric].expected:.4f}",
                NOTHING if chance is None else f"{chance:.4f}",
                "COLLAPSED" if health.collapsed else "healthy",
                f"{health.unique_code_ratio:.3f}",
                health.dead_bits,
                f"{health.bit_balance:.3f}",
                f"{health.mean_bit_correlation:.3f}",
                f"{health.largest_tie_block_mean:.3f}",
                f"{record.timing.train:.1f}",
                f"{record.timing.encode:.1f}",
                f"{record.timing.evaluate:.1f}",
                f"{record.bits / 8:g}",
            )
        )
    caption = (
        "Chance: of a random ranking. Of the codes in the database: distinct codes as a share of the items; "
        "dead bits; mean |mean sign| of a bit; mean |correlation| of two bits; largest share of the database "
        "at one distance from a query."
    )
    details = (
        element(
            "details",
            text("summary", f"{run.record.run_id}, {run.label}"),
            _details(run),
            **({"class_": "collapsed"} if run.record.health.collapsed else {}),
        )
        for run in runs
    )
    return plain_table(head, rows, caption) + text("h3", "Each run") + "".join(details)


def _details(run: StoredRun) -> str:
    record = run.record
    overlaps = record.split.overlaps
    facts = {
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
    }
    bounds = {
        name: f"{metric.expected:.4f} ({metric.lowest:.4f} to {metric.highest:.4f})"
        for name, metric in record.metrics.items()
    }
    settings = {path: json.dumps(value) for path, value in flatten(record.config).items()}
    changes = {path: json.dumps(value) for path, value in (record.changes or {}).items()}
    return "".join(
        [
            pairs(facts),
            text("h4", "Metrics (any order of ties)") + pairs(bounds),
            text("h4", "Changed of the recipe") + pairs(changes) if changes else "",
            folded("Configuration", pairs(settings)),
        ]
    )


def _environments(runs: Sequence[StoredRun]) -> str:
    """What runs ran on, once for all that share it; the source hash, which each method has, left out."""
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for run in runs:
        facts = {key: value for key, value in run.record.environment.items() if key != "source"}
        groups.setdefault(json.dumps(facts, sort_keys=True), (facts, []))[1].append(run.record.run_id)
    return "".join(
        pairs(facts) + folded(f"{len(names)} runs", items(names)) for facts, names in groups.values()
    )
