"""The execution of runs in this process, one after another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

from hashbench import distributed
from hashbench.backbones.pixels import pixel_note
from hashbench.errors import HashbenchError
from hashbench.experiment import run as experiment
from hashbench.experiment.claims import ClaimedError
from hashbench.experiment.configure import length_note
from hashbench.experiment.identity import source_of
from hashbench.experiment.run import Run
from hashbench.launchers.grid import Grid
from hashbench.launchers.ready import ReadyRun, owner
from hashbench.results.record import describe_result
from hashbench.runtime.console import info, is_main_process
from hashbench.runtime.preemption import PreemptionError, stoppable
from hashbench.runtime.progress import progress
from hashbench.training.options import RunOptions

POLL_S = 1.0  # between two looks at runs that other processes have claimed


def one_by_one(
    ready: Sequence[ReadyRun], wanted: Grid, options: RunOptions, several: bool
) -> Generator[tuple[ReadyRun, Run | HashbenchError], None, None]:
    """Execute runs in this process; those that other processes have claimed come last.

    Args:
        ready: The runs.
        wanted: The grid that they belong to.
        options: How they are carried out.
        several: The grid has several runs, so that the progress is shown.
    """
    shown_notes, queue = set[str](), deque(ready)
    with progress("runs", sum(run.fresh for run in ready)) if several else nullcontext() as advance:
        for run in _in_turn(queue, wanted):
            _announce(run, f"[{run.number}/{len(ready)}] " if several else "", shown_notes)
            force = distributed.broadcast_object(run.repeats(wanted.execution.force))
            outcome: Run | HashbenchError
            try:
                outcome = execute(run, wanted, options, force, several)
            except PreemptionError:
                raise
            except ClaimedError:
                info("another process has just started this run; the others come first")
                queue.append(run)
                continue
            except HashbenchError as error:
                outcome = error
            yield run, outcome
            if advance and run.fresh:
                advance(1)


def _in_turn(queue: deque[ReadyRun], wanted: Grid) -> Iterator[ReadyRun]:
    """Take runs from a queue as long as it has any, and leave those that other processes have claimed.

    If all are claimed, say once by which processes, and wait until a run is done or free.
    """
    claimed: list[str] = []
    said = False
    while queue:
        run = queue.popleft()
        claimed_by = distributed.broadcast_object(owner(run, wanted) if is_main_process() else None)
        if claimed_by is None:
            claimed.clear()
            yield run
            continue
        queue.append(run)
        claimed.append(f"{run.name} by {claimed_by}")
        if len(claimed) == len(queue):
            if not said:
                info(f"waiting for what other processes carry out: {'; '.join(claimed)}")
            said = True
            claimed.clear()
            with stoppable():
                time.sleep(POLL_S)


def _announce(run: ReadyRun, number: str, shown_notes: set[str]) -> None:
    """Print which run starts, and the notes on it."""
    processes = f", {run.config.processes} processes" if run.config.processes > 1 else ""
    info(f"{number}{run.name}, {run.config.device}{processes}")
    show_note(run, shown_notes)


def show_note(run: ReadyRun, shown_notes: set[str]) -> None:
    """Print the notes on the training length and the pixels, once for all code lengths and seeds."""
    for note in (length_note(run.config, run.data), pixel_note(run.config)):
        if note and note not in shown_notes:
            info(note)
            shown_notes.add(note)


def execute(ready: ReadyRun, wanted: Grid, options: RunOptions, force: bool, several: bool) -> Run:
    """Execute a run, and print a line about its record."""
    name = ready.planned.name
    with stoppable():
        run = experiment.run(
            ready.config, ready.data, wanted.results, force=force, execution=replace(options, name=name)
        )
    if run.existed:
        threads = experiment.threads_note(run.record)
        stale = run.record.environment.get("source") != source_of(ready.config)
        kept = "a record of another version of the code" if stale else "a record"
        again = f"{f'{threads}; ' if threads else ''}--force runs it again"
        info(f"{kept} exists, nothing was trained; {again}")
        if name not in (None, run.record.name):
            info(f"it keeps its name, {run.record.name or run.record.method}; --rename shows another one")
    if several:
        info(f"{describe_result(run.record)}, {run.folder}")
    return run
