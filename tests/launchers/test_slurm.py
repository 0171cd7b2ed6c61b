"""Runs as jobs, with the local executor of submitit in place of Slurm."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("submitit")
from hashbench import HashbenchError, UsageError
from hashbench.launchers import slurm
from hashbench.launchers.slurm import RunCommand, parameters, submit
from hashbench.launchers.sweeps import Job, cancel, log_file, output, record_file, statuses, write_jobs

# A run that trains for as long as a file does not exist, and is stopped by SIGTERM.
RUN = """
import signal, sys, time
from pathlib import Path
go, code = Path(sys.argv[1]), int(sys.argv[2])
def stop(*_):
    print("stopped by SIGTERM", file=sys.stderr, flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("started", int(signal.getsignal(signal.SIGUSR2)), file=sys.stderr, flush=True)
while not go.exists():
    time.sleep(0.02)
print("the last line", file=sys.stderr, flush=True)
print('[{"folder": "the folder"}]')
sys.exit(code)
"""
SWEEP = ".sweeps/20260101-000000-abcd"


def run(folder: Path, code: int = 0) -> list[str]:
    return [sys.executable, "-S", "-c", RUN, str(folder / "go"), str(code)]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Return the folder of a sweep."""
    (folder := tmp_path / SWEEP).mkdir(parents=True)
    return folder


def wait_for(sweep: Path, text: str, times: int) -> None:
    log = log_file(sweep, "one")
    until = time.monotonic() + 60
    while not log.exists() or log.read_text().count(text) < times:
        assert time.monotonic() < until, log.read_text() if log.exists() else "no log"
        time.sleep(0.02)


def process_of(*words: str) -> int:
    """Return the process whose command has these words."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if {*map(str.encode, words)} <= {*(entry / "cmdline").read_bytes().split(b"\0")}:
                return int(entry.name)
    raise AssertionError(words)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_job_is_requeued_when_its_time_is_over_or_its_run_is_stopped(
    tmp_path: Path, sweep: Path, request: pytest.FixtureRequest
) -> None:
    (job,) = submit({"one": run(tmp_path)}, sweep, {"timeout_min": 2}, None, "local")
    request.addfinalizer((tmp_path / "go").touch)
    wait_for(sweep, "started", 1)
    os.kill(
        process_of("submitit.core._submit", str(sweep / "jobs")), signal.SIGUSR2
    )  # as Slurm before the time limit
    wait_for(sweep, "started", 2)
    os.kill(process_of("-S", str(tmp_path / "go")), signal.SIGTERM)  # as `scancel --signal=TERM` does
    wait_for(sweep, "started", 3)
    (tmp_path / "go").touch()
    assert job.results() == [None]
    lines = log_file(sweep, "one").read_text().splitlines()
    started = f"started {int(signal.SIG_IGN)}"
    assert lines == [started, "stopped by SIGTERM", started, "stopped by SIGTERM", started, "the last line"]
    assert json.loads(record_file(sweep, "one").read_text()) == [{"folder": "the folder"}]


def test_a_run_that_fails_is_not_requeued(tmp_path: Path, sweep: Path) -> None:
    (tmp_path / "go").touch()
    (job,) = submit({"one": run(tmp_path, 3)}, sweep, {}, None, "debug")
    with pytest.raises(RuntimeError, match="^exit code 3: the last line$"):
        raise job.exception()


def test_a_cancelled_job_is_not_requeued(
    tmp_path: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch, squeue: Callable[..., Path]
) -> None:
    """Slurm sends SIGTERM to its run, too."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    raised: list[object] = []
    monkeypatch.setattr(slurm.signal, "raise_signal", lambda _: raised.append(command.checkpoint().function))
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        for state, requeued in (("RUNNING", 1), ("COMPLETING", 1)):
            squeue(state)
            command = RunCommand(["sh", "-c", "exit 75"], tmp_path / "log", tmp_path / "out")
            with pytest.raises(RuntimeError, match="exit code 75"):
                command()
            assert raised == [RunCommand(command.command, command.log, command.output)] * requeued
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that lets `squeue` print lines; it returns the file that `scancel` writes."""
    (programs := tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def put(*lines: str) -> Path:
        for name, script in (
            ("squeue", f"cat {tmp_path / 'queue'}"), ("scancel", f'echo "$@" >> {tmp_path / "cancelled"}')
        ):  # fmt: skip
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        (tmp_path / "queue").write_text("".join(f"{line}\n" for line in lines))
        return tmp_path / "cancelled"

    return put


def submitted(sweep: Path, *names: str) -> None:
    folder = sweep.parents[1]
    write_jobs(
        sweep,
        [
            Job(name=name, run=f"run {name}", job=f"7_{number}", folder=str(folder / name))
            for number, name in enumerate(names)
        ],
    )


def states(results: Path) -> dict[str, str]:
    return {status.job.name: f"{status.state}: {status.note}" for status in statuses(results)}


def test_the_states_of_runs(tmp_path: Path, sweep: Path, squeue: Callable[..., Path]) -> None:
    submitted(sweep, "a", "b", "c", "d", "e", "f")
    (tmp_path / "a").mkdir()  # has a record
    record_file(sweep, "b").write_text('[{"folder": "elsewhere"}]')
    for name in "cef":
        log_file(sweep, name).write_text(f"first\nlast of {name}\n\n")
    cancelled = squeue("7_2|RUNNING|None", "7_3|PENDING|Priority", "7_5|TIMEOUT|TimeLimit", "9|RUNNING|None")
    assert states(tmp_path) == {
        "a": f"done: {tmp_path / 'a'}",
        "b": "done: elsewhere",
        "c": "running: last of c",
        "d": "pending: Priority",
        "e": "failed: last of e",
        "f": "failed: TIMEOUT: last of f",
    }
    cancel([status for status in statuses(tmp_path) if status.job.name in "cd"])
    assert cancelled.read_text() == "7_2 7_3\n"
    squeue()
    assert states(tmp_path)["c"] == "cancelled: last of c"
    assert states(tmp_path)["d"] == "cancelled: "
    (later := tmp_path / ".sweeps/20270101-000000-abcd").mkdir()
    submitted(later, "c")
    squeue("7_0|PENDING|None")
    assert states(tmp_path)["c"] == "pending: None"  # in its newest sweep


def test_the_output_of_a_run(tmp_path: Path, sweep: Path, squeue: Callable[..., Path]) -> None:
    submitted(sweep, "one-a", "one-b", "two")
    squeue("7_1|PENDING|None")
    log_file(sweep, "one-a").write_text("text")
    log_file(sweep, "local").write_text("of --launcher local")
    (sweep / "jobs").mkdir()
    (sweep / "jobs" / "7_2_0_log.out").write_text("no module named hashbench")
    assert output(tmp_path, "one-a") == log_file(sweep, "one-a")
    assert output(tmp_path, "tw").read_text() == "no module named hashbench"
    assert output(tmp_path, "local").read_text() == "of --launcher local"
    with pytest.raises(HashbenchError, match="^one-b has no output yet; it is pending$"):
        output(tmp_path, "one-b")
    with pytest.raises(UsageError, match="'one': several runs begin like this: one-a, one-b; "):
        output(tmp_path, "one")
    with pytest.raises(UsageError, match="'three': no run of a sweep has it; `hashbench sweep status`"):
        output(tmp_path, "three")


def test_a_damaged_list_of_jobs_is_named(tmp_path: Path, sweep: Path) -> None:
    (sweep / "jobs.json").write_text("[{}]")
    with pytest.raises(HashbenchError, match=f"^{sweep / 'jobs.json'} is damaged"):
        statuses(tmp_path)


def test_the_options_of_sbatch() -> None:
    assert parameters([]) == {"time": 60, "stderr_to_stdout": True}
    found = parameters(["partition=gpu,time=240,gres=gpu:2", "nodelist=a,b, mail-type=END,mem= 4GB"])
    assert found == {
        "partition": "gpu", "time": 240, "gres": "gpu:2", "nodelist": "a,b", "mail_type": "END", "mem": "4GB",
        "stderr_to_stdout": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu", "expected KEY=VALUE"),
        ("partition=", "expected KEY=VALUE"),
        ("time=1:00:00", "time: expected a whole number of minutes, got '1:00:00'"),
        ("nodes=2", "nodes: each run is a job of one task"),
        ("setup=module load cuda", "setup: each run is a job of one task, and hashbench sets this"),
        ("array_parallelism=2", "array_parallelism: each run is a job of one task"),
        ("ntasks-per-node=2", "ntasks_per_node: each run is a job of one task"),
    ],
)
def test_wrong_options_of_sbatch(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"^--slurm:? ?{message}"):
        parameters([text])


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HashbenchError, match="^there is no sbatch on this machine; "):
        submit({"one": []}, sweep, parameters([]), None)
    submitted(sweep, "one")
    with pytest.raises(HashbenchError, match="^there is no squeue on this machine; "):
        statuses(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(HashbenchError, match=r"needs submitit; pip install 'hashbench\[slurm\]'$"):
        submit({"one": []}, sweep, parameters([]), None)


def test_what_sbatch_refuses_is_one_line(
    tmp_path: Path, sweep: Path, squeue: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    squeue()
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text(
            "#!/bin/sh\necho 'sbatch: error: invalid partition: x' >&2; exit 1"
        )
        (tmp_path / "bin" / name).chmod(0o755)
    message = r"^the jobs cannot be submitted \(sbatch: error: invalid partition: x\); check --slurm$"
    with pytest.raises(HashbenchError, match=message):
        submit({"one": ["true"], "two": ["true"]}, sweep, parameters(["partition=x"]), 1)
    assert capsys.readouterr().err == ""


def test_the_script_of_the_jobs(tmp_path: Path, sweep: Path, squeue: Callable[..., Path]) -> None:
    squeue()
    for name, script in (
        ("sbatch", f"cat $1 > {tmp_path / 'script'}; echo Submitted batch job 7"),
        ("srun", ""),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    jobs = submit({"a": ["true"], "b": ["true"]}, sweep, parameters(["partition=gpu,reservation=r"]), 1)
    assert [job.job_id for job in jobs] == ["7_0", "7_1"]
    lines = (tmp_path / "script").read_text().splitlines()
    for option in ("partition=gpu", "reservation=r", "time=60", "requeue", "array=0-1%1", "signal=USR2@90"):
        assert f"#SBATCH --{option}" in lines


def test_a_run_that_is_stopped_outside_of_a_job_fails(tmp_path: Path) -> None:
    """Without submitit's handler, SIGUSR2 would kill this process."""
    command = RunCommand(["sh", "-c", "exit 75"], tmp_path / "log", tmp_path / "out")
    with pytest.raises(RuntimeError, match="exit code 75"):
        command()
