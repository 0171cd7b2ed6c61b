"""The table of runs on the page, and the details of each, which the script of the page shows on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hashbench.config import flatten
from hashbench.report.tables.table import NOTHING
from hashbench.results.command import command_of
from hashbench.results.stored_run import StoredRun

FACETS = ("method", "dataset", "bits", "backbone")
"""Properties of a run by which the page filters."""

_as_json = json.JSONEncoder(ensure_ascii=False).encode


def facets_of(run: StoredRun) -> tuple[str, ...]:
    """Return the values of a run by which the page filters, in the order of `FACETS`."""
    record = run.record
    return record.method, record.split_name, f"{record.bits} bits", run.backbone


def facet_values(runs: Sequence[StoredRun]) -> dict[str, list[str]]:
    """Return the different values of each of `FACETS`, code lengths in their order."""
    columns = zip(*map(facets_of, runs), strict=True)
    values = {name: list(dict.fromkeys(column)) for name, column in zip(FACETS, columns, strict=True)}
    return values | {"bits": sorted(values["bits"], key=lambda text: int(text.split()[0]))}


def run_table(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the head and rows of a table with a row for each run."""
    metrics = list(dict.fromkeys(run.metric for run in runs))
    columns: dict[str, list[str]] = {
        "run": [run.label for run in runs],
        "dataset": [run.record.split_name for run in runs],
        "backbone": [run.backbone for run in runs],
        "bits": [str(run.record.bits) for run in runs],
        "seed": [str(run.record.seed) for run in runs],
        "metric": [run.metric for run in runs],
        metrics[0] if len(metrics) == 1 else "value": [
            f"{run.record.metrics[run.metric].expected:.4f}" for run in runs
        ],
        "codes": ["COLLAPSED" if run.record.health.collapsed else "healthy" for run in runs],
        "training, s": [f"{run.record.timing.whole_training:.1f}" for run in runs],
    }
    for name in ("backbone", "metric"):
        if len(set(columns[name])) == 1:
            del columns[name]
    return {"head": list(columns), "rows": list(zip(*columns.values(), strict=True))}


def run_details(runs: Sequence[StoredRun]) -> dict[str, Any]:
    """Return the details of all runs, as JSON for the script of the page.

    Returns:
        `facets` has the names of `FACETS`; `settings` has each setting and value once, and each of `runs` the
        indices of its own.
    """
    settings: dict[tuple[str, str], int] = {}
    details = []
    for run in runs:
        own = [
            settings.setdefault((path, _as_json(value)), len(settings))
            for path, value in flatten(run.record.config).items()
        ]
        details.append(_details(run) | {"settings": own})
    return {"facets": FACETS, "settings": list(settings), "runs": details}


def _details(run: StoredRun) -> dict[str, Any]:
    record, health = run.record, run.record.health
    return {
        "id": record.run_id,
        "facets": facets_of(run),
        "command": command_of(record),
        "collapsed": list(health.reasons) if health.collapsed else [],
        "changes": {path: _as_json(value) for path, value in (record.changes or {}).items()},
        "metrics": {
            name: f"{metric.expected:.4f} ({metric.lowest:.4f} to {metric.highest:.4f})"
            for name, metric in record.metrics.items()
        },
        "codes": _codes(run),
        "run": _facts(run),
    }


def _codes(run: StoredRun) -> dict[str, str]:
    """Describe the codes of the database, and the cost of making them."""
    record, health, timing = run.record, run.record.health, run.record.timing
    chance = health.chance_map.get(run.metric)
    return {
        f"{run.metric} of a random ranking": NOTHING if chance is None else f"{chance:.4f}",
        "distinct codes": f"{health.unique_code_ratio:.3f} of the images",
        "dead bits": str(health.dead_bits),
        "balance": f"{health.bit_balance:.3f}, mean |mean sign| of a bit",
        "correlation": f"{health.mean_bit_correlation:.3f}, mean |correlation| of two bits",
        "largest tie": f"{health.largest_tie_block_mean:.3f} of the database at one distance from a query",
        "bytes a code": f"{record.bits / 8:g}",
        "training": f"{timing.whole_training:.1f} s, with the features that it used",
        "encoding": f"{timing.whole_encoding:.1f} s, with the features that it used",
        "evaluation": f"{timing.evaluate:.1f} s",
    }


def _facts(run: StoredRun) -> Mapping[str, str]:
    record, overlaps = run.record, run.record.split.overlaps
    return {
        "created": f"{record.created:%Y-%m-%d %H:%M:%S} UTC",
        "folder": "/".join(run.folder.parts[-4:]),
        "backbone": run.backbone,
        "images": f"{record.split.query:,} queries, {record.split.train:,} to train on, "
        f"{record.split.database:,} in the database",
        "shared images": f"{overlaps.query_database:,} query and database, "
        f"{overlaps.query_train:,} query and train, {overlaps.train_database:,} train and database",
        "split": record.split.sha256,
        "source code": str(record.environment.get("source", NOTHING)),
        "evaluator": str(record.evaluator),
        "queries without relevant": str(record.queries_without_relevant),
    }
