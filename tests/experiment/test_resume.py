"""Stopped runs can be resumed and give the same results as uninterrupted ones."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkpoints import flip, saved
from helpers.configs import run_config
from helpers.forked import run_forked
from helpers.killed_runs import stop_and_go
from helpers.owning_process import other_process
from safetensors.torch import load_file

import hashbench
from hashbench import ArrayImages, HashbenchError, HashMethod, UsageError
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.encoding.encode import encode
from hashbench.experiment.configure import configure
from hashbench.experiment.identity import identity_of, source_of
from hashbench.experiment.resume import require_same_settings
from hashbench.experiment.weights import build_method, save_weights
from hashbench.results.folders import new_run_folder, stopped_runs
from hashbench.results.record import IDENTITY, LOG, STATES, run_folder, run_id_of
from hashbench.runtime import preemption
from hashbench.runtime.locking import LOCK
from hashbench.runtime.preemption import PreemptionError, stoppable
from hashbench.training import trainer
from hashbench.training.checkpoints import last_step, save_checkpoint
from hashbench.training.options import RunOptions, TrainingSummary
from hashbench.training.trainer import train

IMAGES = ArrayImages(
    np.random.RandomState(0).randint(0, 256, (12, 32, 32, 3), dtype=np.uint8), [f"i{n}" for n in range(12)]
)
FAST = [
    "--set=backbone=test_resnet",
    "--set=pretrained=false",
    "--set=images.size=16",
    "--set=batch_size=25",
]


def config(**changes: Any) -> RunConfig:
    """Return the configuration of a run of 9 steps, 3 per epoch, with dropout."""
    return run_config(
        changes,
        bits=8,
        backbone={"name": "test_vit", "options": {"proj_drop_rate": 0.5}},
        views={"crop_scale": (0.5, 1.0), "horizontal_flip": 0.5},
        training={"epochs": 3, "batch_size": 5, "precision": "float32"},
    )


def log(folder: Path) -> list[dict[str, Any]]:
    """Read a log without its times."""
    entries = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


def terminate(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def _mean_weight(method: HashMethod) -> float:
    return float(next(method.parameters()).detach().mean())


def trained(
    folder: Path, run: RunConfig, stop_at: int | None = None, workers: int = 0
) -> tuple[HashMethod, TrainingSummary]:
    """Train or resume a method; send SIGTERM in the middle of the step `stop_at`, counted from here."""
    folder.mkdir(exist_ok=True)
    method = build_method(run)
    name = "feature_losses" if hasattr(method, "feature_losses") else "training_losses"
    losses, step = getattr(method, name), count()

    def disturbed(*inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        if next(step) == stop_at:
            terminate()
        return losses(*inputs)

    setattr(method, name, disturbed)
    score = None if run.selection.name == "last" else _mean_weight
    with stoppable():
        done = train(method, IMAGES, run, folder, RunOptions(workers=workers, resume=True), score)
    return method, done


def assert_same_run(one: Path, other: Path, run: RunConfig, *stops: int, workers: int = 0) -> None:
    """Stop and resume a run in these steps, each counted from the last stop; compare it with a whole run."""
    expected, undisturbed = trained(one, run)
    for stop in stops:
        with pytest.raises(
            PreemptionError, match=r"^stopped by SIGTERM after step \d+; .*--resume continues"
        ):
            trained(other, run, stop, workers)
    found, done = trained(other, run, workers=workers)
    for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert log(one) == log(other)
    assert (undisturbed.resumed, done.resumed) == (0, len(stops))
    assert done.selected == undisturbed.selected


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"name": "adam", "lr": 0.01}, "schedule": {"name": "one_cycle"}},
        {
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "backbone_lr": 0.001},
            "schedule": {"name": "step", "step_epochs": 1},
            "training": {"gradient_clip": 0.5},
        },
        {
            "optimizer": {"name": "adamw", "lr": 0.01},
            "schedule": {"name": "cosine"},
            "training": {"accumulate": 2},
        },
        {"selection": {"name": "best-val", "validation": 2, "patience": 2}, "training": {"epochs": 9}},
        {
            "method": "spq",
            "backbone": {"options": {}},
            "training": {"freeze_backbone": True},
            "views": {"crop_scale": (1.0, 1.0), "horizontal_flip": 0},
        },
        {"backbone": {"name": "test_resnet", "options": {}}, "training": {"precision": "bfloat16"}},
    ],
    ids=["one_cycle", "step", "accumulate", "selection", "features", "batch_norm"],
)
def test_a_run_that_was_stopped_has_the_same_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The stops are in the middle of an epoch and in its first and last step."""
    assert_same_run(tmp_path / "one", tmp_path / "other", config(**changes), 1, 1, 2)


