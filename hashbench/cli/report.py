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
    from hashbench.data.dataset import Dataset
    from hashbench.results.query import RunFilter
    from hashbench.results.record import Record


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
        int, typer.Option(min=0, help="Queries to show for each dataset and method; 0 shows none.")
    ] = 5,
) -> None:
    """Write an HTML page about runs: what leads, tables, curves, retrieved images, failures, commands."""
    from hashbench.report.page.page import html_page
    from hashbench.report.page.retrieval import runs_to_show
    from hashbench.runtime.files import write_output

    selected = select_runs(results, wanted, metric)
    shown = runs_to_show(selected.runs) if retrieval else {}
    loaded = {name: _load(datasets, runs[0].record) for name, runs in shown.items()}
    write_output(output, html_page(selected, loaded, retrieval, across_backbones).encode())
    show(str(output))


def _load(datasets: RunDatasets, record: Record) -> Dataset | str:
    """Return the dataset of a run, or the reason why it cannot be loaded."""
    try:
        return datasets.load(record)
    except HashbenchError as error:
        return str(error)
