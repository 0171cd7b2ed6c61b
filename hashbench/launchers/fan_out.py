"""The execution of runs in several processes at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from hashbench.errors import HashbenchError
from hashbench.experiment.claims import holder, process_name
from hashbench.experiment.identity import identity_of, source_of
from hashbench.experiment.run import Run, existing
from hashbench.launchers.grid import Grid
from hashbench.launchers.local import Child, Row, board, slots, stop
from hashbench.launchers.ready import ReadyRun, owner
from hashbench.launchers.sequence import POLL_S, execute, show_note
from hashbench.launchers.sweeps import new_sweep
from hashbench.results.record import describe_result, read_record
from hashbench.runtime.console import info
from hashbench.runtime.preemption import stoppable
from hashbench.training.options import RunOptions

Outcome: TypeAlias = tuple[ReadyRun, Run | HashbenchError]

_TICK_S = 0.2  # between two looks at the processes


def fan_out(ready: Sequence[ReadyRun], wanted: Grid, options: RunOptions) -> Generator[Outcome, None, None]:
    """Execute runs in processes of their own, several at once, and yield each when it has ended.

    When the generator is closed or this process is stopped, all processes are stopped and save their states.
    """
    places = slots(wanted.launch.jobs, wanted.launch.gpus, ready[0].config.device)
    shown_notes: set[str] = set()
    for run in ready:
        show_note(run, shown_notes)
    jobs = _Jobs(ready, wanted, options, places, new_sweep(wanted.results))
    with board(list(jobs.rows.values())), stoppable():
        try:
            while jobs.queue or jobs.running:
                yield from jobs.start()
                time.sleep(_TICK_S)
                yield from jobs.ended()
        finally:
            stop([*jobs.running.values()])
            with suppress(OSError):  # not empty, since a run has failed
                jobs.folder.rmdir()
                jobs.folder.parent.rmdir()


class _Jobs:
    """The processes of a fan-out, and the runs that wait for one.

    Attributes:
        queue: The runs that wait.
        running: The process of each run that has one.
        rows: The row of each run in the table.
        folder: The folder of the output.
    """

    def __init__(
        self,
        ready: Sequence[ReadyRun],
        wanted: Grid,
        options: RunOptions,
        places: list[dict[str, str]],
        folder: Path,
    ) -> None:

        self.queue, self.running = deque(ready), dict[ReadyRun, Child]()
        self.rows = {run: Row(run.name) for run in ready}
        self.folder = folder
        self._wanted, self._options, self._places = wanted, options, places
        self._told, self._next_look = False, 0.0

    def start(self) -> Iterator[Outcome]:
        """Start runs as long as there are places; yield those that have a record."""
        while self._places and (run := self._next()):
            force = run.repeats(self._wanted.execution.force)
            log = self.folder / f"{run.folder.name}.log"
            if not force and self._record(run):
                info(f"[{run.number}/{len(self.rows)}] {run.name}")
                log.unlink(missing_ok=True)  # of a process that gave way
                yield self._done(run, execute(run, self._wanted, self._options, False, True))
                continue
            command = self._wanted.process_command(run.planned, self._options, force)
            self.running[run] = self.rows[run].child = Child(command, log, self._places.pop(0))
            self.rows[run].state = "running"

    def ended(self) -> Iterator[Outcome]:
        """Yield the runs whose processes have ended; stop those that wait for another process."""
        if look := time.monotonic() > self._next_look:
            self._next_look = time.monotonic() + POLL_S
        for run, child in [*self.running.items()]:
            code = child.process.poll()
            if code is None:
                if look and self._is_elsewhere(run, child):
                    child.gave_way = True
                    child.process.terminate()
                continue
            del self.running[run]
            self.rows[run].child = None
            self._places.append(child.variables)
            if child.gave_way:
                self.queue.append(run)
            elif code == 0 and (found := self._record(run)):
                child.log.unlink(missing_ok=True)
                done = Run(read_record(found), found, existed=False)
                info(f"[{run.number}/{len(self.rows)}] {run.name}: {describe_result(done.record)}, {found}")
                yield self._done(run, done)
            else:
                yield self._done(run, child.error())

    def _next(self) -> ReadyRun | None:
        """Take the first run that no other process has claimed; say once if there are only others."""
        claimed = []
        for _ in range(len(self.queue)):
            run = self.queue.popleft()
            claimed_by = owner(run, self._wanted)
            if claimed_by is None:
                return run
            self.queue.append(run)
            claimed.append(f"{run.name} by {claimed_by}")
            self.rows[run].state, self.rows[run].note = "claimed", claimed_by
        if claimed and not self.running and not self._told:
            info(f"waiting for what other processes carry out: {'; '.join(claimed)}")
            self._told = True
        return None

    def _is_elsewhere(self, run: ReadyRun, child: Child) -> bool:
        """Return True if another process than its own has claimed a run."""
        claimed_by = holder(self._wanted.results, run.folder.name) or ""
        return claimed_by.startswith("process ") and not claimed_by.startswith(
            process_name(child.process.pid)
        )

    def _record(self, run: ReadyRun) -> Path | None:
        """Return the folder of a run's record, if there is one."""
        return existing(run.folder, identity_of(run.config, run.data, source_of(run.config)), self._options)

    def _done(self, run: ReadyRun, outcome: Run | HashbenchError) -> Outcome:
        row, failed = self.rows[run], isinstance(outcome, HashbenchError)
        row.state = "failed" if failed else "done"
        row.note = str(outcome) if isinstance(outcome, HashbenchError) else describe_result(outcome.record)
        return run, outcome
