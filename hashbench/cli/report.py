"""The command `hashbench report`: one HTML page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import (
    METRIC,
    RESULTS,
    DataRoot,
    Lists,
    MetricName,
    PluginFiles,
    Results,
    add_plugins,
    run_filter,
    with_options,
)
from hashbench.cli.output import show
from hashbench.errors import HashbenchError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.report.plots.style import Plot
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun


@with_options("wanted", run_filter)
def report(
    wanted: RunFilter,
    results: Results = RESULTS,
    metric: MetricName = METRIC,
    output: Annotated[Path, typer.Option(metavar="FILE.html", help="Where to write the page.")] = Path(
        "report.html"
    ),
    retrieval: Annotated[
        int, typer.Option(min=0, help="Queries to show for the best run of each dataset; 0: none.")
    ] = 5,
    data_root: DataRoot = None,
    lists: Lists = None,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Write one HTML page about runs: tables, curves, ablations, retrieved images, health, environment."""
    add_plugins(plugin)
    from hashbench.report.page.page import best_runs, html_page
    from hashbench.results.query import select
    from hashbench.runtime.files import write_whole

    selected = select(results, wanted, metric)
    best = best_runs(selected.runs, metric) if retrieval else []
    grids = {run.record.run_id: _retrieved(run, metric, data_root, lists, retrieval) for run in best}
    write_whole(output, html_page(selected, metric, grids).encode())
    for note in selected.notes:
        info(note)
    show(str(output))


def _retrieved(
    run: StoredRun, metric: str, data_root: Path | None, lists: Path | None, queries: int
) -> Plot | str:
    """What a run retrieves, or why that cannot be shown."""
    from hashbench.report.plots.retrieval import dataset_of, retrieval_plot

    try:
        run.codes()
        return retrieval_plot(run, dataset_of(run.record, data_root, lists), metric, queries)
    except HashbenchError as error:
        return str(error)
