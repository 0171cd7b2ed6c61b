"""The commands `hashbench plot …`, which draw records as figures for papers."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hashbench.cli.datasets import RunDatasets, run_datasets
from hashbench.cli.options import (
    RESULTS,
    AcrossBackbones,
    MetricName,
    Results,
    RunName,
    TestName,
    shown_runs,
    with_options,
)
from hashbench.cli.output import report_unfinished, select_runs
from hashbench.errors import UsageError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.report.plots.style import Format, Plot
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun

app = typer.Typer(help="Plot records, in a style for print.", no_args_is_help=True)


@dataclass(frozen=True)
class PlotFile:
    """The file of a plot, and the file of its numbers, if any."""

    path: Path
    format: "Format"
    csv: Path | None

    def write(self, plot: "Plot") -> None:
        """Write a plot, and print its notes."""
        from hashbench.report.tables.csv_tables import without_formula
        from hashbench.runtime.files import write_output

        for note in plot.notes:
            info(note)
        write_output(self.path, plot.render(self.format))
        if self.csv is not None:
            write_output(self.csv, plot.data.map(without_formula).to_csv(index=False).encode())


def plot_file(
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="File to write, ending in .pdf, .svg or .png.")
    ],
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE.csv", help="Also write the numbers of the plot.")
    ] = None,
) -> PlotFile:
    """Return the file that these options describe.

    Raises:
        UsageError: The name does not end in a known format.
    """
    formats: dict[str, Format] = {".pdf": "pdf", ".svg": "svg", ".png": "png"}
    if output.suffix.lower() not in formats:
        raise UsageError(f"--output: expected a name that ends in .pdf, .svg or .png, got {output}")
    return PlotFile(output, formats[output.suffix.lower()], csv)


@app.command()
@with_options("file", plot_file)
@with_options("wanted", shown_runs)
def pr(
    file: PlotFile,
    wanted: "RunFilter",
    kind: Annotated[
        Literal["rank", "radius", "topn"],
        typer.Option(
            help="rank: precision against recall by rank over the full database; radius: the same by Hamming "
            "radius, as the mean over queries; topn: precision of the top N against N."
        ),
    ] = "rank",
    results: Results = RESULTS,
) -> None:
    """Plot precision against recall or rank: the mean over seeds, with a band from minimum to maximum."""
    from hashbench.report.plots.curve_plots import pr_plot

    file.write(pr_plot(_select(results, wanted), kind))


@app.command()
@with_options("file", plot_file)
@with_options("wanted", shown_runs)
def bits(file: PlotFile, wanted: "RunFilter", metric: MetricName = None, results: Results = RESULTS) -> None:
    """Plot a metric against code length: the mean and standard deviation over seeds."""
    from hashbench.report.plots.metric_plots import bits_plot

    file.write(bits_plot(_select(results, wanted, metric)))


@app.command()
@with_options("file", plot_file)
@with_options("wanted", shown_runs)
def speed(file: PlotFile, wanted: "RunFilter", metric: MetricName = None, results: Results = RESULTS) -> None:
    """Plot a metric against its cost: seconds of training, and bytes per code."""
    from hashbench.report.plots.metric_plots import speed_plot

    file.write(speed_plot(_select(results, wanted, metric)))


@app.command()
@with_options("file", plot_file)
@with_options("wanted", shown_runs)
def training(file: PlotFile, wanted: "RunFilter", results: Results = RESULTS) -> None:
    """Plot the loss and its parts over epochs: the mean over seeds, with a band from minimum to maximum."""
    from hashbench.report.plots.curve_plots import training_plot

    file.write(training_plot(_select(results, wanted)))


@app.command()
@with_options("file", plot_file)
@with_options("wanted", shown_runs)
def difference(
    file: PlotFile,
    wanted: "RunFilter",
    metric: MetricName = None,
    test: TestName = "bootstrap",
    across_backbones: AcrossBackbones = False,
    results: Results = RESULTS,
) -> None:
    """Plot the difference of two methods, by --method A,B, with its 95 % interval over the queries."""
    from hashbench.report.compare import compare_methods
    from hashbench.report.plots.difference_plot import difference_plot

    file.write(difference_plot(*compare_methods(_select(results, wanted, metric), test, across_backbones)))


@app.command()
@with_options("file", plot_file)
def codes(run: RunName, file: PlotFile, results: Results = RESULTS) -> None:
    """Plot the codes of a run: balance of bits, correlation between bits, distances of pairs."""
    from hashbench.report.plots.code_plots import codes_plot
    from hashbench.results.query import find_run

    file.write(codes_plot(find_run(results, run)))


@app.command()
@with_options("file", plot_file)
@with_options("datasets", run_datasets)
def retrieval(
    run: RunName,
    file: PlotFile,
    datasets: RunDatasets,
    queries: Annotated[
        int, typer.Option(min=1, max=50, help="Number of queries, evenly spaced in their order by AP.")
    ] = 5,
    top: Annotated[int, typer.Option(min=1, max=20, help="Number of nearest images per query.")] = 10,
    metric: MetricName = None,
    results: Results = RESULTS,
) -> None:
    """Plot queries of a run and their nearest images, with frames that show relevance."""
    from hashbench.report.plots.retrieved_image_plots import retrieval_plot
    from hashbench.results.query import find_run

    found = find_run(results, run)
    file.write(retrieval_plot(found, datasets.load(found.record), metric, queries, top))


def _select(results: Path, wanted: "RunFilter", metric: str | None = "") -> "list[StoredRun]":
    from hashbench.results.stored_run import common_changes, label_of

    selected = select_runs(results, wanted, metric)
    report_unfinished(selected)
    if common := common_changes(selected.runs):
        info(label_of("all runs", common))
    return selected.runs
