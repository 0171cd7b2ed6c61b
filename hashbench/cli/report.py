"""The command `hashbench report`, which writes one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.datasets import RunDatasets, run_datasets
from hashbench.cli.options import RESULTS, AcrossBackbones, MetricName, Results, shown_runs, with_options
from hashbench.cli.output import select_runs, show
from hashbench.errors import HashbenchError

if TYPE_CHECKING:
    from hashbench.report.plots.style import Plot
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun


@with_options("datasets", run_datasets)
@with_options("wanted", shown_runs)
def report(
    wanted: RunFilter,
    datasets: RunDatasets,
    results: Results = RESULTS,
    metric: MetricName = None,
    across_backbones: AcrossBackbones = False,
    output: Annotated[Path, typer.Option(metavar="FILE.html", help="File to write.")] = Path("report.html"),
    retrieval: Annotated[
        int, typer.Option(min=0, help="Queries to show for the best run of each dataset; 0 shows none.")
    ] = 5,
) -> None:
    """Write an HTML page about runs: tables, curves, ablations, retrieved images, health, environment."""
    from hashbench.report.page.page import best_runs, html_page
    from hashbench.runtime.files import write_output

    selected = select_runs(results, wanted, metric)
    best = best_runs(selected.runs) if retrieval else []
    plots = {run.record.run_id: _retrieval_plot(run, metric, datasets, retrieval) for run in best}
    write_output(output, html_page(selected, plots, across_backbones).encode())
    show(str(output))


def _retrieval_plot(run: StoredRun, metric: str | None, datasets: RunDatasets, queries: int) -> Plot | str:
    """Return the plot of the images that a run retrieves, or the reason why there is none."""
    from hashbench.report.plots.retrieved_image_plots import retrieval_plot

    try:
        run.codes()
        return retrieval_plot(run, datasets.load(run.record), metric, queries)
    except HashbenchError as error:
        return str(error)
