"""The command `hashbench run`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import AsJson, with_options
from hashbench.cli.output import format_timing, print_json, show, write_results
from hashbench.cli.training.experiments import save_experiment, write_reports
from hashbench.cli.training.grid import grid
from hashbench.cli.training.sweep import show_submitted
from hashbench.errors import UsageError
from hashbench.runtime.console import info, is_main_process

if TYPE_CHECKING:
    from hashbench.experiment.plan import PlannedRun
    from hashbench.experiment.run import Run
    from hashbench.launchers.grid import Grid
    from hashbench.results.record import Record


@with_options("wanted", grid)
def run(
    wanted: Grid,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the runs: which have a record, would run, or cannot, and why."),
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="TEXT", help="Name of these settings of the method in reports."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate methods, and write a record of each run; several values make a grid of runs."""
    from hashbench.launchers.execute import report_failures, run_all
    from hashbench.launchers.submission import submit_all

    if name is not None:
        wanted = _named(wanted, name)
    device, options = wanted.execution.init()
    planned = wanted.plan(device)
    if dry_run:
        if is_main_process():
            _show_plan(planned, wanted, as_json)
        return
    if is_main_process():
        save_experiment(wanted)
    if wanted.launch.launcher == "slurm":
        show_submitted(submit_all(planned, wanted, options), wanted.results)
        return
    runs: list[Run] = []
    failed: list[str] = []
    try:
        runs.extend(run_all(planned, wanted, options, failed))
    finally:  # if the command is stopped, the runs before that are shown
        if is_main_process():
            _show_runs(runs, as_json)
    if runs and is_main_process():
        write_reports(wanted)
    report_failures(failed, len(planned))


def _named(wanted: Grid, name: str) -> Grid:
    """Return a grid whose settings have a name in reports."""
    from hashbench.experiment.definition import require_label

    experiment = wanted.experiment
    if len(experiment.methods) > 1 or len(experiment.backbones) > 1:
        raise UsageError("--name names the settings of one method on one backbone; choose one of each")
    try:
        method = experiment.methods[0].model_copy(update={"label": require_label(name)})
    except ValueError as error:
        raise UsageError(f"--name: {error}") from None
    return replace(wanted, experiment=experiment.change({"methods": (method,)}, {}))


def _show_plan(planned: Sequence[PlannedRun], wanted: Grid, as_json: bool) -> None:
    rows = [
        {
            "method": run.method,
            "dataset": run.chosen.name,
            "protocol": run.data.protocol if run.data else None,
            "bits": run.bits,
            "seed": run.seed,
            "settings": list(run.settings),
            "status": run.status,
            "reason": "; ".join(map(str, run.errors)) or None,
            "folder": str(run.folder) if run.folder else None,
            "command": wanted.command(run),
        }
        for run in planned
    ]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table("run", "seed", "status")
    for run in planned:
        table.add_row(run.kind, str(run.seed), run.status)
    show(table)
    counts = Counter(run.status for run in planned)
    show(", ".join(f"{count:,} {status}" for status, count in counts.items()))
    errors = Counter(str(error) for run in planned for error in run.errors)
    for number, (error, count) in enumerate(errors.items(), start=1):
        show(f"{number}. needed by {count:,} {'run' if count == 1 else 'runs'}: {error}")


def _show_runs(runs: Sequence[Run], as_json: bool) -> None:
    if as_json:
        print_json([{**done.record.model_dump(mode="json"), "folder": str(done.folder)} for done in runs])
    elif len(runs) == 1:
        _show_run(runs[0])
    elif runs:
        from hashbench.results.selection import found_runs  # here, so that a stopped command ends at once
        from hashbench.results.stored_run import StoredRun

        write_results(found_runs([StoredRun(done.record, done.folder) for done in runs]))


def _answerable(record: Record, name: str) -> str:
    """Format the mean over the queries that have relevant items, if the others count as 0."""
    answerable = record.split.query - record.queries_without_relevant
    if record.config["evaluation"]["no_relevant"] != "zero" or answerable in (0, record.split.query):
        return ""
    return f"{record.metrics[name].expected * record.split.query / answerable:.4f}"


def _show_run(run: Run) -> None:
    from rich.table import Table

    record = run.record
    table = Table("", pad_edge=False)
    table.add_column(f"{record.method}\n{record.split_name}\n{record.bits} bits, seed {record.seed}")
    for name, metric in record.metrics.items():
        if name.startswith("R@") or name == "P@all":
            continue
        table.add_row(name, f"{metric.expected:.4f}")
        if name.startswith("mAP"):
            table.add_row("  any tie order", f"{metric.lowest:.4f} to {metric.highest:.4f}")
            if answerable := _answerable(record, name):
                table.add_row("  answerable only", answerable)
    table.add_row("codes", "COLLAPSED" if record.health.collapsed else "healthy")
    if record.selected:
        table.add_row("epoch", f"{record.selected.epoch}, {record.selected.name}")
    for name, text in format_timing(record.timing).items():
        table.add_row(name, text)
    show(table)
    for reason in record.health.reasons:
        info(f"{record.run_id} COLLAPSED: {reason}")
    show(str(run.folder))