def test_workers_start_where_an_epoch_was_left(tmp_path: Path) -> None:
    assert_same_run(tmp_path / "one", tmp_path / "other", config(), 1, workers=2)


def test_a_run_of_one_step(tmp_path: Path) -> None:
    single = {"epochs": 1, "batch_size": 12}
    assert_same_run(tmp_path / "one", tmp_path / "other", config(training=single), 0)


def test_a_stop_waits_for_the_step_of_the_optimizer(tmp_path: Path) -> None:
    with pytest.raises(PreemptionError, match="after step 2;"):
        trained(tmp_path, config(training={"accumulate": 2}), 0)
    assert last_step(tmp_path / STATES) == 2


def test_a_stop_in_the_last_save_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that takes back a machine does not wait for the end of a run."""

    def stopped(*arguments: Any) -> None:
        save_checkpoint(*arguments)
        terminate()

    monkeypatch.setattr(trainer, "save_checkpoint", stopped)
    with pytest.raises(PreemptionError):
        trained(tmp_path, config())
    assert last_step(tmp_path / STATES) == 9


@pytest.mark.parametrize("within", [True, False])
def test_a_loader_that_sigterm_ends_leaves_a_whole_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    """Torch may raise the error between two steps, or between the updates of the weights and of the count."""
    step, steps = trainer.Trainer._step, count()

    def disturbed(self: Any, *arguments: Any) -> None:
        fifth = next(steps) == 4
        if fifth and within:
            monkeypatch.setattr(self.optimizer, "zero_grad", ended)
        elif fifth:
            ended()
        step(self, *arguments)

    def ended() -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")

    run, one, other = config(), tmp_path / "one", tmp_path / "other"
    expected, _ = trained(one, run)
    monkeypatch.setattr(trainer.Trainer, "_step", disturbed)
    with pytest.raises(PreemptionError):
        trained(other, run)
    assert last_step(other / STATES) == (None if within else 4)
    monkeypatch.setattr(trainer.Trainer, "_step", step)
    found, _ = trained(other, run)
    for (name, a), b in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_sigterm_at_the_end_of_an_epoch_saves_before_the_look(tmp_path: Path) -> None:
    run = config(selection={"name": "best-on-query"})
    method = build_method(run)
    folder = tmp_path / "run"
    folder.mkdir()
    saved_at: list[int | None] = []

    def look(method: HashMethod) -> float:
        saved_at.append(last_step(folder / STATES))
        return _mean_weight(method)

    with stoppable(), pytest.raises(PreemptionError):
        losses, step = method.training_losses, count()

        def disturbed(*views: torch.Tensor) -> dict[str, torch.Tensor]:
            if next(step) == 2:  # the last of the first epoch
                terminate()
            return losses(*views)

        method.training_losses = disturbed  # type: ignore[method-assign]
        train(method, IMAGES, run, folder, score=look)
    assert saved_at == []
    train(build_method(run), IMAGES, run, folder, RunOptions(resume=True), look)
    assert saved_at == [3, 3, 3]  # the look of the first epoch is made up for


def test_a_finished_training_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = config(selection={"name": "best-val", "validation": 2})
    expected, first = trained(tmp_path, run)
    before = log(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "_step", None)
        found, again = trained(tmp_path, run)
    for a, b in zip(expected.state_dict().values(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert log(tmp_path) == before
    assert again.resumed == 1
    assert again.selected == first.selected
    assert again.images_per_second == first.images_per_second


def test_a_damaged_state_costs_the_steps_since_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, _ = trained(tmp_path / "one", config())
    for stop in (1, 2):
        with pytest.raises(PreemptionError):
            trained(tmp_path / "other", config(), stop)
    flip(max((tmp_path / "other" / STATES).glob("*.pt")))
    capsys.readouterr()
    found, done = trained(tmp_path / "other", config())
    assert "step000000005" in capsys.readouterr().err
    assert done.resumed == 1
    assert log(tmp_path / "one") == log(tmp_path / "other")
    for a, b in zip(expected.state_dict().values(), found.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [None, 0, 100])
def test_a_log_that_was_shortened_is_said(tmp_path: Path, size: int | None) -> None:
    with pytest.raises(PreemptionError):
        trained(tmp_path, config(), 2)
    path = tmp_path / LOG
    content = path.read_bytes()
    path.unlink() if size is None else os.truncate(path, size)
    message = rf"log\.jsonl: expected at least [\d,]+ bytes, .*, got {size or 0};"
    with pytest.raises(HashbenchError, match=message):
        trained(tmp_path, config())
    path.write_bytes(content)
    _, done = trained(tmp_path, config())
    assert done.resumed == 1
    assert [entry["step"] for entry in log(tmp_path)] == list(range(9))


def test_a_full_disk_stops_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PreemptionError):
        trained(tmp_path, config(), 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    capsys.readouterr()
    trained(tmp_path, config())
    expected = f"the checkpoint of step 9 cannot be saved in {tmp_path / STATES} (No space left on device)"
    assert f"hashbench: warning: {expected}; the run continues" in capsys.readouterr().err
    assert [entry["step"] for entry in log(tmp_path)] == list(range(9))
    assert last_step(tmp_path / STATES) == 2


def test_a_log_ends_where_its_state_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes a run that is stopped again before its next step."""
    trained(tmp_path / "one", config())
    other = tmp_path / "other"
    with pytest.raises(PreemptionError):
        trained(other, config(), 2)  # an epoch is over, but for its end
    with (other / LOG).open("a") as later:
        later.write('{"step": 3}\n')  # as a process that was killed, and saved no state of it
    monkeypatch.setattr(preemption, "requested", lambda: True)
    with pytest.raises(PreemptionError):
        trained(other, config())
    monkeypatch.undo()
    length = (other / LOG).stat().st_size
    for path in (other / STATES).glob("*.pt"):
        assert torch.load(path, weights_only=True)["progress"]["log_bytes"] <= length
    trained(other, config())
    assert log(tmp_path / "one") == log(other)


