"""Grids of runs: an experiment, and how its runs are carried out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from hashbench import distributed
from hashbench.config import Section
from hashbench.errors import UsageError
from hashbench.experiment.definition import Experiment
from hashbench.experiment.plan import PlannedRun, plan
from hashbench.launchers.local import slots
from hashbench.launchers.slurm import parameters
from hashbench.runtime.device import resolve_device, resolve_workers
from hashbench.runtime.yaml_values import as_set
from hashbench.training.options import RunOptions
from hashbench.training.tracking import check_trackers


class Execution(Section):
    """How runs are carried out; nothing of it changes a result."""

    device: str = "auto"
    """cpu, cuda, cuda:N for GPU number N, or auto, which uses a GPU if there is one."""
    workers: int | None = Field(default=None, ge=0)
    """Number of processes that load images; None: up to 8 with a GPU, else 0."""
    force: bool = False
    """Repeat runs that have a record."""
    resume: bool = False
    """Continue runs that were stopped from their last checkpoint."""
    save_every: float = Field(default=300.0, ge=0)
    """Seconds between checkpoints."""
    profile: int = Field(default=0, ge=0)
    """Number of steps to trace."""
    fail_fast: bool = False
    """Stop at the first run that fails or cannot run."""
    accept_stale: bool = False
    """Keep records that another version of the code made with the same settings."""
    track: tuple[str, ...] = ()
    """Names of experiment trackers."""

    def init(self) -> tuple[str, RunOptions]:
        """Join the other processes of a distributed run, if any, and return the device and run options.

        Raises:
            UsageError: A tracker or the device does not exist.
        """
        check_trackers(self.track)
        device = resolve_device(self.device)
        distributed.init_process_group(device)
        workers = resolve_workers(self.workers, device)
        options = RunOptions(
            workers, self.resume, self.save_every, self.profile, self.accept_stale, track=self.track
        )
        return device, options


@dataclass(frozen=True)
class Launch:
    """Where the runs of a grid are carried out.

    Attributes:
        launcher: local: several at once, in a process each; slurm: as jobs of a cluster; None: in this
            process, one after another.
        jobs: For local, the number of runs at once; None: one per GPU, or one on a CPU.
        gpus: For local, the numbers of the GPUs to use; None: all.
        slurm: For slurm, options of sbatch as texts `KEY=VALUE`.
        max_parallel: For slurm, the number of jobs that run at once; None: no limit.
    """

    launcher: Literal["local", "slurm"] | None = None
    jobs: int | None = None
    gpus: Sequence[int] | None = None
    slurm: Sequence[str] = ()
    max_parallel: int | None = None

    def check(self, device: str) -> None:
        """Check that the launcher fits how this process was started.

        Raises:
            UsageError: The process was started by torchrun, its device is a single GPU, or an option of
                sbatch is not valid.
        """
        if self.launcher and distributed.started() > 1:
            raise UsageError(
                "--launcher starts the runs itself; leave it out, or start the command without torchrun"
            )
        if self.launcher and device.startswith("cuda:"):
            raise UsageError(f"--launcher chooses the GPU of each run; use --device cuda instead of {device}")
        parameters(self.slurm)


def _as_option(value: object) -> str:
    """Return a value as YAML for `--data`; a text keeps its spaces, and one of digits remains a text."""
    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, str | Path) else as_set(value)


@dataclass(frozen=True)
class Grid:
    """A grid of runs: an experiment, and how the command line carries it out."""

    experiment: Experiment
    results: Path
    execution: Execution
    launch: Launch = Launch()

    def plan(self, device: str) -> list[PlannedRun]:
        """Plan all runs; `device` is "cpu" or "cuda"."""
        if self.launch.launcher == "local":
            slots(self.launch.jobs, self.launch.gpus, device)  # rejects GPUs that are not here
        return plan(self.experiment, device, self.results)

    def command(self, run: PlannedRun) -> list[str]:
        """Return the words of the command that executes one run of the grid, for a scheduler."""
        chosen = run.chosen
        single: dict[str, object] = {
            "--method": run.method, "--dataset": chosen.name, "--bits": run.bits, "--seed": run.seed,
            "--protocol": chosen.protocol, "--data-root": chosen.root, "--limit": chosen.limit,
            "--results": self.results, "--device": self.execution.device, "--name": run.name,
        }  # fmt: skip
        data = {key: _as_option(value) for key, value in chosen.options.items()}
        several = [
            *(("--data", f"{key}={value}") for key, value in data.items()),
            *(("--set", setting) for setting in run.settings),
            *(("--plugin", str(file)) for file in self.experiment.plugins),
            *(("--track", name) for name in self.execution.track),
        ]
        options = [(name, str(value)) for name, value in single.items() if value is not None]
        words = [word for option in [*options, *several] for word in option]
        return ["hashbench", "run", *words, *(["--allow-overlap"] if self.experiment.allow_overlap else [])]

    def process_command(self, run: PlannedRun, options: RunOptions, force: bool) -> list[str]:
        """Return the words of the command that carries out one run of the grid in a process of its own."""
        flags = {"--resume": options.resume, "--accept-stale": options.accept_stale, "--force": force}
        values = {
            "--workers": options.workers, "--save-every": options.save_every, "--profile": options.profile
        }  # fmt: skip
        return [
            *(sys.executable, "-m", *self.command(run)),
            *(flag for flag, given in flags.items() if given),
            *(word for option, value in values.items() for word in (option, str(value))),
        ]
