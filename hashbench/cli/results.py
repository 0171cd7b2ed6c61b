"""The commands `hashbench results …`: which runs there are, whether they are sound, taking them elsewhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hashbench.cli.options import (
    METRIC,
    RESULTS,
    AsJson,
    Results,
    RunName,
    names,
    run_filter,
    with_options,
)
from hashbench.cli.output import format_timing, print_json, show
from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime.console import info, warn

if TYPE_CHECKING:
    from hashbench.results.archive import Transferred
    from hashbench.results.query import RunFilter
    from hashbench.results.record import Record
    from hashbench.results.stored_run import StoredRun, Unfinished
    from hashbench.results.verify import Checked

SHOWN = 5  # of what is said about a run; --json has all


class _ListByDefault(TyperGroup):
    """Takes options without a command for those of `list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="Runs that have a record: list them (as without a command), look at them, check them, share them.",
)


@app.command("list")
@with_options("wanted", run_filter)
def list_runs(
    wanted: RunFilter,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """List all runs, older ones of the same settings, too."""
    runs, unfinished, notes = _find(results, wanted)
    for note in notes:
        warn(f"{note}")
    if as_json:
        print_json(
            {
                "runs": [{**_json(run.record), "folder": str(run.folder)} for run in runs],
                "unfinished": [str(run.folder) for run in unfinished],
            }
        )
        return
    if runs:
        _show_list(runs)
    for run in unfinished:
        show(f"unfinished: {run.folder}")
    if not runs and not unfinished:
        show(f"{results} has no such run")


@app.command("show")
def show_run(
    run: RunName,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Show all that the record of a run says."""
    from hashbench.results.query import find_run

    found = find_run(results, run)
    if as_json:
        print_json(_json(found.record))
    else:
        _show_run(found)


@app.command()
@with_options("wanted", run_filter)
def verify(
    wanted: RunFilter,
    run: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Run ids, their beginnings or hashes, or folders; else all."),
    ] = None,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Check record, place and files of runs, and compute again what can be; exit code 1 if one fails.

    A run is not verified, though nothing is wrong, where figures or the record cannot be checked: without
    codes, by an older evaluator, and in records of older versions.
    """
    from hashbench.experiment.verify import verify_all
    from hashbench.results.query import RunFilter, find_run
    from hashbench.runtime.progress import progress

    unreadable: list[str] = []
    if not run:
        runs, unreadable = _some(results, wanted)
    elif wanted == RunFilter():
        runs = [find_run(results, name) for name in run]
    else:
        raise UsageError("name runs, or choose them by options, not both")
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
    without: Annotated[
        str | None, typer.Option(help="Leave out parts: codes, log, weights, with commas between.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Copy runs to another folder, or pack them into an archive; what is there is never replaced."""
    from hashbench.results.archive import export_runs

    runs, unreadable = _some(results, wanted)
    if unreadable:
        raise HashbenchError(f"nothing is exported: {unreadable[0]}")
    done = export_runs(runs, destination, names("--without", without) if without is not None else ())
    _show_transferred(done, destination)


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A folder of runs, or an archive of `results export`.")
    ],
    results: Results = RESULTS,
) -> None:
    """Take in runs of someone else, all or none; what is there is never replaced."""
    from hashbench.experiment.verify import verify_all
    from hashbench.results.archive import import_runs

    done = import_runs(source, results, verify_all)
    _show_transferred(done, results)
    if done.unverified:
        info(f"{done.unverified:,} of them are not verified; `hashbench results verify` says why")


def _find(results: Path, wanted: RunFilter) -> tuple[list[StoredRun], list[Unfinished], list[str]]:
    """The runs that are asked for, by name; those without a record; notes on records that cannot be read."""
    from hashbench.results.query import find, matching

    found, unfinished, notes = find(results, wanted)
    return sorted(matching(found, wanted), key=_order), unfinished, notes


def _some(results: Path, wanted: RunFilter) -> tuple[list[StoredRun], list[str]]:
    """The runs that are asked for, and notes on records that cannot be read; refuses if there is neither."""
    runs, _, notes = _find(results, wanted)
    if not runs and not notes:
        raise UsageError(f"{results} has no such run; `hashbench results --results {results}` lists all")
    return runs, notes


def _order(run: StoredRun) -> tuple[Any, ...]:
    record = run.record
    kind = record.dataset, record.protocol, record.method, bool(record.changes), run.label
    return (*kind, record.bits, record.seed, record.created)


def _json(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json")


def _show_list(runs: list[StoredRun]) -> None:
    from rich.table import Column, Table

    table = Table(
        Column("method", overflow="fold"),
        Column("dataset", no_wrap=True),
        *("bits", "seed", METRIC),
        Column("created", no_wrap=True),
        Column("run", no_wrap=True),
        box=None,
        padding=(0, 1, 0, 0),
    )
    for run in runs:
        record = run.record
        table.add_row(
            run.label,
            f"{record.dataset}@{record.protocol}",
            str(record.bits),
            str(record.seed),
            f"{_figure(record)} COLLAPSED" if record.health.collapsed else _figure(record),
            f"{record.created:%Y-%m-%d}",
            record.run_id.rpartition("-")[2],
        )
    show(table)


def _figure(record: Record) -> str:
    """The usual metric; of a run without it the first mAP, by its name."""
    if METRIC in record.metrics:
        return f"{record.metrics[METRIC].expected:.4f}"
    name = next((name for name in record.metrics if name.startswith("mAP")), None)
    return f"{record.metrics[name].expected:.4f} ({name})" if name else ""


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
            "dataset": f"{record.dataset}@{record.protocol}",
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
            "query": f"{split.query:,} ({record.queries_without_relevant:,} with nothing relevant)",
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
        _show_pairs(record.selected.model_dump(), "epoch that was taken")
    _show_pairs(record.environment, "environment")
    _show_pairs(record.changes or {}, "changed of the recipe")
    _show_pairs(record.components, "components, and what takes each away")
    recorded = record.files or {}
    there = {name: "" if (run.folder / name).is_file() else ", not there" for name in recorded}
    files = {name: f"{sha256}{there[name]}" for name, sha256 in recorded.items()}
    _show_pairs(files or {"SHA-256": "not recorded"}, "files")
    _show_pairs(flatten(record.config), "config")


def _show_pairs(pairs: dict[str, Any], title: str = "") -> None:
    """A line for each pair, below a title; nothing if there is none."""
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
    nothing = {"run_id": None, "folder": None, "status": "failed", "passed": False}
    return [*rows, *({**nothing, "problems": [note], "notes": []} for note in unreadable)]


def _show_verified(checked: list[Checked], unreadable: list[str]) -> None:
    from rich.table import Column, Table

    rows = _verified(checked, unreadable)
    table = Table(Column("run", no_wrap=True, overflow="fold"), "result", "why")
    for row in rows:
        said = [*row["problems"], *row["notes"]]
        more = [f"and {len(said) - SHOWN} more; --json has all"] if len(said) > SHOWN else []
        result = row["status"].replace("failed", "FAILED")
        table.add_row(row["run_id"], result, "\n".join([*said[:SHOWN], *more]))
    show(table)
    counts = Counter(row["status"] for row in rows)
    unverified = f"{counts['not verified']:,} not verified, " if counts["not verified"] else ""
    show(f"{counts['passed']:,} passed, {unverified}{counts['failed']:,} failed")


def _show_transferred(done: Transferred, place: Path) -> None:
    show(f"{place}: {len(done.new):,} new, {done.there:,} there before")