def test_a_method_that_is_fitted_has_no_states(tmp_path: Path) -> None:
    run = config(method="itq", training={"freeze_backbone": True})
    done = train(build_method(run), IMAGES, run, tmp_path, RunOptions(resume=True, save_every=0))
    assert done.resumed == 0
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


# SIGTERM and SIGHUP


@pytest.mark.parametrize("number", preemption.SIGNALS)
def test_a_signal_is_an_error_of_its_own_while_a_run_goes_on(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    message = f"stopped by {number.name}; the same command with --resume"
    with pytest.raises(PreemptionError, match=message) as caught, stoppable():
        assert not preemption.requested()
        terminate(number)
        time.sleep(1)
    assert caught.value.exit_code == 75
    assert isinstance(caught.value, HashbenchError)
    assert signal.getsignal(number) == before
    assert not preemption.requested()  # of the next run


hangup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")


@hangup
def test_sighup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            terminate(signal.SIGHUP)
            assert not preemption.requested()
    finally:
        signal.signal(signal.SIGHUP, before)


@hangup
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
def test_sighup_ends_no_process_that_loads_images() -> None:
    with stoppable():
        if not (process := os.fork()):
            terminate(signal.SIGHUP)
            os._exit(preemption.requested())
        assert os.waitpid(process, 0)[1] == 0


def test_sigterm_waits_for_a_step() -> None:
    with stoppable():
        with pytest.raises(PreemptionError), preemption.at_a_step():
            assert not preemption.requested()
            terminate()
            assert preemption.requested()
            raise PreemptionError("where it is asked for")
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
    assert not preemption.requested()
    with pytest.raises(PreemptionError), stoppable():
        terminate()  # it waits no longer


def test_processes_that_end_by_the_same_sigterm_disturb_no_step() -> None:
    def unheard(_signal: int, _frame: Any) -> None:  # as torch tells of a loader's process
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated. ")

    before = signal.signal(signal.SIGCHLD, unheard)
    try:
        with pytest.raises(PreemptionError), stoppable(), preemption.at_a_step():
            terminate()
            os.kill(os.getpid(), signal.SIGCHLD)
            assert preemption.requested()
        assert signal.getsignal(signal.SIGCHLD) is unheard
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_failure_puts_the_handler_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), stoppable():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_in_a_thread_leaves_signals_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with stoppable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


