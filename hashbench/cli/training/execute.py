"""The execution of a grid of runs, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
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


def run_all(
    planned: Sequence[PlannedRun], wanted: Grid, options: RunOptions, failed: list[str]
) -> Iterator[Run]:
    """Execute runs one after another, and yield each when it is done or has a record already.

    A line is appended to `failed` for each run that fails or is impossible, and the others go on. The error
    of a single run is raised, and so is any error with --fail-fast or in one of several processes.
    """
    from hashbench import distributed
    from hashbench.experiment.resume import require_same_settings
    from hashbench.runtime.preemption import PreemptionError
    from hashbench.runtime.progress import progress

    one_failure = wanted.execution.fail_fast or len(planned) == 1 or distributed.world_size() > 1
    impossible = [(run, run.errors[0]) for run in planned if run.errors]
    if impossible and (one_failure or len(impossible) == len(planned)):
        raise impossible[0][1]
    failed += [_failure(run, error) for run, error in impossible]
    for line in failed:
        info(f"cannot run: {line}")
    ready = [(run, run.config, run.data) for run in planned if run.config and run.data and not run.errors]
    if options.resume:
        require_same_settings([(config, data) for _, config, data in ready], wanted.results)
    _report_backbones([config for _, config, _ in ready])
    left = sum(wanted.execution.force or run.status != "exists" for run, *_ in ready)
    done, shown_notes = 0, set[str]()
    with progress("runs", left) if len(planned) > 1 else nullcontext(lambda _: None) as advance:
        for number, (run, config, data) in enumerate(ready, start=1):
            fresh = wanted.execution.force or run.status == "to run"
            _announce(run, config, data, f"[{number}/{len(ready)}] " if len(planned) > 1 else "", shown_notes)
            try:
                yield _execute(config, data, wanted, replace(options, name=run.name), len(planned) > 1)
                done += 1
            except KeyboardInterrupt:
                info(
                    f"stopped; {done} of {len(planned)} runs are done; repeat the command to start with the "
                    "next one, or add --resume to continue within the interrupted run"
                )
                raise
            except HashbenchError as error:
                if one_failure or isinstance(error, PreemptionError):
                    raise
                failed.append(_failure(run, error))
                info(f"failed: {failed[-1]}")
            if fresh:
                advance(1)


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


def _announce(run: PlannedRun, config: RunConfig, data: Dataset, number: str, shown_notes: set[str]) -> None:
    """Print which run starts, and its note on the training length, once for all code lengths and seeds."""
    from hashbench.experiment.configure import length_note

    processes = f", {config.processes} processes" if config.processes > 1 else ""
    info(f"{number}{run.kind}, seed {run.seed}, {config.device}{processes}")
    note = length_note(config, data)
    if note and note not in shown_notes:
        info(note)
        shown_notes.add(note)


def _execute(config: RunConfig, data: Dataset, wanted: Grid, options: RunOptions, several: bool) -> Run:
    """Execute a run, and print a line about its record."""
    from hashbench.experiment import run as experiment
    from hashbench.experiment.identity import source_of
    from hashbench.runtime.preemption import stoppable

    with stoppable():
        run = experiment.run(config, data, wanted.results, force=wanted.execution.force, execution=options)
    if run.existed:
        threads = experiment.threads_note(run.record)
        stale = run.record.environment.get("source") != source_of(config)
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
