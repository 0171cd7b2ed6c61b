"""The output of commands: JSON, tables and messages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hashbench.errors import UsageError
from hashbench.runtime.console import info, printable_lines, warn

if TYPE_CHECKING:
    from pathlib import Path

    from hashbench.data.dataset import Dataset
    from hashbench.evaluation import Evaluation
    from hashbench.report.significance import PairedTest
    from hashbench.report.tables.published import Published
    from hashbench.report.tables.table import Table
    from hashbench.results.query import RunFilter
    from hashbench.results.record import Timing
    from hashbench.results.selection import FoundRuns
    from hashbench.results.stored_run import StoredRun


def warn_about(dataset: Dataset) -> None:
    """Print the warnings of a dataset."""
    for warning in dataset.warnings:
        warn(f"{dataset.name}@{dataset.protocol}: {warning}")


def select_runs(results: Path, wanted: RunFilter, metric: str | None = "") -> FoundRuns:
    """Select runs as `hashbench.results.selection.select` does, and print what the reader should know."""
    from hashbench.results.selection import select

    selected = select(results, wanted, metric)
    for note in selected.notes:
        info(note)
    return selected


def report_unfinished(selected: FoundRuns) -> None:
    """Print which runs a plot or table leaves out since they have not finished."""
    for run in selected.unfinished:
        info(f"{run.run_id} has not finished and is left out")


def print_json(value: Any) -> None:
    """Print JSON to standard output."""
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()  # so that a full disk is reported here, not when Python exits


def write_tables(
    form: str, tables: Callable[[], Sequence[Table]], csv: Callable[[], str], output: Path | None = None
) -> None:
    """Write tables to a file, or to standard output."""
    from hashbench.report.tables.latex import latex
    from hashbench.report.tables.table import markdown
    from hashbench.runtime.files import write_output

    formats = {
        "markdown": lambda: "\n".join(map(markdown, tables())),
        "latex": lambda: latex(tables()),
        "csv": csv,
    }
    text = printable_lines(formats[form]())
    if output is not None:
        write_output(output, text.encode())
        return
    sys.stdout.write(text)
    sys.stdout.flush()


def write_results(
    selected: FoundRuns,
    form: str = "markdown",
    published: Sequence[Published] = (),
    test: PairedTest = "bootstrap",
    bounds: bool = False,
    across: bool = False,
    output: Path | None = None,
) -> None:
    """Write the table of results to a file, or to standard output."""
    from hashbench.report.tables.csv_tables import result_csv
    from hashbench.report.tables.result_table import result_table

    write_tables(
        form,
        lambda: [
            result_table(selected, bounds=bounds, published=published, test=test, across_backbones=across)
        ],
        lambda: result_csv(selected, published, test, across),
        output,
    )


def write_ablations(
    runs: Sequence[StoredRun], form: str, test: PairedTest = "bootstrap", output: Path | None = None
) -> None:
    """Write the ablation tables of runs to a file, or to standard output.

    Raises:
        UsageError: The runs contain no ablation.
    """
    from hashbench.report.tables.ablation_table import ablation_table, ablations
    from hashbench.report.tables.csv_tables import ablation_csv

    found = ablations(runs, test)
    if not found:
        raise UsageError("these runs contain no ablation; run one by `hashbench ablate`")
    write_tables(form, lambda: [ablation_table(one) for one in found], lambda: ablation_csv(found), output)


def format_timing(timing: Timing) -> dict[str, str]:
    """Format the durations, speed and peak memory of a run, as far as they are known."""
    texts = {step: f"{getattr(timing, step):.2f} s" for step in ("train", "encode", "evaluate")}
    if timing.features is not None:
        texts["train"] += f" and {timing.features:.2f} s for features"
    if timing.encode_features is not None:
        texts["encode"] += f" and {timing.encode_features:.2f} s for features"
    if timing.images_per_second is not None:
        texts["speed"] = f"{timing.images_per_second:.0f} images/s"
    if timing.waiting is not None:
        texts["waiting for data"] = f"{timing.waiting:.0%}"
    if timing.peak_memory:
        texts["peak memory"] = f"{timing.peak_memory / 1e9:.1f} GB"
    return texts


def show(what: Any) -> None:
    """Write text or a table to standard output, with control characters escaped."""
    from rich.console import Console
    from rich.text import Text

    class EscapingConsole(Console):
        """A console that escapes texts and cells before it measures their width."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable_lines(text), **options)

    # Names and paths may contain brackets, which rich would take for markup.
    console = EscapingConsole(soft_wrap=isinstance(what, str), highlight=False, markup=False, emoji=False)
    console.print(what)


def show_evaluation(evaluation: Evaluation, no_relevant: str) -> None:
    """Show the metrics of codes, with their bounds."""
    from rich.table import Table

    table = Table("metric", "expected", "lowest", "highest")
    for name, metric in evaluation.to_dict()["metrics"].items():
        table.add_row(name, *(f"{metric[part]:.4f}" for part in ("expected", "lowest", "highest")))
    show(table)
    if count := evaluation.queries_without_relevant:
        scored = "are left out" if no_relevant == "skip" else "score 0; --no-relevant skip leaves them out"
        show(f"{count:,} queries without relevant items in the database {scored}")


def show_evaluations(done: Sequence[tuple[Path | None, Evaluation]]) -> None:
    """Show a row for each file, with the sizes that make values comparable."""
    from tabulate import tabulate

    rows = []
    for path, evaluation in done:
        shown = evaluation.to_dict()
        sizes = ("bits", "queries", "queries_without_relevant", "database")
        rows.append(
            {"file": str(path)}
            | {name.replace("_", " "): shown["settings"][name] for name in sizes}
            | {name: f"{metric['expected']:.4f}" for name, metric in shown["metrics"].items()}
        )
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[row.get(column, "") for column in columns] for row in rows]
    align = ("left", *("right" for _ in columns[1:]))
    show(tabulate(cells, columns, disable_numparse=True, colalign=align))
    show("expectations over all orders of equal distances; --json adds the lowest and highest values")


def show_per_class(path: Path | None, evaluation: Evaluation) -> None:
    """Show the mAP of each class at the first cutoff."""
    from rich.table import Table

    k = evaluation.k[0]
    table = Table("class", "queries", f"mAP@{k}", "lowest", "highest", title=str(path or ""))
    for row in evaluation.per_class(k).itertuples():
        table.add_row(str(row[0]), str(row[1]), *(f"{value:.4f}" for value in row[2:]))
    show(table)
