"""The execution of a grid of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing

from hashbench import distributed
from hashbench.config import RunConfig
from hashbench.errors import HashbenchError
from hashbench.experiment.plan import PlannedRun
from hashbench.experiment.resume import require_same_settings
from hashbench.experiment.run import Run
from hashbench.launchers import LAUNCHED
from hashbench.launchers.fan_out import fan_out
from hashbench.launchers.grid import Grid
from hashbench.launchers.ready import ready_runs
from hashbench.launchers.sequence import one_by_one
from hashbench.results.stored_run import describe_backbone
from hashbench.runtime.console import info
from hashbench.training.options import RunOptions


def run_all(
    planned: Sequence[PlannedRun], wanted: Grid, options: RunOptions, failed: list[str]
) -> Iterator[Run]:
    """Execute runs, one after another or by a launcher, and yield each when it has a record.

    A line is appended to `failed` for each run that fails or is impossible, and the others go on. The error
    of a single run is raised, and so is any error with --fail-fast or in one of several processes.
    """
    one_failure = wanted.execution.fail_fast or len(planned) == 1 or distributed.world_size() > 1
    impossible = [(run, run.errors[0]) for run in planned if run.errors]
    if impossible and (one_failure or len(impossible) == len(planned)):
        raise impossible[0][1]
    failed += [_failure(run, error) for run, error in impossible]
    for line in failed:
        info(f"cannot run: {line}")
    ready = ready_runs(planned, wanted.execution.force)
    if options.resume and LAUNCHED not in os.environ:
        require_same_settings([(run.config, run.data) for run in ready], wanted.results)
    _report_backbones([run.config for run in ready])
    if wanted.launch.launcher == "local":
        outcomes = fan_out(ready, wanted, options)
    else:
        outcomes = one_by_one(ready, wanted, options, several=len(planned) > 1)
    done = 0
    try:
        with closing(outcomes):
            for run, outcome in outcomes:
                if not isinstance(outcome, HashbenchError):
                    done += 1
                    yield outcome
                elif one_failure:
                    raise outcome
                else:
                    failed.append(_failure(run.planned, outcome))
                    info(f"failed: {failed[-1]}")
    except KeyboardInterrupt:
        info(
            f"stopped; {done} of {len(planned)} runs are done; repeat the command to start with the "
            "next one, or add --resume to continue within the interrupted run"
        )
        raise


def _report_backbones(configs: Sequence[RunConfig]) -> None:
    """Print a line for each dataset on which the runs differ in their backbone or image size."""
    used: dict[str, dict[str, dict[str, None]]] = {}
    for config in configs:
        backbones = used.setdefault(f"{config.dataset}@{config.protocol}", {})
        backbones.setdefault(describe_backbone(config.model_dump()), {})[config.method] = None
    for name, backbones in used.items():
        if len(backbones) > 1:
            listed = "; ".join(f"{', '.join(methods)}: {text}" for text, methods in backbones.items())
            info(f"{name}: the backbones differ ({listed}); --backbone NAME uses one for all")


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
