"""A run is carried out by one process at a time; others take the next run, or wait."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from helpers.owning_process import other_process
from helpers.toy_plugin import run_toy, toy_plugin

import hashbench
from hashbench.experiment.claims import CLAIMS, ClaimedError, claimed, holder, this_process
from hashbench.launchers import sequence
from hashbench.results.folders import leftovers
from hashbench.results.query import RunFilter, find
from hashbench.runtime.preemption import PreemptionError

SHORT = ["--protocol", "short", "--bits", "8", "--set", "epochs=1", "--results", "runs"]
OWNER = "process 7 on node9 since today"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the plugin file of the small method and dataset."""
    with toy_plugin(tmp_path_factory.mktemp("plugin")) as path:
        yield path


@pytest.fixture
def command(cli: Callable[..., Any], plugin: Path) -> Callable[..., Any]:
    """Return a function that trains the small method."""
    return lambda *options: cli("run", "--plugin", plugin, "--method=tiny", "--dataset=toy", *SHORT, *options)


@pytest.fixture(scope="module")
def finished(plugin: Path) -> Path:
    """Return the folder of the run with the first seed, in another results folder."""
    return run_toy(plugin.parent / "finished", "short", "epochs=1").folder


@pytest.fixture
def claim(finished: Path, tmp_path: Path) -> Path:
    """Return the path of the claim of the first seed."""
    path = tmp_path / "runs" / CLAIMS / finished.name
    path.parent.mkdir(parents=True)
    return path


def test_a_claim_names_its_process_and_is_removed(tmp_path: Path) -> None:
    with claimed(tmp_path, "run") as owner:
        assert owner is None
        # The process itself must not open the file, since closing it would end the claim.
        assert os.popen(f"cat {tmp_path / CLAIMS / 'run'}").read() == this_process()
    assert f"process {os.getpid()} on {os.uname().nodename} since " in this_process()
    with pytest.raises(ZeroDivisionError), claimed(tmp_path, "run"):
        raise ZeroDivisionError
    assert list((tmp_path / CLAIMS).iterdir()) == []
    assert holder(tmp_path, "run") is None


def test_a_claim_ends_with_its_process_even_if_its_children_live(tmp_path: Path) -> None:
    path = tmp_path / CLAIMS / "run"
    path.parent.mkdir()
    with other_process(path) as process:
        assert holder(tmp_path, "run") == OWNER
        with claimed(tmp_path, "run") as owner:
            assert owner == OWNER
        assert path.exists()
        process.kill()
        process.wait()
        assert holder(tmp_path, "run") is None
        with claimed(tmp_path, "run") as owner:
            assert owner is None


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_has_no_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with claimed(tmp_path, "run") as first, claimed(tmp_path, "run") as second:
        assert (first, second) == (None, None)


def test_a_folder_that_cannot_be_written_has_no_claims(tmp_path: Path) -> None:
    (tmp_path / CLAIMS).touch()
    with claimed(tmp_path, "run") as owner:
        assert (owner, holder(tmp_path, "run")) == (None, None)


def test_a_claimed_run_is_refused_unless_it_has_a_record(finished: Path, claim: Path, tmp_path: Path) -> None:
    with other_process(claim):
        refused = f"^{claim.name} is carried out by {OWNER}; wait until it ends, or stop it$"
        with pytest.raises(ClaimedError, match=refused):
            run_toy(tmp_path / "runs", "short", "epochs=1")
        shutil.copytree(finished.parents[2], tmp_path / "runs" / "toy@short")
        assert run_toy(tmp_path / "runs", "short", "epochs=1").existed
        assert leftovers(tmp_path / "runs") == []
        assert [run.folder.name for run in find(tmp_path / "runs", RunFilter())[0]] == [claim.name]


def test_a_grid_takes_the_next_run_and_comes_back_when_the_owner_has_crashed(
    command: Callable[..., Any], claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = []
    with other_process(claim) as process:

        def sleep(_: float) -> None:
            polls.append(1)
            if len(polls) == 3:
                process.kill()
                process.wait()

        monkeypatch.setattr(sequence.time, "sleep", sleep)
        done = command("--seed", "0,1")
    assert done.code == 0, done.err
    lines = [line.removeprefix("hashbench: ") for line in done.err.splitlines()]
    run = "tiny (epochs=1) on toy@short, 8 bits, seed"
    shown = [line for line in lines if line.startswith(("[", "waiting"))]
    assert shown == [
        f"[2/2] {run} 1, cpu",
        f"waiting for what other processes carry out: {run} 0 by {OWNER}",
        f"[1/2] {run} 0, cpu",
    ]
    assert len(polls) == 3
    assert "nothing was trained" not in done.err
    assert list(claim.parent.iterdir()) == []


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_run_that_another_process_has_done_is_not_repeated(
    command: Callable[..., Any],
    finished: Path,
    claim: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    force: list[str],
) -> None:
    with other_process(claim) as process:

        def sleep(_: float) -> None:
            shutil.copytree(finished.parents[2], tmp_path / "runs" / "toy@short")
            process.communicate("\n")

        monkeypatch.setattr(sequence.time, "sleep", sleep)
        done = command(*force)
    assert done.code == 0, done.err
    assert "hashbench: a record exists, nothing was trained; " in done.err
    if force:
        assert "nothing was trained" not in command("--force").err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (PreemptionError("stopped by SIGTERM"), 75)]
)
def test_waiting_can_be_stopped(
    command: Callable[..., Any],
    claim: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
) -> None:
    def sleep(_: float) -> None:
        raise error

    monkeypatch.setattr(sequence.time, "sleep", sleep)
    with other_process(claim):
        assert command().code == code


def test_threads_of_a_process_take_turns(plugin: Path, tmp_path: Path) -> None:
    """They share its random generators, and the locks of its claims."""

    def train(seed: int, results: str = "threads") -> hashbench.Record:
        settings = {"training.epochs": 4}
        run = hashbench.run("tiny", "toy", bits=8, seed=seed, settings=settings, results=tmp_path / results)
        return run.record

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(train, (0, 1, 1)))
    assert found[1] == found[2]
    for record in found[:2]:
        assert record.files["codes.npz"] == train(record.seed, "alone").files["codes.npz"]
