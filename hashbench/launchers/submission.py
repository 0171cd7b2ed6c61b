"""The submission of the runs of a grid to a cluster."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace

from hashbench.errors import HashbenchError
from hashbench.experiment.plan import PlannedRun
from hashbench.experiment.resume import require_same_settings
from hashbench.launchers.grid import Grid
from hashbench.launchers.ready import ReadyRun, ready_runs
from hashbench.launchers.slurm import parameters, submit
from hashbench.launchers.sweeps import UNFINISHED, Job, new_sweep, statuses, write_jobs
from hashbench.runtime.console import info
from hashbench.training.options import RunOptions


def submit_all(planned: Sequence[PlannedRun], wanted: Grid, options: RunOptions) -> Iterator[Job]:
    """Submit a job for each run that has no record and no job yet, and yield the jobs.

    Raises:
        HashbenchError: Some runs are impossible, or the jobs cannot be submitted.
    """
    ready = ready_runs(planned, wanted.execution.force)
    impossible = [(run, run.errors[0]) for run in planned if run.errors]
    if impossible and not ready:
        raise impossible[0][1]
    for run, error in impossible:
        info(f"cannot run: {run.kind}, seed {run.seed}: {error}")
    require_same_settings([(run.config, run.data) for run in ready], wanted.results)
    yield from _submit(ready, wanted, replace(options, resume=True))
    if impossible:
        raise HashbenchError(f"{len(impossible)} of {len(planned)} runs cannot run; the lines above say why")


def _submit(ready: Sequence[ReadyRun], wanted: Grid, options: RunOptions) -> list[Job]:
    sbatch, force = parameters(wanted.launch.slurm), wanted.execution.force
    known = {found.job.name for found in statuses(wanted.results) if found.state in UNFINISHED}
    # With --device auto, a job may use a GPU although this machine has none; then its record is another one.
    if wanted.execution.device != "auto" or ready[0].config.device == "cuda":
        known |= {run.folder.name for run in ready if not run.fresh}
    left = {run.folder.name: run for run in ready if run.folder.name not in known}
    if len(left) < len(ready):
        info(f"{len(ready) - len(left)} of {len(ready)} runs have a record or a job already")
    if not left:
        return []
    commands = {
        name: [*wanted.process_command(run.planned, options, force), "--json"] for name, run in left.items()
    }
    sweep = new_sweep(wanted.results)
    try:
        submitted = submit(commands, sweep, sbatch, wanted.launch.max_parallel)
    except HashbenchError:
        shutil.rmtree(sweep, ignore_errors=True)  # nothing was submitted
        raise
    jobs = [
        Job(name=name, run=run.name, job=job.job_id, folder=str(run.folder.absolute()), force=force)
        for (name, run), job in zip(left.items(), submitted, strict=True)
    ]
    write_jobs(sweep, jobs)
    return jobs
