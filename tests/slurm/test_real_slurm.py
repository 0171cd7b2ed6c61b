"""A grid on a real Slurm of one node, whose daemons run during the test (with --long, as root, on Debian).

It needs the packages slurmctld, slurmd, slurm-client and munge, and takes up to half an hour: Slurm keeps a
job that is requeued for two minutes, and the shortest time limit is one minute.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_plugin import PLUGIN, RECIPE

import hashbench

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port_of_node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
JobRequeue=1
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
# A method whose training waits at each step, so that there is time to stop it, and fails with 12 bits.
SLOW = PLUGIN.replace(
    "        codes = [",
    """        import time
        time.sleep(0.5)
        if self.head.out_features == 12:
            return {"loss": self.head(features[0]).sum() * torch.inf}
        codes = [""",
)


@pytest.fixture
def slurm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start munged, slurmctld and slurmd in a temporary folder, and stop them by their process ids."""
    paths = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    if not request.config.getoption("--long"):
        pytest.skip("takes up to half an hour")
    if os.getuid() or not all(shutil.which(program, path=paths) for program in PROGRAMS):
        pytest.skip("needs root and the programs of Slurm")
    monkeypatch.setenv("PATH", paths)
    (folder := tmp_path / "slurm").mkdir()
    for name in ("state", "spool"):
        (folder / name).mkdir()
    ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    config = CONFIG.format(
        folder=folder,
        host=socket.gethostname().partition(".")[0],
        port=ports[0].getsockname()[1],
        port_of_node=ports[1].getsockname()[1],
    )
    for port in ports:
        port.close()
    (folder / "slurm.conf").write_text(config)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    munge = {
        "socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid", "log-file": "munge.log",
        "seed-file": "munge.seed",
    }  # fmt: skip
    try:
        subprocess.run(
            ["munged", "--force", *(f"--{option}={folder / name}" for option, name in munge.items())],
            check=True,
        )
        subprocess.run(["slurmctld"], check=True)
        subprocess.run(["slurmd"], check=True)
        wait_until(lambda: "idle" in call("sinfo", "--noheader", "--format=%T"), 60)
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        with suppress(AssertionError, subprocess.CalledProcessError):
            wait_until(lambda: not call("squeue", "--noheader"), 60)
        for name in ("d.pid", "ctld.pid", "munge.pid"):
            with suppress(OSError, ValueError):
                os.kill(int((folder / name).read_text()), signal.SIGTERM)


def call(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def program(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hashbench", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(condition: Callable[[], Any], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(1)


def states() -> dict[int, dict[str, str]]:
    """Return the row of `hashbench sweep status` by the seed."""
    rows = json.loads(program("sweep", "status", "--results", "runs", "--json"))
    return {int(row["description"].rpartition(" ")[2]): row for row in rows}


def state_of(seeds: Sequence[int]) -> list[str]:
    found = states()
    return [found[seed]["state"] for seed in seeds]


@pytest.fixture
def grid(slurm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command that submits runs of the slow method."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HASHBENCH_CACHE", "off")
    (tmp_path / "toy.py").write_text(SLOW)
    (tmp_path / "toy.yaml").write_text(RECIPE)
    return [
        *("run", "--plugin", "toy.py", "--method", "tiny", "--dataset", "toy", "--protocol", "short"),
        *("--bits", "8", "--device", "cpu", "--results", "runs", "--launcher", "slurm", "--save-every", "1"),
    ]


def test_a_run_that_is_stopped_is_requeued(grid: list[str]) -> None:
    shown = program(
        *grid, "--seed", "0,1,2", "--set", "epochs=30", "--slurm", "time=30", "--max-parallel", "2"
    )
    assert shown.count("job ") == 3
    wait_until(lambda: all("train: " in states()[seed]["note"] for seed in (0, 1)), 180)
    assert state_of([0, 1, 2]) == ["running", "running", "pending"]
    assert states()[2]["note"] == "JobArrayTaskLimit"
    call("scancel", "--signal=TERM", states()[0]["job"])
    wait_until(lambda: state_of([0]) == ["pending"], 60)
    assert "stopped by SIGTERM after step " in program(
        "sweep", "logs", states()[0]["run"], "--results", "runs"
    )
    assert "have a record or a job already" in subprocess.run(
        [sys.executable, "-m", "hashbench", *grid, "--seed", "0,1,2", "--set", "epochs=30"],
        capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    wait_until(lambda: state_of([0, 1, 2]) == ["done"] * 3, 600)
    records = {seed: hashbench.read_record(Path(states()[seed]["note"])) for seed in (0, 1, 2)}
    assert [records[seed].resumed for seed in (0, 1, 2)] == [1, 0, 0]


def test_a_time_limit_a_cancelled_run_and_a_failure(grid: list[str]) -> None:
    program(*grid, "--seed", "3,4", "--set", "epochs=24", "--slurm", "time=1,signal_delay_s=20")
    wait_until(lambda: state_of([3, 4]) == ["running"] * 2, 60)
    program("sweep", "cancel", states()[4]["run"], "--results", "runs")
    wait_until(lambda: state_of([4]) == ["cancelled"], 60)
    program(*grid, "--seed", "5", "--bits", "12")
    wait_until(lambda: state_of([5]) == ["failed"], 120)
    assert "the loss is not finite" in states()[5]["note"]
    wait_until(lambda: state_of([3]) == ["pending"], 180)
    wait_until(lambda: state_of([3]) == ["done"], 1800)
    record = hashbench.read_record(Path(states()[3]["note"]))
    assert record.resumed >= 1
    assert state_of([4]) == ["cancelled"]
    wait_until(lambda: not call("squeue", "--noheader"), 60)
