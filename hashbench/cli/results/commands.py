"""The commands `hashbench results …`, which list, show, verify, export and import runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hashbench.cli.options import (
    RESULTS,
    AsJson,
    MetricName,
    Results,
    RunName,
    names,
    run_filter,
    with_options,
)
from hashbench.cli.output import format_timing, print_json, show
from hashbench.cli.results import removal
from hashbench.cli.results.selection import RunNames, find_chosen, find_sorted
from hashbench.errors import HashbenchError
from hashbench.runtime.console import info, warn

if TYPE_CHECKING:
    from hashbench.results.archive import Transferred
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun
    from hashbench.results.verify import Checked

_SHOWN = 5  # problems and notes of a run; --json has all


class _ListByDefault(TyperGroup):
    """A group whose options without a command are those of `list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="List (the default), show, verify, export, import and remove runs that have a record.",
)


@app.command("list")
@with_options("wanted", run_filter)
def list_runs(
    wanted: RunFilter, results: Results = RESULTS, metric: MetricName = None, as_json: AsJson = False
) -> None:
    """List all runs, including older runs of the same settings."""
    from hashbench.results.row_names import with_row_names

    runs, unfinished, notes = find_sorted(results, wanted)
    for note in notes:
        warn(note)
    if as_json:
        print_json(
            {
                "runs": [{**run.record.model_dump(mode="json"), "folder": str(run.folder)} for run in runs],
                "unfinished": [str(run.folder) for run in unfinished],
            }
        )
        return
    if runs:
        named, _ = with_row_names(runs)
        _show_list(named, metric)
        for name, settings in dict.fromkeys((run.label, run.note) for run in named if run.note):
            show(f"{name} is {settings}")
    for run in unfinished:
        show(f"unfinished: {run.folder}")
    if not runs and not unfinished:
        show(f"{results} has no such run")


@app.command("show")
def show_run(run: RunName, results: Results = RESULTS, as_json: AsJson = False) -> None:
    """Show the whole record of a run."""
    from hashbench.results.query import find_run

    found = find_run(results, run)
    if as_json:
        print_json(found.record.model_dump(mode="json"))
    else:
        _show_run(found)


@app.command()
@with_options("wanted", run_filter)
def verify(
    wanted: RunFilter,
    run: RunNames = None,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Check the records, folders and files of runs, and recompute their metrics; exit code 1 if one fails.

    A run is "not verified" if nothing is wrong but its metrics or record cannot be checked: if it has no
    codes, an older evaluator measured it, or an older version wrote the record.
    """
    from hashbench.experiment.verify import verify_all
    from hashbench.runtime.progress import progress

    runs, unreadable = find_chosen(results, run, wanted)
    checked = []
    with progress("verify", len(runs)) as advance:
        for check in verify_all(runs):
            checked.append(check)
            advance(1)
    if as_json:
        print_json(_verified(checked, unreadable))
    else:
        _show_verified(checked, unreadable)
    if unreadable or any(check.status == "failed" for check in checked):
        raise typer.Exit(1)


@app.command("export")
@with_options("wanted", run_filter)
def export(
    wanted: RunFilter,
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="A folder, or a new archive NAME.tar.gz.")
    ],
    run: RunNames = None,
    without: Annotated[
        str | None, typer.Option(help="Parts to leave out, separated by commas: codes, log, weights.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Copy runs to a folder, or pack them into an archive; existing runs are never replaced."""
    from hashbench.results.archive import export_runs

    runs, unreadable = find_chosen(results, run, wanted)
    if unreadable:
        raise HashbenchError(f"nothing was exported: {unreadable[0]}")
    done = export_runs(runs, destination, names("--without", without) if without is not None else ())
    _show_transferred(done, destination)


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A folder of runs, or an archive from `results export`.")
    ],
    results: Results = RESULTS,
) -> None:
    """Import all runs of a folder or archive, or none; existing runs are never replaced."""
    from hashbench.experiment.verify import verify_all
    from hashbench.results.archive import import_runs

    done = import_runs(source, results, verify_all)
    _show_transferred(done, results)
    if done.unverified:
        info(f"{done.unverified:,} of them are not verified; `hashbench results verify` shows why")


app.command()(removal.stale)
app.command()(removal.remove)
app.command()(removal.prune)


def _show_list(runs: list[StoredRun], metric: str | None) -> None:
    from rich.table import Column, Table

    table = Table(
        Column("method", overflow="fold"),
        Column("dataset", no_wrap=True),
        *("bits", "seed", "metric", "value"),
        Column("created", no_wrap=True),
        Column("run", no_wrap=True),
        box=None,
        padding=(0, 1, 0, 0),
    )
    for run in runs:
        record, name = run.record, metric or run.record.first_metric
        value = f"{record.metrics[name].expected:.4f}" if name in record.metrics else ""
        table.add_row(
            run.label,
            record.split_name,
            str(record.bits),
            str(record.seed),
            name,
            f"{value} COLLAPSED" if record.health.collapsed else value,
            f"{record.created:%Y-%m-%d}",
            record.run_id.rpartition("-")[2],
        )
    show(table)


def _show_run(run: StoredRun) -> None:
    from rich.table import Table

    from hashbench.config import flatten

    record = run.record
    split, overlaps, health = record.split, record.split.overlaps, record.health
    show(f"{record.run_id}\n")
    table = Table("metric", "expected", "lowest", "highest")
    for name, metric in record.metrics.items():
        table.add_row(name, *(f"{value:.4f}" for value in (metric.expected, metric.lowest, metric.highest)))
    show(table)
    _show_pairs(
        {
            "method": run.label,
            "dataset": record.split_name,
            "backbone": run.backbone,
            "bits": record.bits,
            "seed": record.seed,
            "created": f"{record.created:%Y-%m-%d %H:%M:%S %Z}",
            "evaluator": record.evaluator,
            "resumed": f"{record.resumed} times",
            **({"length": record.length_note} if record.length_note else {}),
            "folder": run.folder,
            "codes": f"COLLAPSED: {'; '.join(health.reasons)}" if health.collapsed else "healthy",
        }
    )
    _show_pairs(
        {
            "query": f"{split.query:,} ({record.queries_without_relevant:,} without relevant items)",
            "train": f"{split.train:,}",
            "database": f"{split.database:,}",
            "sha256": split.sha256,
            "shared": f"{overlaps.query_database:,} query and database, {overlaps.query_train:,} query and "
            f"train, {overlaps.train_database:,} train and database",
            **{f"warning {number}": text for number, text in enumerate(split.warnings, 1)},
        },
        "split",
    )
    figures = health.model_dump(exclude={"collapsed", "reasons"})
    _show_pairs({key: f"{value:.4g}" for key, value in flatten(figures).items()}, "health")
    _show_pairs(format_timing(record.timing), "timing")
    if record.selected:
        _show_pairs(record.selected.model_dump(), "selected epoch")
    _show_pairs(record.environment, "environment")
    _show_pairs(record.changes or {}, "changes of the recipe")
    _show_pairs(record.components, "components, and the settings that remove each")
    files = {
        name: sha256 if (run.folder / name).is_file() else f"{sha256}, missing"
        for name, sha256 in (record.files or {}).items()
    }
    _show_pairs(files or {"SHA-256": "not recorded"}, "files")
    _show_pairs(flatten(record.config), "config")


def _show_pairs(pairs: dict[str, Any], title: str = "") -> None:
    """Print a line for each pair, below the title; print nothing if there are no pairs."""
    import json

    if title and pairs:
        show(f"\n{title}")
    width = max(map(len, pairs), default=0)
    for key, value in pairs.items():
        text = json.dumps(value) if isinstance(value, dict | list | bool | None) else value
        show(f"{'  ' if title else ''}{key:<{width}}  {text}")


def _verified(checked: list[Checked], unreadable: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "run_id": check.run.record.run_id,
            "folder": str(check.run.folder),
            "status": check.status,
            "passed": check.status == "passed",
            "problems": check.problems,
            "notes": check.notes,
        }
        for check in checked
    ]
    failed = {"run_id": None, "folder": None, "status": "failed", "passed": False}
    return [*rows, *({**failed, "problems": [note], "notes": []} for note in unreadable)]


def _show_verified(checked: list[Checked], unreadable: list[str]) -> None:
    from rich.table import Column, Table

    rows = _verified(checked, unreadable)
    table = Table(Column("run", no_wrap=True, overflow="fold"), "result", "why")
    for row in rows:
        reasons = [*row["problems"], *row["notes"]]
        more = [f"and {len(reasons) - _SHOWN} more; --json has all"] if len(reasons) > _SHOWN else []
        result = row["status"].replace("failed", "FAILED")
        table.add_row(row["run_id"], result, "\n".join([*reasons[:_SHOWN], *more]))
    show(table)
    counts = Counter(row["status"] for row in rows)
    unverified = f"{counts['not verified']:,} not verified, " if counts["not verified"] else ""
    show(f"{counts['passed']:,} passed, {unverified}{counts['failed']:,} failed")


def _show_transferred(done: Transferred, destination: Path) -> None:
    show(f"{destination}: {len(done.new):,} new, {done.existing:,} already there")
