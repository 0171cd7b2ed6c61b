"""`--launcher local`: several runs at once, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.owning_process import other_process
from helpers.toy_plugin import toy_plugin
from rich.console import Console

from hashbench import HashbenchError, UsageError, read_record
from hashbench.launchers import LAUNCHED, fan_out, local
from hashbench.launchers.grid import Grid
from hashbench.launchers.local import slots

LOCAL = ["--launcher", "local", "--jobs", "2"]
SHORT = ["--method=tiny", "--dataset=toy", "--protocol=short", "--bits=8", "--set=epochs=1", "--results=runs"]

# A child that writes its record, fails, or waits until it is stopped.
CHILD = """
import os, shutil, signal, sys, time
source, what = sys.argv[1:]
print("hashbench: warning: a line", flush=True)
if what == "done":
    shutil.copytree(source, sys.argv[1].replace("finished", "runs"), dirs_exist_ok=True)
elif what.startswith("-"):
    os.kill(os.getpid(), -int(what))
elif what == "wait":
    def stop(*_):
        print("saved", flush=True)
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    time.sleep(60)
else:
    print("hashbench: error: what went wrong", flush=True)
    sys.exit(int(what))
"""


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
def fake(
    command: Callable[..., Any], plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a function that runs a grid whose children do what is given for each seed."""
    kept = plugin.parent / "finished"
    if not kept.exists():
        assert command("--seed=0,1,2").code == 0
        shutil.move(tmp_path / "runs", kept)
    shutil.copytree(kept, tmp_path / "finished")

    def call(*what: str, options: list[str] = LOCAL) -> Any:
        def process_command(_: Grid, run: Any, *__: Any) -> list[str]:
            source = str(run.folder).replace("runs", "finished")
            return [sys.executable, "-c", CHILD, source, what[run.seed]]

        monkeypatch.setattr(Grid, "process_command", process_command)
        return command("--seed", ",".join(map(str, range(len(what)))), *options)

    return call


def seeds(tmp_path: Path) -> list[int]:
    return sorted(read_record(path.parent).seed for path in tmp_path.glob("runs/*@*/*/*/*/record.json"))


def test_a_run_in_a_process_is_that_of_a_sequence(command: Callable[..., Any], tmp_path: Path) -> None:
    expected = command("--seed=0,1")
    (folder,) = tmp_path.glob("runs/*/*/*/tiny*seed0*")
    shutil.move(folder, tmp_path / "sequence")
    done = command("--seed=0,1", *LOCAL)
    assert done.code == 0, done.err
    assert done.out == expected.out
    assert "[1/2] tiny (epochs=1) on toy@short, 8 bits, seed 0: mAP@5 0." in done.err
    assert "[2/2] tiny (epochs=1) on toy@short, 8 bits, seed 1\n" in done.err
    assert done.err.count("a record exists, nothing was trained") == 1
    sequence, found = read_record(tmp_path / "sequence"), read_record(folder)
    assert sequence.metrics == found.metrics
    assert found.environment["threads"] == 1
    assert sorted(path.name for path in (tmp_path / "runs").glob(".*")) == [".claims"]


def test_a_run_that_dies_is_reported_and_the_rest_goes_on(fake: Callable[..., Any], tmp_path: Path) -> None:
    done = fake("-9", "3", "done")
    assert done.code == 1
    failures = [line for line in done.err.splitlines() if line.startswith("hashbench: no record: ")]
    (folder,) = (tmp_path / "runs" / ".sweeps").iterdir()
    logs = sorted(path.relative_to(tmp_path) for path in folder.iterdir())
    run = "tiny (epochs=1) on toy@short, 8 bits, seed"
    assert sorted(failures) == [
        f"hashbench: no record: {run} 0: warning: a line (killed by SIGKILL; log {logs[0]})",
        f"hashbench: no record: {run} 1: what went wrong (exit code 3; log {logs[1]})",
    ]
    assert done.err.splitlines()[-1].startswith("hashbench: error: 2 of 3 runs have no record")
    assert seeds(tmp_path) == [2]
    assert "what went wrong" in logs[1].read_text()


def test_the_first_failure_can_stop_the_others(fake: Callable[..., Any], tmp_path: Path) -> None:
    done = fake("wait", "3", "done", options=[*LOCAL, "--fail-fast"])
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("hashbench: error: what went wrong (exit code 3; log ")
    assert seeds(tmp_path) == []


