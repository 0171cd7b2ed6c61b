"""The execution of a grid of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from hashbench.cli.training.fan_out import fan_out
from hashbench.cli.training.grid import Grid
from hashbench.cli.training.launch import LaunchOptions
from hashbench.cli.training.ready import ready_runs
from hashbench.cli.training.sequence import one_by_one
from hashbench.errors import HashbenchError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.config import RunConfig
    from hashbench.experiment.plan import PlannedRun
    from hashbench.experiment.run import Run
    from hashbench.training.options import RunOptions


def run_all(
    planned: Sequence[PlannedRun],
    wanted: Grid,
    options: RunOptions,
    launch: LaunchOptions,
    failed: list[str],
) -> Iterator[Run]:
    """Execute runs, one after another or by a launcher, and yield each when it has a record.

    A line is appended to `failed` for each run that fails or is impossible, and the others go on. The error
    of a single run is raised, and so is any error with --fail-fast or in one of several processes.
    """
    from hashbench import distributed
    from hashbench.experiment.resume import require_same_settings

    one_failure = wanted.execution.fail_fast or len(planned) == 1 or distributed.world_size() > 1
    impossible = [(run, run.errors[0]) for run in planned if run.errors]
    if impossible and (one_failure or len(impossible) == len(planned)):
        raise impossible[0][1]
    failed += [_failure(run, error) for run, error in impossible]
    for line in failed:
        info(f"cannot run: {line}")
    ready = ready_runs(planned, wanted.execution.force)
    if options.resume:
        require_same_settings([(run.config, run.data) for run in ready], wanted.results)
    _report_backbones([run.config for run in ready])
    if launch.launcher == "local":
        outcomes = fan_out(ready, wanted, options, launch)
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
    from hashbench.results.stored_run import describe_backbone

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
