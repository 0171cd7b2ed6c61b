"""The possible runs of a grid, and which of them other processes carry out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.experiment.claims import holder
from hashbench.experiment.plan import PlannedRun
from hashbench.launchers.grid import Grid
from hashbench.results.record import RECORD


@dataclass(frozen=True, eq=False)
class ReadyRun:
    """A planned run that is possible.

    Attributes:
        number: Its position in the grid, from 1.
        planned: The planned run.
        config: Its configuration.
        data: Its dataset.
        folder: The folder of its record.
        version: Version of its record when the command started.
        fresh: It had no record then, or is to be repeated.
    """

    number: int
    planned: PlannedRun
    config: RunConfig
    data: Dataset
    folder: Path
    version: int | None
    fresh: bool

    @property
    def name(self) -> str:
        """Description of the run with its seed."""
        return f"{self.planned.kind}, seed {self.planned.seed}"

    def repeats(self, force: bool) -> bool:
        """Return True if --force repeats the run, which another process has not repeated meanwhile."""
        return force and _version(self.folder) == self.version


def ready_runs(planned: Sequence[PlannedRun], force: bool) -> list[ReadyRun]:
    """Return the possible runs of a grid."""
    possible = [run for run in planned if not run.errors]
    return [
        ReadyRun(
            number,
            run,
            run.config,
            run.data,
            run.folder,
            _version(run.folder),
            force or run.status == "to run",
        )
        for number, run in enumerate(possible, start=1)
        if run.config and run.data and run.folder
    ]


def owner(run: ReadyRun, wanted: Grid) -> str | None:
    """Return the process that has claimed a run; None if no process has, or its record exists."""
    if run.planned.status == "exists" and not wanted.execution.force:
        return None
    return holder(wanted.results, run.folder.name)


def _version(folder: Path) -> int | None:
    """Return a number that is different after a record has been replaced; None if there is no record."""
    with suppress(OSError):
        return (folder / RECORD).stat().st_mtime_ns
    return None
