"""The command `hashbench run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hashbench.cli.grid import Grid, grid, run_all
from hashbench.cli.options import AsJson, with_options
from hashbench.cli.output import format_timing, print_json, show
from hashbench.runtime.console import info, is_main_process

if TYPE_CHECKING:
    from hashbench.experiment.run import Run
    from hashbench.results.record import Record

_RUNS_PER_TABLE = 3  # so that a table fits a terminal of 80 columns


@with_options("wanted", grid)
def run(wanted: Grid, as_json: AsJson = False) -> None:
    """Train and evaluate methods, and write a record of each run; several values make a grid of runs."""
    device, options = wanted.init()
    planned = wanted.plan({name: [wanted.settings] for name in wanted.methods}, device)
    runs: list[Run] = []
    try:
        runs.extend(run_all(planned, wanted.results, wanted.force, options))
    finally:  # if a run fails, those before it are shown
        if not is_main_process():
            pass
        elif as_json:
            print_json([{**done.record.model_dump(mode="json"), "folder": str(done.folder)} for done in runs])
        else:
            _print_runs(runs)


def _counts_unanswerable(record: Record) -> bool:
    """Return True if the means include queries without relevant items, which score 0."""
    return record.queries_without_relevant > 0 and record.config["evaluation"]["no_relevant"] == "zero"


def _answerable(record: Record, name: str) -> str:
    """Format the mean over the queries that have relevant items."""
    if name not in record.metrics or not _counts_unanswerable(record):
        return ""
    answerable = record.split.query - record.queries_without_relevant
    return f"{record.metrics[name].expected * record.split.query / answerable:.4f}" if answerable else ""


def _epoch(record: Record) -> str:
    """Format the epoch of the evaluated model, and the metric that selected it."""
    selected = record.selected
    return f"{selected.epoch}, {selected.name}" if selected else str(record.config["training"]["epochs"])


def _print_runs(runs: list[Run]) -> None:
    from rich.table import Table

    for start in range(0, len(runs), _RUNS_PER_TABLE):
        shown = [run.record for run in runs[start : start + _RUNS_PER_TABLE]]
        table = Table("", pad_edge=False)
        for record in shown:
            table.add_column(
                f"{record.method}\n{record.dataset}@{record.protocol}\n{record.bits} bits, seed {record.seed}"
            )
        for name in dict.fromkeys(name for record in shown for name in record.metrics):
            if name.startswith("R@") or name == "P@all":
                continue
            metrics = [record.metrics.get(name) for record in shown]
            table.add_row(name, *(f"{m.expected:.4f}" if m else "" for m in metrics))
            if name.startswith("mAP"):
                table.add_row(
                    "  any tie order", *(f"{m.lowest:.4f} to {m.highest:.4f}" if m else "" for m in metrics)
                )
                if any(map(_counts_unanswerable, shown)):
                    table.add_row("  answerable only", *(_answerable(record, name) for record in shown))
        table.add_row("codes", *("COLLAPSED" if record.health.collapsed else "healthy" for record in shown))
        if any(record.selected for record in shown):
            table.add_row("epoch", *(_epoch(record) for record in shown))
        timings = [format_timing(record.timing) for record in shown]
        for name in dict.fromkeys(name for timing in timings for name in timing):
            table.add_row(name, *(timing.get(name, "") for timing in timings))
        show(table)
    for run in runs:
        for reason in run.record.health.reasons:
            info(f"{run.record.run_id} COLLAPSED: {reason}")
        show(str(run.folder))
