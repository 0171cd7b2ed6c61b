"""The execution of a grid of runs, one after another."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hashbench.cli.output import format_result
from hashbench.cli.training.grid import Grid
from hashbench.errors import HashbenchError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.config import RunConfig
    from hashbench.data.dataset import Dataset
    from hashbench.experiment.plan import PlannedRun
    from hashbench.experiment.run import Run
    from hashbench.training.options import RunOptions

POLL_S = 1.0  # between two looks at runs that other processes have claimed


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


def run_all(
    planned: Sequence[PlannedRun], wanted: Grid, options: RunOptions, failed: list[str]
) -> Iterator[Run]:
    """Execute runs one after another, and yield each when it is done or has a record already.

    A line is appended to `failed` for each run that fails or is impossible, and the others go on. The error
    of a single run is raised, and so is any error with --fail-fast or in one of several processes.
    """
    from hashbench import distributed
    from hashbench.experiment.resume import require_same_settings
    from hashbench.runtime.progress import progress

    one_failure = wanted.execution.fail_fast or len(planned) == 1 or distributed.world_size() > 1
    impossible = [(run, run.errors[0]) for run in planned if run.errors]
    if impossible and (one_failure or len(impossible) == len(planned)):
        raise impossible[0][1]
    failed += [_failure(run, error) for run, error in impossible]
    for line in failed:
        info(f"cannot run: {line}")
    ready = _ready(planned, wanted.execution.force)
    if options.resume:
        require_same_settings([(run.config, run.data) for run in ready], wanted.results)
    _report_backbones([run.config for run in ready])
    done, several = 0, len(planned) > 1
    try:
        with progress("runs", sum(run.fresh for run in ready)) if several else nullcontext() as advance:
            for run, outcome in _one_by_one(ready, wanted, options, several):
                if not isinstance(outcome, HashbenchError):
                    done += 1
                    yield outcome
                elif one_failure:
                    raise outcome
                else:
                    failed.append(_failure(run.planned, outcome))
                    info(f"failed: {failed[-1]}")
                if advance and run.fresh:
                    advance(1)
    except KeyboardInterrupt:
        info(
            f"stopped; {done} of {len(planned)} runs are done; repeat the command to start with the "
            "next one, or add --resume to continue within the interrupted run"
        )
        raise


def _ready(planned: Sequence[PlannedRun], force: bool) -> list[ReadyRun]:
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


def _version(folder: Path) -> int | None:
    """Return a number that is different after a record has been replaced; None if there is no record."""
    from hashbench.results.record import RECORD

    with suppress(OSError):
        return (folder / RECORD).stat().st_mtime_ns
    return None


def _one_by_one(
    ready: Sequence[ReadyRun], wanted: Grid, options: RunOptions, several: bool
) -> Iterator[tuple[ReadyRun, Run | HashbenchError]]:
    """Execute runs in this process, those that other processes have claimed at the end."""
    from hashbench import distributed
    from hashbench.experiment.claims import ClaimedError
    from hashbench.runtime.preemption import PreemptionError

    shown_notes, queue = set[str](), deque(ready)
    for run in in_turn(queue, wanted):
        _announce(run, f"[{run.number}/{len(ready)}] " if several else "", shown_notes)
        # With --force, a run is not repeated if another process has repeated it meanwhile.
        unchanged = distributed.broadcast_object(_version(run.folder) == run.version)
        try:
            yield run, _execute(run, wanted, options, wanted.execution.force and unchanged, several)
        except PreemptionError:
            raise
        except ClaimedError:
            info("another process has just started this run; the others come first")
            queue.append(run)
        except HashbenchError as error:
            yield run, error


def in_turn(queue: deque[ReadyRun], wanted: Grid) -> Iterator[ReadyRun]:
    """Take runs from a queue as long as it has any, and leave those that other processes have claimed.

    If all are claimed, say once by which processes, and wait until a run is done or free.
    """
    from hashbench import distributed
    from hashbench.experiment.claims import holder
    from hashbench.runtime.preemption import stoppable

    claimed: list[str] = []
    said = False
    while queue:
        run = queue.popleft()
        exists = run.planned.status == "exists" and not wanted.execution.force
        owner = distributed.broadcast_object(None if exists else holder(wanted.results, run.folder.name))
        if owner is None:
            claimed.clear()
            yield run
            continue
        queue.append(run)
        claimed.append(f"{run.planned.kind}, seed {run.planned.seed} by {owner}")
        if len(claimed) == len(queue):
            if not said:
                info(f"waiting for what other processes carry out: {'; '.join(claimed)}")
            said = True
            claimed.clear()
            with stoppable():
                time.sleep(POLL_S)


def _report_backbones(configs: Sequence[RunConfig]) -> None:
    """Print a line for each dataset on which the runs differ in their backbone or image size."""
    from hashbench.results.stored_run import describe_backbone

    used: dict[str, dict[str, dict[str, None]]] = {}
    for config in configs:
        backbones = used.setdefault(f"{config.dataset}@{config.protocol}", {})
        backbones.setdefault(describe_backbone(config.model_dump()), {})[config.method] = None
    for name, backbones in used.items():
        if len(backbones) > 1:
            listed = "; ".join(f"{', '.join(methods)}: {text}" for text, methods in backbones.items())
            info(f"{name}: the backbones differ ({listed}); --backbone NAME uses one for all")


def _announce(run: ReadyRun, number: str, shown_notes: set[str]) -> None:
    """Print which run starts, and its note on the training length, once for all code lengths and seeds."""
    from hashbench.experiment.configure import length_note

    processes = f", {run.config.processes} processes" if run.config.processes > 1 else ""
    info(f"{number}{run.planned.kind}, seed {run.planned.seed}, {run.config.device}{processes}")
    note = length_note(run.config, run.data)
    if note and note not in shown_notes:
        info(note)
        shown_notes.add(note)


def _execute(ready: ReadyRun, wanted: Grid, options: RunOptions, force: bool, several: bool) -> Run:
    """Execute a run, and print a line about its record."""
    from hashbench.experiment import run as experiment
    from hashbench.experiment.identity import source_of
    from hashbench.runtime.preemption import stoppable

    with stoppable():
        run = experiment.run(ready.config, ready.data, wanted.results, force=force, execution=options)
    if run.existed:
        threads = experiment.threads_note(run.record)
        stale = run.record.environment.get("source") != source_of(ready.config)
        kept = "a record of another version of the code" if stale else "a record"
        again = f"{f'{threads}; ' if threads else ''}--force runs it again"
        info(f"{kept} exists, nothing was trained; {again}")
        if options.name not in (None, run.record.name):
            info(f"it keeps its name, {run.record.name or run.record.method}; --rename shows another one")
    if several:
        info(f"{format_result(run.record)}, {run.folder}")
    return run


def _failure(run: PlannedRun, error: HashbenchError) -> str:
    """Describe a run that has no record in one line."""
    return f"{run.kind}, seed {run.seed}: {str(error).splitlines()[0]}"


def report_failures(failed: Sequence[str], runs: int) -> None:
    """Print a line for each run that failed or was impossible.

    Raises:
        HashbenchError: There are any.
    """
    for line in failed:
        info(f"no record: {line}")
    if failed:
        raise HashbenchError(f"{len(failed)} of {runs} runs have no record; the lines above say why")
