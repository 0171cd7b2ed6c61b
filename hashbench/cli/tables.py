"""The commands that compare runs: `hashbench table` and `hashbench compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import (
    RESULTS,
    AcrossBackbones,
    AsJson,
    MetricName,
    OptionalRun,
    Results,
    TableFile,
    TableFormat,
    TestName,
    shown_runs,
    with_options,
)
from hashbench.cli.output import (
    print_json,
    report_unfinished,
    select_runs,
    show,
    write_ablations,
    write_results,
)
from hashbench.errors import UsageError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.report.compare import Comparison, MethodDifference
    from hashbench.report.significance import Difference
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun


@with_options("wanted", shown_runs)
def table(
    wanted: RunFilter,
    results: Results = RESULTS,
    metric: MetricName = None,
    form: TableFormat = "markdown",
    output: TableFile = None,
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

    if wanted.expected is not None and not ablation:
        bounds, published = bounds or wanted.expected.bounds, published or wanted.expected.published
    if ablation and (bounds or published):
        raise UsageError("--ablation cannot be combined with --bounds or --published; leave those out")
    selected = select_runs(results, wanted, metric)
    if ablation:
        report_unfinished(selected)
        write_ablations(selected.runs, form, test, output)
        return
    figures = read_published(results, wanted) if published else []
    kinds = {(run.record.dataset, run.record.bits) for run in selected.runs}
    if published and not any((figure.dataset, figure.bits) in kinds for figure in figures):
        known = ", ".join(sorted({figure.dataset for figure in figures})) or "other methods"
        info(f"there are no printed figures for these datasets and code lengths, only for {known}")
    write_results(selected, form, figures, test, bounds, across_backbones, output)


@with_options("wanted", shown_runs)
def compare(
    wanted: RunFilter,
    first: OptionalRun = None,
    second: OptionalRun = None,
    results: Results = RESULTS,
    metric: MetricName = None,
    queries: Annotated[
        int, typer.Option(min=0, help="Of two runs: number of most changed queries to list.")
    ] = 10,
    test: TestName = "bootstrap",
    across_backbones: AcrossBackbones = False,
    as_json: AsJson = False,
) -> None:
    """Compare two runs query by query, or two methods, by --method A,B, over their seeds and code lengths.

    `hashbench plot difference` draws the differences of two methods.
    """
    from hashbench.report.compare import compare as compare_runs
    from hashbench.report.compare import compare_methods
    from hashbench.results.query import RunFilter, find_run

    if first is None or second is None:
        if first is not None or len(wanted.methods) not in (1, 2):
            raise UsageError("expected two runs, or two methods as --method A,B")
        selected = select_runs(results, wanted, metric)
        labels, differences = compare_methods(selected.runs, test, across_backbones)
        for name, settings in selected.settings.items():
            info(f"{name} is {settings}")
        _show_differences(labels, differences, as_json)
        return
    if wanted != RunFilter():
        raise UsageError("pass either two runs or options that choose two methods, not both")
    runs = find_run(results, first), find_run(results, second)
    comparison = compare_runs(*runs, metric, test)
    if as_json:
        ids = {"first": runs[0].record.run_id, "second": runs[1].record.run_id}
        print_json(
            {**ids, **asdict(comparison), "queries": [asdict(q) for q in comparison.queries[:queries]]}
        )
    else:
        _show_comparison(runs, comparison, queries)


def _show_differences(
    labels: tuple[str, str], differences: Sequence[MethodDifference], as_json: bool
) -> None:
    if as_json:
        first, second = labels
        print_json({"first": first, "second": second, "differences": [asdict(row) for row in differences]})
        return
    from rich.table import Table

    from hashbench.report.significance import DESCRIBED

    table = Table("split", "bits", "seeds", "metric", *labels, "first − second", "95 % interval", "p")
    for row in differences:
        table.add_row(
            row.split,
            " ".join(map(str, row.bits)),
            " ".join(map(str, row.seeds)) or "none in common",
            row.metric,
            *(f"{mean:.4f}" for mean in row.means),
            *_format_difference(row.difference),
        )
    show(table)
    test = DESCRIBED[differences[0].difference.test]
    show(f"{test}; AP is averaged over the seeds and code lengths of a row")


def _format_difference(difference: Difference) -> tuple[str, str, str]:
    """Format a difference, its interval and its p-value."""
    if difference.untested:
        return f"{difference.mean:+.4f}", "–", "–"
    interval = f"{difference.lowest:+.4f} to {difference.highest:+.4f}"
    return f"{difference.mean:+.4f}", interval, f"{difference.p:.4f}"


def _show_comparison(runs: tuple[StoredRun, StoredRun], comparison: Comparison, queries: int) -> None:
    from rich.table import Column, Table

    difference = comparison.difference
    for which, run in zip(("first: ", "second:"), runs, strict=True):
        collapsed = (
            f" COLLAPSED: {'; '.join(run.record.health.reasons)}" if run.record.health.collapsed else ""
        )
        show(f"{which} {run.record.run_id}{collapsed}")
    table = Table("", "first", "second", "first − second")
    mean, interval, p = _format_difference(difference)
    table.add_row(comparison.metric, *(f"{mean:.4f}" for mean in comparison.means), mean)
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
