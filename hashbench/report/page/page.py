"""One HTML page about runs, to explore: a headline, tables, charts, retrieved images and details of each run.

`page.html` is the template of the page, with the macros of `elements.html`; `page.js` filters, sorts and
shows details, and `charts.js` draws. This module collects the values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError
from hashbench.evaluation import VERSION
from hashbench.report.aggregate import Column, by_split, cells
from hashbench.report.line_styles import COLOURS
from hashbench.report.page.charts import Chart, Columns, bits_chart, pr_chart, speed_chart, training_charts
from hashbench.report.page.headline import headlines, how_tested
from hashbench.report.page.retrieval import Thumbnails, runs_to_show, split_retrieval
from hashbench.report.page.runs import facet_values, run_details, run_table
from hashbench.report.tables.ablation_table import Ablation, ablation_table, ablations
from hashbench.report.tables.ranking import Ranked, rank_cells
from hashbench.report.tables.result_table import result_table
from hashbench.report.tables.table import Table
from hashbench.results.selection import FoundRuns
from hashbench.results.stored_run import StoredRun

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}


@dataclass(frozen=True)
class ShownTable:
    """A table of the page, and the runs in each cell, by which it is filtered.

    Attributes:
        table: The table.
        runs: For each row and column, the indices of the runs in the cell, separated by blanks.
    """

    table: Table
    runs: list[list[str]]


def html_page(
    selected: FoundRuns,
    datasets: Mapping[str, Dataset | str],
    queries: int,
    across_backbones: bool = False,
) -> str:
    """Return a page that needs no other file and no network.

    Args:
        selected: The runs, from `select` with a metric.
        datasets: For each split of `runs_to_show`, the dataset or the reason why it cannot be loaded.
        queries: Number of queries to show for each split.
        across_backbones: Rank and test methods together even if their backbones or image sizes differ.

    Raises:
        UsageError: Runs of one protocol cannot be compared.
    """
    runs = selected.runs
    index = {run.record.run_id: at for at, run in enumerate(runs)}
    found = ablations(runs)
    variants = {run.record.run_id for one in found for v in one.variants[1:] for run in v.cell.runs}
    whole = [run for run in runs if run.record.run_id not in variants]
    columns = cells(whole)
    ranking = rank_cells(columns, across_backbones=across_backbones)
    thumbnails = Thumbnails()
    retrieval = [
        split_retrieval(group, datasets[name], queries, index, thumbnails)
        for name, group in runs_to_show(runs).items()
        if name in datasets
    ]
    charts, training, failed = _charts(columns, index)
    return TEMPLATES.get_template("page.html").render(
        heading=_heading(runs),
        made=f"hashbench {version('hashbench')}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        headlines=headlines(whole, columns, ranking, across_backbones),
        tested=how_tested(ranking),
        variants=len(variants),
        collapsed=[
            (index[run.record.run_id], run.record.run_id, "; ".join(run.record.health.reasons))
            for run in runs
            if run.record.health.collapsed
        ],
        warnings=_warnings(selected),
        facets=facet_values(runs),
        count=len(runs),
        results=_results(selected, whole, across_backbones, ranking, index),
        charts=charts,
        training=training,
        failed_charts=failed,
        ablations=[(_indices(_runs_of(one), index), ablation_table(one)) for one in found],
        retrieval=retrieval,
        thumbnails=thumbnails.sources,
        overview=run_table(runs),
        environments=_environments(runs),
        data=run_details(runs) | {"charts": [*charts.values(), *training.values()]},
        colours=COLOURS,
    )


def _heading(runs: Sequence[StoredRun]) -> str:
    splits: dict[str, list[str]] = {}  # by metric
    for name, group in by_split(runs).items():
        splits.setdefault(group[0].metric, []).append(name)
    return "; ".join(f"{metric} on {', '.join(names)}" for metric, names in splits.items())


def _warnings(selected: FoundRuns) -> list[str]:
    found = [
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


def _results(
    selected: FoundRuns,
    whole: Sequence[StoredRun],
    across_backbones: bool,
    ranking: Mapping[Column, Mapping[str, Ranked]],
    index: Mapping[str, int],
) -> dict[str, ShownTable]:
    tables = {}
    for name, runs in by_split(whole).items():
        labels = {run.label for run in runs}
        unfinished = [run for run in selected.unfinished if f"{run.dataset}@{run.protocol_name}" == name]
        part = FoundRuns(runs, [label for label in selected.labels if label in labels], unfinished, [])
        table = result_table(part, bounds=True, across_backbones=across_backbones, ranking=ranking)
        by_cell: dict[tuple[str, str], list[StoredRun]] = {}
        for run in runs:
            by_cell.setdefault((run.label, f"{run.record.bits} bits"), []).append(run)
        shown = [
            [_indices(by_cell.get((label, head.name), []), index) for head in table.heads]
            for label, _ in table.rows
        ]
        tables[name] = ShownTable(table, shown)
    return tables


def _indices(runs: Sequence[StoredRun], index: Mapping[str, int]) -> str:
    return " ".join(str(index[run.record.run_id]) for run in runs)


def _runs_of(ablation: Ablation) -> list[StoredRun]:
    return [run for variant in ablation.variants for run in variant.cell.runs]


def _charts(
    columns: Columns, index: Mapping[str, int]
) -> tuple[dict[str, Chart], dict[str, Chart], list[str]]:
    """Return the charts and those of training by title, and the reasons why some cannot be drawn."""
    charts: dict[str, Chart] = {}
    training: dict[str, Chart] = {}
    failed = []
    metric = " and ".join(dict.fromkeys(cell.metric for row in columns.values() for cell in row.values()))
    try:
        charts["Precision against recall, by rank over the full database"] = pr_chart(columns, index)
    except HashbenchError as error:
        failed.append(str(error))
    charts[f"{metric} against code length"] = bits_chart(columns, index)
    charts[f"{metric} against the time of training"] = speed_chart(columns, index)
    try:
        training = training_charts(columns, index)
    except HashbenchError as error:
        failed.append(str(error))
    return charts, training, failed


def _environments(runs: Sequence[StoredRun]) -> list[tuple[dict[str, Any], list[str]]]:
    """Return each environment and the ids of its runs; the source hash differs by method and is omitted."""
    groups: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for run in runs:
        facts = {key: value for key, value in run.record.environment.items() if key != "source"}
        groups.setdefault(json.dumps(facts, sort_keys=True), (facts, []))[1].append(run.record.run_id)
    return list(groups.values())