class _Unheard:
    """An object whose deletion receives a signal; Python prints errors there and continues."""

    def __del__(self) -> None:
        terminate()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sigterm_at_an_unlucky_moment_is_obeyed_soon() -> None:
    run = config()
    method = build_method(run)
    with pytest.raises(PreemptionError), stoppable():
        unheard = _Unheard()
        del unheard
        encode(method, IMAGES, run, workers=0, task="t")


# Folders


def stopped_folder(final: Path, suffix: str, *steps: int, age: float = 0) -> Path:
    folder = final.with_name(f".{final.name}.{suffix}")
    (folder / STATES).mkdir(parents=True)
    saved(folder / STATES, *steps)
    for path in (folder / STATES, folder):
        os.utime(path, (time.time() - age,) * 2)
    return folder


def test_the_newest_folder_with_a_state_goes_on(tmp_path: Path) -> None:
    final = tmp_path / "run"
    old, new = stopped_folder(final, "00000000", 9, age=90), stopped_folder(final, "11111111", 3, age=30)
    stopped_folder(final, "22222222")  # has no state
    stopped_folder(tmp_path / "run2", "33333333", 4)
    assert stopped_runs(final) == [new, old]
    with pytest.raises(ZeroDivisionError), new_run_folder(final) as partial:
        assert list(partial.glob("[!.]*")) == []  # a new one, since nobody wants it to go on
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), new_run_folder(final, resume=True) as partial:
        assert partial == new
        raise ZeroDivisionError
    with new_run_folder(final, resume=True) as partial:
        assert partial == new  # that it failed changes nothing
        (partial / "log.jsonl").write_text("")
    assert [path.name for path in final.iterdir()] == ["log.jsonl"]
    assert stopped_runs(final) == []  # the run is done


def test_a_run_without_a_state_starts_anew(tmp_path: Path) -> None:
    final = tmp_path / "results" / "run"
    with new_run_folder(final, resume=True) as partial:
        assert list(partial.glob("[!.]*")) == []
    assert list(final.iterdir()) == []


def test_a_run_that_was_stopped_long_ago_goes_on(tmp_path: Path) -> None:
    old = stopped_folder(tmp_path / "run", "00000000", 9, age=30 * 24 * 3600)
    with new_run_folder(tmp_path / "run", resume=True) as partial:
        assert partial == old
        assert last_step(partial / STATES) == 9


def test_a_run_that_goes_on_elsewhere_is_left_alone(tmp_path: Path) -> None:
    folder = stopped_folder(tmp_path / "run", "00000000", 9)
    with (
        other_process(folder / LOCK),
        pytest.raises(HashbenchError, match=f"^{folder} is in use by another process; wait until"),
        new_run_folder(tmp_path / "run", resume=True),
    ):
        pass
    assert last_step(folder / STATES) == 9
    with new_run_folder(tmp_path / "run", resume=True) as partial:
        assert partial == folder


# Settings


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return hashbench.load_dataset("digits")


def planned(digits: Dataset, *settings: str, seed: int = 0) -> tuple[RunConfig, Dataset]:
    fast = [setting.removeprefix("--set=") for setting in FAST]
    run = configure("wch", digits, bits=16, seed=seed, device="cpu", settings=[*fast, *settings])
    return run, digits


def final_of(results: Path, run: RunConfig, digits: Dataset) -> Path:
    run_id = run_id_of(identity_of(run, digits, source_of(run)))
    return run_folder(results, run.dataset, run.protocol, run.method, run.bits, run_id)


