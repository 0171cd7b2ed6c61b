"""The runs that a command is asked for, by name or by options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashbench.cli import completion
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.results.query import RunFilter
    from hashbench.results.stored_run import StoredRun, Unfinished

RunNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Ids of runs, the beginnings of ids, hashes, or folders (default: all runs).",
        autocompletion=completion.runs,
    ),
]


def find_sorted(results: Path, wanted: RunFilter) -> tuple[list[StoredRun], list[Unfinished], list[str]]:
    """Return the wanted runs in order, those without a record, and notes on unreadable records."""
    from hashbench.results.query import find, matching

    found, unfinished, notes = find(results, wanted)
    return sorted(matching(found, wanted), key=_sort_key), unfinished, notes


def find_chosen(
    results: Path, names: Sequence[str] | None, wanted: RunFilter
) -> tuple[list[StoredRun], list[str]]:
    """Return the named runs, or all that the options select, and notes on unreadable records.

    Raises:
        UsageError: There are neither, or both names and options are given.
    """
    from hashbench.results.query import RunFilter, find_run

    if names:
        if wanted != RunFilter():
            raise UsageError("pass either runs or options that select runs, not both")
        named = [find_run(results, name) for name in names]
        return list({run.folder.resolve(): run for run in named}.values()), []
    runs, _, notes = find_sorted(results, wanted)
    if not runs and not notes:
        raise UsageError(f"{results} has no such run; `hashbench results --results {results}` lists all")
    return runs, notes


def _sort_key(run: StoredRun) -> tuple[Any, ...]:
    record = run.record
    settings = record.dataset, record.protocol, record.method, bool(record.changes), run.label
    return (*settings, record.bits, record.seed, record.created)