@pytest.mark.parametrize("code", [1, 2, 75])
def test_a_single_run_ends_with_its_own_exit_code(fake: Callable[..., Any], code: int) -> None:
    assert fake(str(code)).code == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_stop_ends_all_runs_with_their_states_saved(
    fake: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    def sleep(_: float) -> None:
        logs = [*tmp_path.glob("runs/.sweeps/*/*.log")]
        if sum("ready" in log.read_text() for log in logs) == 2:
            stopped.append(time.monotonic())
            if number == signal.SIGINT:  # which pytest's workers ignore
                raise KeyboardInterrupt
            os.kill(os.getpid(), number)

    stopped: list[float] = []
    monkeypatch.setattr(fan_out.time, "sleep", sleep)
    done = fake("wait", "wait", "done")
    assert time.monotonic() - stopped[0] < 5
    assert done.code == code
    logs = [log.read_text().splitlines()[-1] for log in tmp_path.glob("runs/.sweeps/*/*.log")]
    assert logs == ["saved", "saved"]
    if number == signal.SIGINT:
        assert "hashbench: stopped; 0 of 3 runs are done; repeat the command" in done.err


def test_a_process_whose_run_is_carried_out_elsewhere_gives_way(
    fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, plugin: Path, tmp_path: Path
) -> None:
    """Both have just started; the place is free for the next run, and the first one comes last."""
    monkeypatch.setattr(fan_out, "POLL_S", 0)
    (source,) = plugin.parent.glob("finished/*/*/*/tiny*seed0*")
    with other_process(claim := tmp_path / "claim") as process:
        sleep, say, said = time.sleep, fan_out.info, list[str]()

        def heard(text: str) -> None:
            said.append(text)
            say(text)

        def moved(_: float) -> None:
            sleep(0.01)
            if claim.exists():  # the first process has been started
                claim.rename(tmp_path / "runs/.claims" / source.name)
            elif process.poll() is None and any(text.startswith("waiting for what") for text in said):
                target = tmp_path / "runs" / source.relative_to(plugin.parent / "finished")
                shutil.copytree(source, target)
                process.kill()
                process.wait()

        (tmp_path / "runs/.claims").mkdir(parents=True)
        monkeypatch.setattr(fan_out.time, "sleep", moved)
        monkeypatch.setattr(fan_out, "info", heard)
        done = fake("wait", "done", options=["--launcher", "local"])
    assert done.code == 0, done.err
    shown = [line.split(": ")[1] for line in done.err.splitlines() if line.startswith("hashbench: [")]
    assert [line[:5] for line in shown] == ["[2/2]", "[1/2]"]
    assert done.err.count("waiting for what other processes carry out: ") == 1
    assert seeds(tmp_path) == [0, 1]
    assert not (tmp_path / "runs/.sweeps").exists()


def test_a_terminal_shows_a_table(
    fake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        local, "Console", lambda **options: Console(force_terminal=True, width=120, **options)
    )
    done = fake("done", "3")
    assert done.code == 1
    table = done.err[done.err.rindex("state") :].splitlines()
    failed, finished = (line for line in table if line.startswith("tiny"))
    assert "seed 1  failed" in failed
    assert "what went wrong (exit code 3" in failed
    assert "seed 0  done" in finished
    assert "mAP@5 0." in finished


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "2"], "--jobs needs --launcher local"),
        (["--gpus", "0"], "--gpus needs --launcher local"),
        (["--launcher", "local", "--gpus", "0", "--device", "cpu"], "--gpus: the runs use the CPU; leave it"),
        ([*LOCAL, "--gpus=0", "--device=cpu", "--dry-run"], "--gpus: the runs use the CPU; leave it"),
        (
            ["--launcher", "local", "--device", "cuda:1"],
            "--launcher chooses the GPU of each run; use --device",
        ),
    ],
)
def test_wrong_use(command: Callable[..., Any], options: list[str], message: str) -> None:
    done = command(*options)
    assert done.code == 2
    assert f"hashbench: error: {message}" in done.err


def test_a_launcher_is_not_started_by_torchrun(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert command(*LOCAL).code == 2


def test_processes_share_gpus_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "cores", lambda: 9)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    def places(*arguments: Any) -> list[tuple[str | None, str]]:
        found = slots(*arguments)
        assert all(place["NUMBA_NUM_THREADS"] == place["OMP_NUM_THREADS"] for place in found)
        return [(place.get("CUDA_VISIBLE_DEVICES"), place["OMP_NUM_THREADS"]) for place in found]

    assert places(None, None, "cpu") == [(None, "9")]
    assert places(2, None, "cpu") == [(None, "4")] * 2
    assert places(20, None, "cpu") == [(None, "1")] * 20
    assert places(None, None, "cuda") == [("0", "3"), ("1", "3"), ("2", "3")]
    assert places(None, [2, 0], "cuda") == [("2", "4"), ("0", "4")]
    assert places(3, [2, 0], "cuda") == [("2", "3"), ("0", "3"), ("2", "3")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7,6")
    assert places(1, [1], "cuda") == [("GPU-7", "9")]
    with pytest.raises(UsageError, match="torch sees 3 GPUs, from 0 to 2, got 3"):
        slots(1, [0, 3], "cuda")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert slots(2, None, "cpu") == [{"NUMBA_NUM_THREADS": "4", LAUNCHED: "1"}] * 2


def test_a_child_gets_the_options_of_the_command(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []

    made = Grid.process_command

    def process_command(*arguments: Any) -> list[str]:
        given.append(made(*arguments))
        raise HashbenchError("enough")

    monkeypatch.setattr(Grid, "process_command", process_command)
    options = ["--resume", "--accept-stale", "--force", "--save-every=7", "--profile=2", "--workers=1"]
    assert command(*LOCAL, *options, "--name=mine").code == 1
    (words,) = given
    assert words[:4] == [sys.executable, "-m", "hashbench", "run"]
    assert {"--resume", "--accept-stale", "--force"} <= {*words}
    values = {
        word: words[words.index(word) + 1] for word in words if word.startswith("--") and word != words[-1]
    }
    expected = {"--save-every": "7.0", "--profile": "2", "--workers": "1", "--name": "mine", "--seed": "0"}
    assert json.loads(json.dumps(values)) | expected == values
