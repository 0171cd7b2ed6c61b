"""How commands print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hashbench.errors import UsageError
from hashbench.runtime.console import info, printable_lines, warn

if TYPE_CHECKING:
    from hashbench.data.dataset import Dataset
    from hashbench.report.significance import PairedTest
    from hashbench.report.tables.table import Table
    from hashbench.results.query import FoundRuns
    from hashbench.results.record import Timing
    from hashbench.results.stored_run import StoredRun


def say_warnings(dataset: Dataset) -> None:
    """What a reader of results on a dataset should know."""
    for warning in dataset.warnings:
        warn(f"{dataset.name}@{dataset.protocol}: {warning}")


def say_unfinished(selected: FoundRuns) -> None:
    """Runs that a plot or table cannot show, since they have not ended."""
    for run in selected.unfinished:
        info(f"{run.run_id} has not ended, and is left out")


def print_json(value: Any) -> None:
    """JSON on standard output."""
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()  # a full disk is said here, and not when Python ends


def write_tables(form: str, grids: Callable[[], Sequence[Table]], csv: Callable[[], str]) -> None:
    """Tables on standard output in the format that was asked for.

    Args:
        form: Of `TableFormat`.
        grids: Makes the tables.
        csv: Makes them as CSV.
    """
    from hashbench.report.tables.table import latex, markdown

    formats = {
        "markdown": lambda: "\n".join(map(markdown, grids())),
        "latex": lambda: latex(grids()),
        "csv": csv,
    }
    sys.stdout.write(printable_lines(formats[form]()))
    sys.stdout.flush()


def write_ablations(
    runs: Sequence[StoredRun], metric: str, form: str, test: PairedTest = "bootstrap"
) -> None:
    """The ablation tables among runs, on standard output.

    Raises:
        UsageError: There is none.
    """
    from hashbench.report.tables.ablation_table import ablation_table, ablations
    from hashbench.report.tables.csv_tables import ablation_csv

    found = ablations(runs, metric, test)
    if not found:
        raise UsageError("there is no ablation among these runs; `hashbench ablate` makes one")
    write_tables(form, lambda: [ablation_table(one) for one in found], lambda: ablation_csv(found))


def timing_in_words(timing: Timing) -> dict[str, str]:
    """How long a run took, how fast it was and what it held, as far as that is known."""
    words = {step: f"{getattr(timing, step):.2f} s" for step in ("train", "encode", "evaluate")}
    if timing.images_per_second is not None:
        words["speed"] = f"{timing.images_per_second:.0f} images/s"
    if timing.waiting is not None:
        words["waiting for data"] = f"{timing.waiting:.0%}"
    if timing.peak_memory:
        words["peak memory"] = f"{timing.peak_memory / 1e9:.1f} GB"
    return words


def show(what: Any) -> None:
    """Write text or a table to standard output; control characters in names are escaped."""
    from rich.console import Console
    from rich.text import Text

    class EscapingConsole(Console):
        """Escapes texts and cells, before their width is measured."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable_lines(text), **options)

    # Names and paths may have brackets, which rich would take for markup.
    console = EscapingConsole(soft_wrap=isinstance(what, str), highlight=False, markup=False, emoji=False)
    console.print(what)
