"""The commands `hashbench plot …`: records as figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hashbench.cli.datasets import RunDatasets, run_datasets
from hashbench.cli.options import METRIC, RESULTS, MetricName, Results, RunName, run_filter, with_options
from hashbench.cli.output import report_unfinished
from hashbench.errors import UsageError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.report.plots.style import Format, Plot
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun

app = typer.Typer(help="Plots of records, in a style for print.", no_args_is_help=True)

Output = Annotated[
    Path, typer.Option("--output", metavar="FILE", help="Where to write the plot: .pdf, .svg or .png.")
]
Data = Annotated[
    Path | None, typer.Option("--data", metavar="FILE.csv", help="Write the numbers of the plot, too.")
]


@app.command()
@with_options("wanted", run_filter)
def pr(
    output: Output,
    wanted: RunFilter,
    kind: Annotated[
        Literal["rank", "radius", "topn"],
        typer.Option(
            help="rank: precision against recall over the ranked database; radius: the same by Hamming "
            "radius, mean over queries; topn: precision of the top N against N."
        ),
    ] = "rank",
    results: Results = RESULTS,
    data: Data = None,
) -> None:
    """Precision against recall or rank: mean over seeds, and from the least to the most of them."""
    form = _format(output)
    from hashbench.report.plots.curve_plots import pr_plot

    _write(pr_plot(_select(results, wanted), kind), output, form, data)


@app.command()
@with_options("wanted", run_filter)
def bits(
    output: Output,
    wanted: RunFilter,
    metric: MetricName = METRIC,
    results: Results = RESULTS,
    data: Data = None,
) -> None:
    """A metric against code length: mean and standard deviation over seeds."""
    form = _format(output)
    from hashbench.report.plots.metric_plots import bits_plot

    _write(bits_plot(_select(results, wanted, metric), metric), output, form, data)


@app.command()
@with_options("wanted", run_filter)
def speed(
    output: Output,
    wanted: RunFilter,
    metric: MetricName = METRIC,
    results: Results = RESULTS,
    data: Data = None,
) -> None:
    """A metric against its cost: seconds of training, and bytes of a code."""
    form = _format(output)
    from hashbench.report.plots.metric_plots import speed_plot

    _write(speed_plot(_select(results, wanted, metric), metric), output, form, data)


@app.command()
@with_options("wanted", run_filter)
def training(
    output: Output,
    wanted: RunFilter,
    results: Results = RESULTS,
    data: Data = None,
) -> None:
    """The loss and its parts over epochs: mean over seeds, and from the least to the most of them."""
    form = _format(output)
    from hashbench.report.plots.curve_plots import training_plot

    _write(training_plot(_select(results, wanted)), output, form, data)


@app.command()
def codes(run: RunName, output: Output, results: Results = RESULTS, data: Data = None) -> None:
    """The codes of a run: balance of bits, correlation between them, distances of pairs."""
    form = _format(output)

    from hashbench.report.plots.code_plots import codes_plot
    from hashbench.results.query import find_run

    _write(codes_plot(find_run(results, run)), output, form, data)


@app.command()
@with_options("datasets", run_datasets)
def retrieval(
    run: RunName,
    output: Output,
    datasets: RunDatasets,
    queries: Annotated[
        int, typer.Option(min=1, max=50, help="Number of queries, evenly spaced in their order by AP.")
    ] = 5,
    top: Annotated[int, typer.Option(min=1, max=20, help="Number of nearest images per query.")] = 10,
    metric: MetricName = METRIC,
    results: Results = RESULTS,
    data: Data = None,
) -> None:
    """Plot queries of a run and their nearest images, with frames that show relevance."""
    form = _format(output)

    from hashbench.report.plots.retrieval import retrieval_plot
    from hashbench.results.query import find_run

    found = find_run(results, run)
    dataset = datasets.load(found.record)
    _write(retrieval_plot(found, dataset, metric, queries, top), output, form, data)


def _format(output: Path) -> Format:
    """The format that a file name asks for, before anything is computed."""
    formats: dict[str, Format] = {".pdf": "pdf", ".svg": "svg", ".png": "png"}
    if output.suffix.lower() not in formats:
        raise UsageError(f"--output takes a name that ends in .pdf, .svg or .png, not {output}")
    return formats[output.suffix.lower()]


def _select(results: Path, wanted: RunFilter, metric: str = "") -> list[StoredRun]:
    from hashbench.results.query import select
    from hashbench.results.stored_run import common_changes, label_of

    selected = select(results, wanted, metric)
    for note in selected.notes:
        info(note)
    report_unfinished(selected)
    if common := common_changes(selected.runs):
        info(label_of("all runs", common))
    return selected.runs


def _write(plot: Plot, output: Path, form: Format, data: Path | None) -> None:
    from hashbench.report.tables.csv_tables import without_formula
    from hashbench.runtime.files import write_output

    for note in plot.notes:
        info(note)
    write_output(output, plot.render(form))
    if data is not None:
        write_output(data, plot.data.map(without_formula).to_csv(index=False).encode())
