"""The commands `hashbench results …` that find runs of older code and remove runs and leftovers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashbench.cli import completion
from hashbench.cli.options import (
    RESULTS,
    AsJson,
    PluginFiles,
    Results,
    add_plugins,
    run_filter,
    with_options,
)
from hashbench.cli.output import print_json, show
from hashbench.cli.results.selection import find_sorted
from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime.console import info, warn

if TYPE_CHECKING:
    from hashbench.results.query import RunFilter
    from hashbench.results.record import Record

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def remove(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Ids of runs, the beginnings of ids, hashes, or folders.",
            autocompletion=completion.runs,
        ),
    ],
    yes: Yes = False,
    results: Results = RESULTS,
) -> None:
    """Remove runs with all their files, after a question; a run that is in use stays."""
    from hashbench.results.folders import remove_run
    from hashbench.results.query import find_folder

    chosen = list(dict.fromkeys(find_folder(results, name).resolve() for name in run))
    total = _show_sizes(chosen)
    _confirm(total, yes)
    for folder in chosen:
        remove_run(folder)
    show(f"removed {total}")


def prune(
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    results: Results = RESULTS,
) -> None:
    """Remove what unfinished runs left behind and no process uses, after a question.

    `hashbench run --resume` could continue a run that has a checkpoint.
    """
    from hashbench.results.folders import leftovers, remove_leftover

    if not results.is_dir():
        raise UsageError(f"{results} is not a folder; choose --results DIR")
    found = leftovers(results)
    total = _show_sizes(found)
    if dry_run or not found:
        show(f"{total} can be removed")
        return
    _confirm(total, yes)
    kept = [folder for folder in found if not remove_leftover(folder)]
    if kept:
        raise HashbenchError(f"{kept[0]} is in use, or cannot be removed")
    show(f"removed {total}")


@with_options("wanted", run_filter)
def stale(
    wanted: RunFilter,
    plugin: PluginFiles = [],  # noqa: B006
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """List runs that other source code made than the installed one, which `hashbench run` would repeat."""
    add_plugins(plugin)
    runs, _, notes = find_sorted(results, wanted)
    for note in notes:
        warn(note)
    rows: list[dict[str, Any]] = [
        {
            "run_id": run.record.run_id,
            "folder": str(run.folder),
            "recorded": run.record.environment.get("source"),
            "installed": installed,
        }
        for run in runs
        if not run.record.foreign
        and (installed := _installed_source(run.record)) != run.record.environment.get("source")
    ]
    if as_json:
        print_json(rows)
        return
    if rows:
        from rich.table import Column, Table

        table = Table(Column("run", no_wrap=True, overflow="fold"), "recorded", "installed")
        for row in rows:
            table.add_row(row["run_id"], row["recorded"] or "–", row["installed"] or "not installed")
        show(table)
    show(f"{len(rows):,} of {len(runs):,} runs are of another version of the source code")
    if rows:
        info("`hashbench run --accept-stale` keeps them; without it, `hashbench run` makes new runs")


def _installed_source(record: Record) -> str | None:
    """Return the hash of the source code that would repeat a run; None if it is not installed."""
    from hashbench.experiment.identity import source_of

    try:
        return source_of(record)
    except UsageError:
        return None


def _show_sizes(folders: list[Path]) -> str:
    """Print the size of each folder, and return their number and total size."""
    from hashbench.results.folders import has_checkpoint

    sizes = [sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) for folder in folders]
    for folder, size in zip(folders, sizes, strict=True):
        show(f"{folder}: {size / 1e6:,.1f} MB{', has a checkpoint' if has_checkpoint(folder) else ''}")
    return f"{len(folders):,} folders of runs, {sum(sizes) / 1e6:,.1f} MB"


def _confirm(what: str, yes: bool) -> None:
    """Ask whether to remove something, on standard error.

    Raises:
        HashbenchError: The answer is no, or there is none.
    """
    try:
        agreed = yes or typer.confirm(f"remove {what}?", err=True)
    except typer.Abort:  # the end of the input
        agreed = False
    if not agreed:
        raise HashbenchError("nothing was removed; answer y, or add --yes")
