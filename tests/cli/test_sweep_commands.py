"""`--launcher slurm` and `hashbench sweep`, with programs that stand for those of Slurm."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_plugin import toy_plugin

from hashbench.launchers import LAUNCHED
from hashbench.launchers.slurm import RunCommand

submitit = pytest.importorskip("submitit")

SHORT = ["--method=tiny", "--dataset=toy", "--protocol=short", "--bits=8", "--set=epochs=1", "--results=runs"]
SLURM = ["--launcher", "slurm", "--device", "cpu"]
RUN = "tiny (epochs=1) on toy@short, 8 bits, seed"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the plugin file of the small method and dataset."""
    with toy_plugin(tmp_path_factory.mktemp("plugin")) as path:
        yield path


@pytest.fixture
def command(cli: Callable[..., Any], plugin: Path) -> Callable[..., Any]:
    """Return a function that trains the small method."""
    return lambda *options: cli("run", "--plugin", plugin, *SHORT, *options)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file with the jobs that `squeue` prints; `sbatch` numbers jobs from 7."""
    (programs := tmp_path / "bin").mkdir()
    scripts = {
        "sbatch": "echo Submitted batch job 7",
        "squeue": "cat queue",
        "scancel": 'echo "$@" > cancelled',
    }
    for name, script in {**scripts, "srun": ""}.items():
        (programs / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "queue").touch()
    return tmp_path / "queue"


def submitted(job: str, tmp_path: Path) -> RunCommand:
    """Return the function of a job."""
    (folder,) = tmp_path.glob("runs/.sweeps/*/jobs")
    function: RunCommand = submitit.SlurmJob(folder, job).submission().function
    return function


def test_a_grid_is_submitted_shown_and_cancelled(
    command: Callable[..., Any], cli: Callable[..., Any], queue: Path, plugin: Path, tmp_path: Path
) -> None:
    assert command("--seed=0").code == 0
    done = command("--seed=0,1,2", *SLURM, "--name=mine", "--slurm", "partition=gpu")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"job 7_0: {RUN} 1",
        f"job 7_1: {RUN} 2",
        "submitted 2 runs; `hashbench sweep status --results runs` shows them",
    ]
    assert "hashbench: 1 of 3 runs have a record or a job already" in done.err.splitlines()
    words = list(submitted("7_1", tmp_path).command)
    assert words[1:4] == ["-m", "hashbench", "run"]
    assert {"--resume", "--json"} <= {*words}
    assert words[words.index("--name") + 1] == "mine"
    queue.write_text("7_0|RUNNING|None\n7_1|PENDING|Resources\n")
    shown = json.loads(cli("sweep", "status", "--results", "runs", "--json").out)
    one, two = (row["run"] for row in shown)
    assert [(row["description"], row["job"], row["state"], row["note"]) for row in shown] == [
        (f"{RUN} 1", "7_0", "running", ""),
        (f"{RUN} 2", "7_1", "pending", "Resources"),
    ]
    text = cli("sweep", "status", "--results", "runs").out
    assert "pending: Resources" in text
    assert text.splitlines()[-1] == "1 running, 1 pending"
    again = command("--seed=1,2", *SLURM)
    assert (again.code, again.out) == (0, "")
    Path(shown[0]["log"]).write_text("hashbench: a line\n")
    assert cli("sweep", "logs", one, "--results", "runs").out == "hashbench: a line\n"
    assert cli("sweep", "cancel", "x", "--results", "runs").code == 2
    assert cli("sweep", "cancel", two, "--results", "runs").out == "cancelled 1 runs\n"
    assert (tmp_path / "cancelled").read_text() == "7_1\n"

    # The job does what its command says, which is executed here.
    assert cli(*words[3:]).code == 0
    queue.write_text("")
    states = {
        row["run"]: row["state"] for row in json.loads(cli("sweep", "status", "--results=runs", "--json").out)
    }
    assert states == {one: "failed", two: "done"}
    assert cli("sweep", "cancel", "--results", "runs").out == "cancelled 0 runs\n"
    for tool in ("list", "verify", "prune"):
        assert cli("results", tool, "--results", "runs").code == 0


def test_an_ablation_is_submitted(cli: Callable[..., Any], plugin: Path, queue: Path, tmp_path: Path) -> None:
    done = cli("ablate", "--plugin", plugin, *SHORT, *SLURM)
    assert done.code == 0, done.err
    assert done.out.count("job 7_") == 2
    assert "batch_size=16" in shlex.join(submitted("7_1", tmp_path).command)


def test_what_cannot_run_is_not_submitted(command: Callable[..., Any], queue: Path, tmp_path: Path) -> None:
    done = command(*SLURM, "--method=spq,tiny", "--bits=6", "--set=batch_size=8")
    assert done.code == 1, done.err
    assert "hashbench: cannot run: spq (epochs=1, batch_size=8) on toy@short, 6 bits, seed 0: " in done.err
    assert done.out.count("job 7: ") == 1
    assert done.err.splitlines()[-1] == "hashbench: error: 1 of 2 runs cannot run; the lines above say why"


def test_a_grid_that_cannot_be_submitted_leaves_nothing(
    command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(*SLURM, "--dry-run", "--slurm", "partition")
    assert done.code == 2
    assert "hashbench: error: --slurm: expected KEY=VALUE" in done.err
    monkeypatch.setenv("PATH", "")
    done = command(*SLURM)
    assert done.code == 1
    assert "there is no sbatch on this machine" in done.err
    assert not list(tmp_path.glob("runs/.sweeps/*"))


def test_a_grid_of_a_launcher_was_checked_as_a_whole(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command for one of its runs would refuse the stopped runs of the others."""
    from hashbench.launchers import execute

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(execute, "require_same_settings", refuse)
    monkeypatch.setenv(LAUNCHED, "1")
    assert command("--resume").code == 0


@pytest.mark.parametrize("option", ["--slurm=a=b", "--max-parallel=2"])
def test_options_of_slurm_need_it(command: Callable[..., Any], option: str) -> None:
    done = command(option)
    assert done.code == 2
    assert f"hashbench: error: {option.partition('=')[0]} needs --launcher slurm" in done.err
