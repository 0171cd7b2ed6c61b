"""Progress of long work: a bar with the time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

EVERY_S = 15.0  # between the lines, where there is no terminal


class Advance(Protocol):
    """Reports steps of a task."""

    def __call__(self, steps: int, note: str = "") -> None:
        """Report `steps` more as done; `note` says how it stands."""


@contextmanager
def progress(task: str, total: int) -> Iterator[Advance]:
    """Show a task of `total` steps on standard error while the block runs.

    Yields:
        The function that reports steps.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(task, total).advance
        return
    columns = (
        TextColumn(f"{task:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        identifier = bar.add_task("", total=total)
        yield lambda steps, note="": bar.update(identifier, advance=steps, description=note)


class _Lines:
    def __init__(self, task: str, total: int) -> None:
        self.task, self.total, self.done = task, total, 0
        self.start = self.last = time.monotonic()

    def advance(self, steps: int, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now < self.last + EVERY_S and self.done < self.total:
            return
        self.last = now
        elapsed = now - self.start
        left = elapsed * (self.total - self.done) / self.done
        line = f"{self.task}: {self.done}/{self.total}, {elapsed:.0f} s, {left:.0f} s left"
        sys.stderr.write(f"{line}, {note}\n" if note else f"{line}\n")
        sys.stderr.flush()
