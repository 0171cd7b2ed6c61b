"""The commands that compare runs: `hashbench table` and `hashbench compare`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import (
    RESULTS,
    AcrossBackbones,
    AsJson,
    MetricName,
    Results,
    RunName,
    TableFormat,
    TestName,
    run_filter,
    with_options,
)
from hashbench.cli.output import print_json, report_unfinished, show, write_ablations, write_results
from hashbench.errors import UsageError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.report.compare import Comparison
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun


@with_options("wanted", run_filter)
def table(
    wanted: RunFilter,
    results: Results = RESULTS,
    metric: MetricName = None,
    form: TableFormat = "markdown",
    bounds: Annotated[
        bool, typer.Option("--bounds", help="Show the bounds over all orders of equal distances.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Add figures that papers print, in separate columns.")
    ] = False,
    ablation: Annotated[
        bool,
        typer.Option("--ablation", help="Show the gains of components, from runs of `hashbench ablate`."),
    ] = False,
    test: TestName = "bootstrap",
    across_backbones: AcrossBackbones = False,
) -> None:
    """Tabulate methods by dataset and code length: means over seeds, the best, and those level with it."""
    from hashbench.report.tables.published import read_published
    from hashbench.results.selection import select

    if ablation and (bounds or published):
        raise UsageError("--ablation cannot be combined with --bounds or --published; leave those out")
    selected = select(results, wanted, metric)
    for note in selected.notes:
        info(note)
    if ablation:
        report_unfinished(selected)
        write_ablations(selected.runs, form, test)
        return
    figures = read_published(results, wanted) if published else []
    kinds = {(run.record.dataset, run.record.bits) for run in selected.runs}
    if published and not any((figure.dataset, figure.bits) in kinds for figure in figures):
        known = ", ".join(dict.fromkeys(figure.dataset for figure in figures)) or "other methods"
        info(f"there are no printed figures for these datasets and code lengths, only for {known}")
    write_results(selected, form, figures, test, bounds, across_backbones)


def compare(
    first: RunName,
    second: RunName,
    results: Results = RESULTS,
    metric: MetricName = None,
    queries: Annotated[int, typer.Option(min=0, help="Number of most changed queries to list.")] = 10,
    test: TestName = "bootstrap",
    as_json: AsJson = False,
) -> None:
    """Compare two runs on the same queries: difference, interval, p-value, changed queries, settings."""
    from hashbench.report.compare import compare as compare_runs
    from hashbench.results.query import find_run

    runs = find_run(results, first), find_run(results, second)
    comparison = compare_runs(*runs, metric, test)
    if as_json:
        ids = {"first": runs[0].record.run_id, "second": runs[1].record.run_id}
        print_json(
            {**ids, **asdict(comparison), "queries": [asdict(q) for q in comparison.queries[:queries]]}
        )
    else:
        _show_comparison(runs, comparison, queries)


def _show_comparison(runs: tuple[StoredRun, StoredRun], comparison: Comparison, queries: int) -> None:
    from rich.table import Column, Table

    difference = comparison.difference
    for which, run in zip(("first: ", "second:"), runs, strict=True):
        collapsed = (
            f" COLLAPSED: {'; '.join(run.record.health.reasons)}" if run.record.health.collapsed else ""
        )
        show(f"{which} {run.record.run_id}{collapsed}")
    table = Table("", "first", "second", "first − second")
    table.add_row(comparison.metric, *(f"{mean:.4f}" for mean in comparison.means), f"{difference.mean:+.4f}")
    interval, p = "–", "–"
    if not difference.untested:
        interval = f"{difference.lowest:+.4f} to {difference.highest:+.4f}"
        p = f"{difference.p:.4f}"
    table.add_row("95 % interval (bootstrap)", "", "", interval)
    table.add_row(f"p ({difference.test})", "", "", p)
    show(table)
    if comparison.settings:
        settings = Table(*(Column(name, overflow="fold") for name in ("what differs", "first", "second")))
        for path, values in comparison.settings.items():
            settings.add_row(path.removeprefix("config."), *("–" if v is None else str(v) for v in values))
        show(settings)
    changed = Table("query", "AP, first", "AP, second", "first − second")
    for query in comparison.queries[:queries]:
        change = query.first - query.second
        changed.add_row(query.query, f"{query.first:.4f}", f"{query.second:.4f}", f"{change:+.4f}")
    if queries:
        show(changed)
    if difference.untested:
        show(f"Not tested: {difference.untested}; the difference may be due to chance.")
    elif not difference.distinguishable:
        result = "The interval contains 0" if difference.test == "bootstrap" else "p is not below 0.05"
        show(f"{result}: on other queries of this kind, either run could be ahead.")
