"""Runs as jobs of Slurm, through submitit: requeued when they time out or are preempted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from hashbench.errors import HashbenchError, UsageError, quoted
from hashbench.launchers import LAUNCHED
from hashbench.launchers.local import last_line
from hashbench.launchers.sweeps import log_file, record_file
from hashbench.runtime.preemption import PreemptionError

MAX_TIMEOUTS = 1000  # after which submitit no longer requeues a job
_DEFAULTS = {"time": 60, "stderr_to_stdout": True}
# A job is one task of submitit, which writes these options itself.
_OWN = {
    *("nodes", "ntasks", "ntasks_per_node", "array", "signal", "output", "error", "open_mode", "job_name"),
    *("array_parallelism", "requeue"),
    # submitit takes no texts for these.
    *("additional_parameters", "setup", "teardown", "srun_args", "use_srun", "stderr_to_stdout"),
}
_STOPPED = (PreemptionError.exit_code, -signal.SIGTERM, -signal.SIGHUP)
# Slurm sends SIGUSR2, which tells submitit that the time is over, to all processes of a job.
_IGNORING_USR2 = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh")


@dataclass
class RunCommand:
    """The function of a job, which carries out the command of a run; submitit calls `checkpoint`.

    Attributes:
        command: The words of the command.
        log: The file of its messages, to which they are appended.
        output: The file of its standard output.
    """

    command: Sequence[str]
    log: Path
    output: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __call__(self) -> None:
        """Carry out the command; requeue the job if the command was stopped by a signal."""
        with self.log.open("ab") as log, self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*_IGNORING_USR2, *self.command], stdin=subprocess.DEVNULL, stdout=output, stderr=log,
                env={**os.environ, LAUNCHED: "1"},
            )  # fmt: skip
        code = _wait(self.process)
        if code in _STOPPED and _is_wanted():
            signal.raise_signal(signal.SIGUSR2)  # submitit requeues the job
        if code:
            raise RuntimeError(f"exit code {code}: {last_line(self.log)}")

    def checkpoint(self) -> Any:
        """Stop the command, which saves its state, and return what the requeued job calls."""
        from submitit.helpers import DelayedSubmission

        if self.process is not None:
            os.kill(self.process.pid, signal.SIGTERM)  # `terminate` would remove a process that has ended
            _wait(self.process)
        return DelayedSubmission(replace(self))


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait until a process ends; return its exit code, or the negative signal.

    It is called in a signal handler while it waits already, which `Popen.wait` does not support.
    """
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _is_wanted() -> bool:
    """Return True if this job can be requeued: submitit listens, and it has not been cancelled."""
    if signal.getsignal(signal.SIGUSR2) in (signal.SIG_DFL, signal.SIG_IGN):
        return False
    if (job := os.environ.get("SLURM_JOB_ID")) is None:
        return True
    state = subprocess.run(
        ["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True, check=False
    )
    return state.stdout.strip() == "RUNNING"


def parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Parse the options of sbatch, such as `partition=gpu,time=240`.

    Raises:
        UsageError: A text is not of the form KEY=VALUE, or the option is not the user's.
    """
    found: dict[str, Any] = dict(_DEFAULTS)
    for text in (part for several in texts for part in re.split(r",\s*(?=[\w-]+=)", several)):
        key, equals, value = text.partition("=")
        key, value = key.strip().replace("-", "_"), value.strip()
        if not (key and equals and value):
            raise UsageError(f"--slurm: expected KEY=VALUE[,KEY=VALUE…], got {quoted(text)}")
        if key in _OWN:
            raise UsageError(
                f"--slurm {key}: each run is a job of one task, and hashbench sets this; leave it out"
            )
        found[key] = int(value) if value.isdecimal() else value
    for key in ("time", "signal_delay_s"):
        if not isinstance(found.get(key, 0), int):
            what = "minutes" if key == "time" else "seconds"
            raise UsageError(f"--slurm {key}: expected a whole number of {what}, got {quoted(found[key])}")
    return found


def submit(
    commands: Mapping[str, Sequence[str]],
    sweep: Path,
    options: Mapping[str, Any],
    max_parallel: int | None,
    cluster: Literal["slurm", "local", "debug"] = "slurm",
) -> list[Any]:
    """Submit a job for each command.

    Args:
        commands: The words of each command, by the name of its run.
        sweep: The folder of the sweep.
        options: The options, from `parameters`.
        max_parallel: Number of jobs that run at the same time; None: no limit.
        cluster: Another executor of submitit, for tests.

    Returns:
        The jobs of submitit, in the order of the commands.

    Raises:
        HashbenchError: submitit or sbatch is missing, or sbatch refuses the jobs.
    """
    try:
        import submitit
    except ImportError as error:
        raise HashbenchError("--launcher slurm needs submitit; pip install 'hashbench[slurm]'") from error
    if cluster == "slurm" and shutil.which("sbatch") is None:
        raise HashbenchError("there is no sbatch on this machine; use a login node of the Slurm cluster")
    kinds = {
        "slurm": submitit.SlurmExecutor,
        "local": submitit.LocalExecutor,
        "debug": submitit.DebugExecutor,
    }
    jobs = [
        RunCommand(command, log_file(sweep, name).absolute(), record_file(sweep, name).absolute())
        for name, command in commands.items()
    ]
    try:
        with redirect_stderr(StringIO()):  # submitit prints what it raises
            executor = kinds[cluster](sweep / "jobs")
            executor.max_num_timeout = MAX_TIMEOUTS
            if cluster == "slurm":
                known = executor._valid_parameters()
                others = {key: value for key, value in options.items() if key not in known}
                executor.update_parameters(
                    **{key: value for key, value in options.items() if key in known},
                    job_name="hashbench",
                    array_parallelism=max_parallel or len(jobs),
                    additional_parameters={"requeue": True, **others},
                )
            else:
                executor.update_parameters(**options)
            with executor.batch():
                return [executor.submit(job) for job in jobs]
    except (RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise HashbenchError(f"the jobs cannot be submitted ({lines[-1]}); check --slurm") from error