def leave_stopped(results: Path, run: RunConfig, digits: Dataset, **code: str) -> Path:
    folder = stopped_folder(final_of(results, run, digits), "0123abcd", 3)
    identity = identity_of(run, digits, source_of(run))
    (folder / STATES / IDENTITY).write_text(json.dumps({**identity, **code}))
    return folder


def test_other_settings_are_refused_and_named(tmp_path: Path, digits: Dataset) -> None:
    folder = leave_stopped(tmp_path, *planned(digits, "epochs=3"))
    require_same_settings([planned(digits, "epochs=3")], tmp_path)
    changed = [planned(digits, "epochs=4", "gradient_clip=1")]
    found = "training.epochs was 3 and is 4, training.gradient_clip was None and is 1.0"
    message = f"the run that was stopped in {folder} had other settings: {found}; restore them, start"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        require_same_settings(changed, tmp_path)
    require_same_settings(changed, tmp_path / "elsewhere")
    leave_stopped(tmp_path, *changed[0])
    require_same_settings(changed, tmp_path)  # both were stopped, and each goes on


def test_other_code_is_refused(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = [planned(digits)]
    source = source_of(plan[0][0])
    leave_stopped(tmp_path, *plan[0])
    monkeypatch.setattr("hashbench.experiment.resume.source_of", lambda _: "edited")
    with pytest.raises(UsageError, match=f"had other settings: code was {source} and is edited; restore"):
        require_same_settings(plan, tmp_path)


def test_many_differences_are_not_all_named(tmp_path: Path, digits: Dataset) -> None:
    leave_stopped(tmp_path, *planned(digits))
    other = (
        "epochs=99",
        "lr=0.5",
        "drop_last=true",
        "accumulate=2",
        "grayscale=0.1",
        "blur=0.1",
        "momentum=0.5",
    )
    with pytest.raises(UsageError, match=r"was .* was .* was .* was .* was .* was .* and 1 more; ") as caught:
        require_same_settings([planned(digits, *other)], tmp_path)
    assert str(caught.value).count(" was ") == 6 + 1  # and "that was stopped"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"config": {}}', '{"config": null}'])
def test_a_folder_whose_run_is_not_known_is_in_nobodys_way(
    tmp_path: Path, digits: Dataset, damage: str
) -> None:
    folder = leave_stopped(tmp_path, *planned(digits, "epochs=3"))
    (folder / STATES / IDENTITY).write_text(damage)
    require_same_settings([planned(digits)], tmp_path)


def test_what_the_same_command_left_is_not_refused(tmp_path: Path, digits: Dataset) -> None:
    """The same command has runs with other seeds and settings."""
    plan = [planned(digits), planned(digits, "balance=false"), planned(digits, seed=1)]
    require_same_settings(plan, tmp_path)
    leave_stopped(tmp_path, *plan[1])
    require_same_settings(plan, tmp_path)
    leave_stopped(tmp_path, *planned(digits, "epochs=3", seed=2))
    require_same_settings(plan, tmp_path)
    no_state = leave_stopped(tmp_path, *planned(digits, "epochs=4"))
    for path in (no_state / STATES).glob("*.pt"):
        path.unlink()
    require_same_settings(plan, tmp_path)
    leave_stopped(tmp_path, *planned(digits, "epochs=3", seed=1))
    with pytest.raises(UsageError, match="training.epochs was 3 and is 10; "):
        require_same_settings(plan, tmp_path)


# Commands


@pytest.fixture
def stopped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGHUP in the fourth step of all runs."""
    step, steps = trainer.Trainer._step, count()

    def disturbed(self: Any, *arguments: Any) -> None:
        if next(steps) == 3:
            terminate(signal.SIGHUP)
        step(self, *arguments)

    monkeypatch.setattr(trainer.Trainer, "_step", disturbed)


@hangup
@pytest.mark.usefixtures("stopped_once", "small_digits")
def test_a_command_goes_on_with_the_same_settings_alone(cli: Callable[..., Any], tmp_path: Path) -> None:
    command = ["run", "--method", "wch", "--dataset", "digits", "--bits", "16", *FAST]
    stopped = cli(*command, "--set", "epochs=2", "--resume")
    assert stopped.code == 75
    assert stopped.err.splitlines()[-1] == (
        "hashbench: error: stopped by SIGHUP after step 4; the same command with --resume continues "
        "from the last checkpoint"
    )
    refused = cli(*command, "--set", "epochs=3", "--resume")
    assert refused.code == 2
    (line,) = refused.err.splitlines()
    assert "training.epochs was 2 and is 3; restore them, start from the beginning without --resume" in line
    done = cli(*command, "--set", "epochs=2", "--resume", "--json")
    assert done.code == 0, done.err
    (shown,) = json.loads(done.out)
    assert shown["resumed"] == 1
    assert [entry["step"] for entry in log(Path(shown["folder"]))] == list(range(8))
    assert not list(tmp_path.rglob(f"results/**/{STATES}"))
    assert not list(tmp_path.glob("results/runs/*/*/*/.*"))


@hangup
@pytest.mark.usefixtures("stopped_once", "small_digits")
def test_the_command_resumes_a_run_that_was_stopped_long_ago(cli: Callable[..., Any], tmp_path: Path) -> None:
    command = ["run", "--method", "wch", "--dataset", "digits", "--bits", "16", *FAST]
    command += ["--set", "epochs=2", "--resume", "--json"]
    assert cli(*command).code == 75
    (stopped,) = tmp_path.glob("results/runs/*/*/*/.*")
    for path in (*stopped.iterdir(), stopped):
        os.utime(path, (0, 0))
    done = cli(*command)
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["resumed"] == 1


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
def test_a_run_that_is_killed_again_and_again_gives_the_same(tmp_path: Path) -> None:
    run_forked(stop_and_go, tmp_path)
    ends = json.loads((tmp_path / "ends.json").read_text())
    killed = -int(signal.SIGKILL)
    assert [end["code"] for end in ends] == [killed, killed, 75, killed, killed, 0, 0]
    assert re.fullmatch(
        r"hashbench: error: stopped by SIGTERM after step \d+; the same command with --resume continues .*",
        ends[2]["said"].splitlines()[-1],
    )
    assert 0 < ends[1]["step"] < ends[2]["step"] < ends[3]["step"] < 24
    assert "queries: " in ends[4]["said"]
    assert "database: " not in ends[4]["said"]
    for end in ends:
        assert "damaged" not in end["said"]
        assert "Traceback" not in end["said"]

    stopped, whole = (
        next(path.parent for path in (tmp_path / name).glob("*/*/*/[!.]*/record.json"))
        for name in ("stopped", "whole")
    )
    assert stopped.name == whole.name
    assert {path.name for path in stopped.iterdir()} == {path.name for path in whole.iterdir()}
    for name in ("codes.npz", "queries.npz"):
        one, other = arrays(stopped / name), arrays(whole / name)
        assert one.keys() == other.keys()
        for key, array in one.items():
            np.testing.assert_array_equal(array, other[key], err_msg=f"{name} {key}")
    weights = load_file(stopped / "model.safetensors"), load_file(whole / "model.safetensors")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    assert (stopped / "curves.csv").read_bytes() == (whole / "curves.csv").read_bytes()
    assert log(stopped) == log(whole)
    records = hashbench.read_record(stopped), hashbench.read_record(whole)
    assert [record.resumed for record in records] == [4, 0]
    assert records[0].metrics == records[1].metrics
    hidden = [*stopped.parent.glob(".*")]  # of the process that was killed before it had a state
    assert not [state for folder in hidden for state in folder.rglob("*.pt")]


def test_weights_are_written_into_their_file_only(tmp_path: Path) -> None:
    """A temporary file beside it would stay in the folder of a run that is killed just then and resumed."""
    target = tmp_path / "elsewhere"
    target.touch()
    path = tmp_path / "model.safetensors"
    path.symlink_to(target)  # which a renamed temporary file would replace
    method = build_method(config())
    save_weights(path, method, config())
    assert path.is_symlink()
    assert load_file(target).keys() == method.state_dict().keys()
