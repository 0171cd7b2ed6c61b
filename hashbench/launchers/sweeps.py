"""Folders of sweeps: the output of runs that launchers have started, and the jobs of a cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, TypeAdapter

from hashbench.errors import HashbenchError, UsageError, quoted
from hashbench.launchers.local import last_line
from hashbench.runtime.files import atomic_write
from hashbench.runtime.json_files import read_json

SWEEPS, _JOBS = ".sweeps", "jobs.json"
UNFINISHED = ("pending", "running")
_RUNNING = ("RUNNING", "COMPLETING", "STOPPED", "SUSPENDED", "SIGNALING", "STAGE_OUT")
_PENDING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "PREEMPTED")


class Job(BaseModel):
    """A run that was submitted to a cluster.

    Attributes:
        name: Run id, as planned on the machine that submitted it; on another device it has another hash.
        run: Description of the run.
        job: Id of the job.
        folder: Folder of the record, if the id is as planned.
        force: The run is repeated if it has a record.
        cancelled: The job was cancelled by `cancel`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    run: str
    job: str
    folder: str
    force: bool = False
    cancelled: bool = False


_Jobs = TypeAdapter(list[Job])


@dataclass(frozen=True)
class Status:
    """The state of a submitted run: done, running, pending, cancelled or failed; `note` says more."""

    sweep: Path
    job: Job
    state: str
    note: str


def new_sweep(results: Path) -> Path:
    """Create the folder of a new sweep, `.sweeps/ID` in the results folder."""
    folder = results / SWEEPS / f"{datetime.now():%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
    folder.mkdir(parents=True)
    return folder


def log_file(sweep: Path, name: str) -> Path:
    """Return the file of the output of a run."""
    return sweep / f"{name}.log"


def record_file(sweep: Path, name: str) -> Path:
    """Return the file into which a job writes what `hashbench run --json` prints."""
    return sweep / f"{name}.json"


def write_jobs(sweep: Path, jobs: Sequence[Job]) -> None:
    """Write the list of the jobs of a sweep."""
    with atomic_write(sweep / _JOBS) as path:
        path.write_bytes(_Jobs.dump_json(list(jobs), indent=2))


def statuses(results: Path) -> list[Status]:
    """Return the state of each submitted run in its newest sweep.

    Raises:
        HashbenchError: A list of jobs is damaged, or the queue cannot be read.
    """
    newest: dict[str, tuple[Path, Job]] = {}
    for path in sorted(results.glob(f"{SWEEPS}/*/{_JOBS}")):
        newest |= {job.name: (path.parent, job) for job in _read_jobs(path)}
    found = [(sweep, job, _folder(sweep, job)) for sweep, job in newest.values()]
    queue = _queue(job.job for _, job, folder in found if not folder)
    return [
        Status(sweep, job, "done", folder) if folder else _status(sweep, job, queue.get(job.job, ("", "")))
        for sweep, job, folder in found
    ]


def cancel(found: Sequence[Status]) -> None:
    """Cancel jobs; runs that are being trained save a checkpoint first.

    Raises:
        HashbenchError: scancel fails.
    """
    for sweep in {status.sweep for status in found}:
        names = {status.job.name for status in found if status.sweep == sweep}
        jobs = _read_jobs(sweep / _JOBS)
        write_jobs(
            sweep, [job.model_copy(update={"cancelled": job.cancelled or job.name in names}) for job in jobs]
        )
    if found:
        _call("scancel", *(status.job.job for status in found))


def output(results: Path, name: str) -> Path:
    """Return the file with the newest output of a run.

    Args:
        results: The results folder.
        name: The beginning of the run id.

    Raises:
        UsageError: No run, or several runs, have this name.
        HashbenchError: The run has no output yet.
    """
    jobs = {status.job.name: status for status in statuses(results)}
    logs = {path.stem: path for path in sorted(results.glob(f"{SWEEPS}/*/*.log"))}
    found = sorted(known for known in {*jobs, *logs} if known.startswith(name))
    if len(found) != 1 and name not in found:
        several = f"several runs begin like this: {', '.join(found)}" if found else "no run of a sweep has it"
        raise UsageError(f"RUN {quoted(name)}: {several}; `hashbench sweep status` lists them")
    (name,) = found if len(found) == 1 else [name]
    if name not in jobs:
        return logs[name]
    sweep, job = jobs[name].sweep, jobs[name].job
    for path in (log_file(sweep, name), *sorted(sweep.glob(f"jobs/{job.job}_0_log.*"))):
        if path.is_file() and path.stat().st_size:
            return path
    raise HashbenchError(f"{name} has no output yet; it is {jobs[name].state}")


def _read_jobs(path: Path) -> list[Job]:
    try:
        return _Jobs.validate_python(read_json(path))
    except (OSError, ValueError) as error:
        raise HashbenchError(f"{path} is damaged ({type(error).__name__}); remove its folder") from error


def _folder(sweep: Path, job: Job) -> str:
    """Return the folder of the record that a job has written or found; empty if there is none."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        (record,) = read_json(record_file(sweep, job.name))
        return str(record["folder"])
    return "" if job.force or not Path(job.folder).exists() else job.folder


def _status(sweep: Path, job: Job, queued: tuple[str, str]) -> Status:
    """Return the state of a run without a record, given the state and the reason in the queue."""
    state, reason = queued
    line = last_line(log_file(sweep, job.name))
    if state in _PENDING:
        return Status(sweep, job, "pending", reason)
    if state in _RUNNING and not job.cancelled:
        return Status(sweep, job, "running", line)
    if job.cancelled or state == "CANCELLED":
        return Status(sweep, job, "cancelled", line)
    ended = state if state not in ("", "FAILED", "COMPLETED") else ""
    return Status(
        sweep, job, "failed", ": ".join(filter(None, (ended, line))) or "its job ended without output"
    )


def _queue(jobs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return the state and the reason of jobs that are in the queue of Slurm, or have just left it."""
    wanted = set(jobs)
    if not wanted:
        return {}
    # All jobs of the user, since squeue fails if it does not know one of the ids any more.
    lines = _call("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r").splitlines()
    rows = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    return {job: (state, reason) for job, state, reason in rows if job in wanted}


def _call(program: str, *arguments: Any) -> str:
    """Call a program of Slurm and return its output."""
    if shutil.which(program) is None:
        raise HashbenchError(f"there is no {program} on this machine; use a machine of the Slurm cluster")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HashbenchError(f"{program} failed ({done.stderr.strip()[-200:]}); try again later")
    return done.stdout
