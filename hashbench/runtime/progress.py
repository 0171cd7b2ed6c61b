"""Progress of long tasks: a bar on a terminal or in a notebook, else a plain line now and then."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hashbench.config import RunConfig
from hashbench.runtime.console import info, is_main_process, write_line

EVERY_S = 15.0  # between lines, if there is no terminal
CHUNK = 256  # results of threads that are held in memory
FORECAST_AFTER_S = 10.0  # of steps, without the first one, which is slower
WORTH_SAYING_S = 300.0

Item = TypeVar("Item")
Result = TypeVar("Result")


class Advance(Protocol):
    """Function that reports steps of a task."""

    def __call__(self, steps: int, note: str = "") -> None:
        """Report `steps` more steps as done, with a `note` to show beside the progress."""


@contextmanager
def progress(task: str, total: int, unit: Literal["", "MB"] = "", done: int = 0) -> Iterator[Advance]:
    """Show the progress of a task on standard error while the block runs.

    Args:
        task: Name of the task, one word.
        total: Number of steps; 0 if it is unknown.
        unit: "MB" if a step is a byte, which is shown in megabytes.
        done: Number of steps that were done earlier.

    Yields:
        A function that reports steps.
    """
    if not is_main_process():
        yield lambda steps, note="": None
        return
    console = Console(stderr=True)
    # In a notebook, rich draws the bar with ipywidgets.
    if not (console.is_terminal or (console.is_jupyter and find_spec("ipywidgets"))):
        yield _Lines(task, total, unit, done).advance
        return
    columns = (
        TextColumn(f"{task:<9}"),
        BarColumn(),
        DownloadColumn() if unit else MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as bar:
        identifier = bar.add_task("", total=total or None, completed=done)
        yield lambda steps, note="": bar.update(identifier, advance=steps, description=note)


def in_threads(task: str, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to many items in a thread pool, and show the progress.

    Args:
        task: Name of the task.
        function: Function of one item; it should release the GIL most of the time.
        items: The items.

    Yields:
        The results, in the order of the items.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(task, len(items)) as advance:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(function, items[start : start + CHUNK]):
                yield result
                advance(1)


class _Lines:
    def __init__(self, task: str, total: int, unit: str, done: int) -> None:
        self.task, self.total, self.unit, self.before, self.done = task, total, unit, done, done
        self.start = self.last = time.monotonic()

    def advance(self, steps: int, note: str = "") -> None:
        self.done += steps
        now = time.monotonic()
        if now < self.last + EVERY_S and (self.done < self.total or not self.total):
            return
        self.last = now
        elapsed = now - self.start
        done, total = (f"{n / 1e6:.0f} MB" if self.unit else str(n) for n in (self.done, self.total))
        line = f"{self.task}: {done}, {elapsed:.0f} s"
        if self.total:
            left = elapsed * (self.total - self.done) / max(self.done - self.before, 1)
            line = f"{self.task}: {done}/{total}, {elapsed:.0f} s, {left:.0f} s left"
        write_line(f"{line}, {note}" if note else line)


@dataclass
class _Forecast:
    """Reports the steps of a task, and says once how long it takes, unless that is short.

    Attributes:
        advance: The function that reports the steps.
        total: Number of steps that are left.
        task: Description of the task.
    """

    advance: Advance
    total: int
    task: str
    start: float | None = None
    done: int = 0

    def __call__(self, steps: int, note: str = "") -> None:
        """Report `steps` more steps as done; see `hashbench.runtime.progress`."""
        self.advance(steps, note)
        now = time.monotonic()
        if self.start is None:
            self.start = now
            return
        self.done += steps
        if self.total and now - self.start >= FORECAST_AFTER_S:
            seconds = (now - self.start) / self.done * self.total
            if seconds >= WORTH_SAYING_S:
                info(
                    f"{self.task} with the recipe of the paper takes about {_rounded(seconds)} on this CPU; "
                    "--recipe laptop takes minutes"
                )
            self.total = 0  # say it once


def with_forecast(advance: Advance, total: int, task: str, config: RunConfig) -> Advance:
    """Return a function that also says how long a task takes, if it is that of a paper's recipe on a CPU."""
    unsuitable = config.recipe == "paper" and config.device == "cpu"
    return _Forecast(advance, total, task) if unsuitable else advance


def _rounded(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:,.0f} hours" if minutes < 48 * 60 else f"{minutes / 60 / 24:,.0f} days"
