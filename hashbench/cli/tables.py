"""The commands that set runs side by side: `hashbench table` and `hashbench compare`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import (
    METRIC,
    RESULTS,
    AsJson,
    MetricName,
    Results,
    RunName,
    TableFormat,
    TestName,
    run_filter,
    with_options,
)
from hashbench.cli.output import print_json, report_unfinished, show, write_ablations, write_tables
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
    metric: MetricName = METRIC,
    form: TableFormat = "markdown",
    bounds: Annotated[
        bool, typer.Option("--bounds", help="Show what the order of equal distances could do.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--published", help="Add figures that papers print, in columns of their own.")
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Show what components give, of the runs of `hashbench ablate`.")
    ] = False,
    test: TestName = "bootstrap",
) -> None:
    """Methods against datasets and code lengths: means over seeds, the best, and what is level with it."""
    from hashbench.report.tables.csv_tables import result_csv
    from hashbench.report.tables.published import read_published
    from hashbench.report.tables.result_table import result_table
    from hashbench.results.query import select

    if ablation and (bounds or published):
        raise UsageError("--ablation goes with neither --bounds nor --published")
    selected = select(results, wanted, "" if ablation else metric)
    for note in selected.notes:
        info(note)
    if ablation:
        report_unfinished(selected)
        write_ablations(selected.runs, metric, form, test)
        return
    figures = read_published(results, wanted) if published else []
    kinds = {(run.record.dataset, run.record.bits) for run in selected.runs}
    if published and not any((figure.dataset, figure.bits) in kinds for figure in figures):
        known = ", ".join(dict.fromkeys(figure.dataset for figure in figures)) or "other methods"
        info(f"no printed figures are of these datasets and code lengths; there are some of {known}")
    write_tables(
        form,
        lambda: [result_table(selected, metric, bounds=bounds, published=figures, test=test)],
        lambda: result_csv(selected, metric, figures, test),
    )


def compare(
    first: RunName,
    second: RunName,
    results: Results = RESULTS,
    metric: MetricName = METRIC,
    queries: Annotated[int, typer.Option(min=0, help="Queries to list, those that changed most.")] = 10,
    test: TestName = "bootstrap",
    as_json: AsJson = False,
) -> None:
    """Two runs on the same queries: difference, interval, p-value, changed queries, other settings."""
    from hashbench.report import compare as comparing
    from hashbench.results.query import find_run

    one, other = find_run(results, first), find_run(results, second)
    comparison = comparing.compare(one, other, metric, test)
    if as_json:
        ids = {"first": one.record.run_id, "second": other.record.run_id}
        print_json(
            {**ids, **asdict(comparison), "queries": [asdict(q) for q in comparison.queries[:queries]]}
        )
    else:
        _show_comparison(one, other, comparison, queries)


def _show_comparison(one: StoredRun, other: StoredRun, comparison: Comparison, queries: int) -> None:
    from rich.table import Column, Table

    difference = comparison.difference
    for which, run in (("first: ", one), ("second:", other)):
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
        show(f"Not tested: {difference.untested}; whether it is chance is not known.")
    elif not difference.distinguishable:
        found = "The interval holds 0" if difference.test == "bootstrap" else "p is not below 0.05"
        show(f"{found}: on other queries of this kind either could be ahead.")
