"""Experiment trackers: what they receive, over a stop and a resume, and what happens if one fails."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import accelerate.tracking
import numpy as np
import pytest
import torch
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from helpers.configs import run_config
from helpers.toy_plugin import run_toy, toy_plugin
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hashbench import ArrayImages, HashbenchError, HashMethod, read_results
from hashbench.config import flatten
from hashbench.experiment.run import Run
from hashbench.experiment.weights import build_method
from hashbench.results.record import LOG, RECORD
from hashbench.training.options import RunOptions
from hashbench.training.tracking import Trackers
from hashbench.training.trainer import Trainer, train

STEPS = 24  # of the toy method on the protocol "long": 4 epochs of 6
IMAGES = ArrayImages(np.full((22, 16, 16, 3), 99, dtype=np.uint8), [f"i{n}" for n in range(22)])
Logged = list[tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def toy(tmp_path: Path) -> Iterator[Path]:
    with toy_plugin(tmp_path) as plugin:
        yield plugin


class Memory(GeneralTracker):
    """A tracker that keeps what it receives, and sets seeds when it starts, as ClearML does."""

    name = "memory"
    requires_logging_directory = False
    tracker = None
    logged: ClassVar[Logged] = []
    finished: ClassVar[list[str]] = []

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def start(self) -> None:
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        print("tracking")  # noqa: T201

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        assert step is not None
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished.append(self.title)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> type[Memory]:
    """Register the tracker "memory" for a test."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "memory", Memory)
    monkeypatch.setattr(Memory, "logged", [])
    monkeypatch.setattr(Memory, "finished", [])
    return Memory


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """Return the metrics, the health and the timing of a record, by the names that trackers receive."""
    sections = flatten({name: record[name] for name in ("metrics", "health", "timing")})
    renamed = {
        key.replace(".", "/").replace("@", "_").replace("H<=", "H_"): sections[key] for key in sections
    }
    return {key: value for key, value in renamed.items() if isinstance(value, (int, float))}


def stopped_and_resumed(results: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Let a run die at step 15, and continue it from its checkpoint of step 5."""
    step = Trainer._step

    def dies(self: Any, *arguments: Any) -> None:
        if self.state.step == 15:
            raise HashbenchError("the machine is gone")
        step(self, *arguments)

    def saves(self: Any) -> None:
        if self.state.step == 5:
            self._save()

    options = RunOptions(resume=True, track=("tensorboard",))
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", dies)
        patched.setattr(Trainer, "_save_if_due", saves)
        with pytest.raises(HashbenchError, match="gone"):
            run_toy(results, "long", "selection=best-val", execution=options)
    return run_toy(results, "long", "selection=best-val", execution=options)


def test_tensorboard_has_each_value_once_over_a_stop_and_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 10 is trained and logged twice, and so is the validation at step 5."""
    run = stopped_and_resumed(tmp_path / "runs", monkeypatch)
    assert run.record.resumed == 1
    logged = tmp_path / "runs/tracking" / run.record.run_id
    events = EventAccumulator(str(logged)).Reload()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    steps = [entry for entry in lines(run.folder) if "lr" in entry]
    validations = [entry for entry in lines(run.folder) if "lr" not in entry]
    assert [entry["step"] for entry in steps] == list(range(STEPS))
    for key in ("loss", "lr"):
        assert found.pop(key) == [(number, np.float32(steps[number][key])) for number in (0, 10, 20)]
    expected = [(entry["step"], np.float32(entry["validation mAP@5"])) for entry in validations]
    assert found.pop("validation_mAP_5") == expected
    assert [number for number, _ in expected] == [5, 11, 17, 23]
    [(number, speed)] = found.pop("images_per_second")
    assert number == 20
    assert speed > 0
    for key in ("seconds", "epoch"):
        assert [number for number, _ in found.pop(key)] == [0, 5, 10, 11, 17, 20, 23]
    record = json.loads((run.folder / RECORD).read_text())
    assert found == {key: [(STEPS, np.float32(value))] for key, value in numbers(record).items()}
    [text] = events.Tensors("record/text_summary")
    assert json.loads(text.tensor_proto.string_val[0]).items() <= record.items()
    settings = yaml.safe_load(sorted(logged.glob("*/hparams.yml"))[0].read_text())
    assert settings["training.batch_size"] == 8
    assert settings.keys() == flatten(record["config"]).keys()


def test_the_files_of_trackers_are_no_results(tmp_path: Path) -> None:
    results = tmp_path / "runs"
    plain, tracked = (
        run_toy(tmp_path / name, "short", execution=RunOptions(track=track))
        for name, track in (("plain", ()), ("runs", ("tensorboard",)))
    )
    assert tracked.record.run_id == plain.record.run_id
    assert {path.name for path in tracked.folder.iterdir()} == {path.name for path in plain.folder.iterdir()}
    assert (tracked.folder / "codes.npz").read_bytes() == (plain.folder / "codes.npz").read_bytes()
    assert {path.name for path in results.iterdir()} == {"toy@short", "tracking", ".claims"}
    assert len(read_results(results)) == 1
    assert [path.name for path in results.glob("tracking/*")] == [tracked.record.run_id]


def trained(folder: Path, *track: str) -> HashMethod:
    """Train a network with dropout for 11 steps."""
    config = run_config(
        bits=8,
        backbone={"name": "test_vit", "options": {"proj_drop_rate": 0.5}},
        images={"size": 16},
        training={"epochs": 1, "batch_size": 2, "precision": "float32"},
    )
    method = build_method(config)
    with Trackers(track, folder, "name") as trackers:
        train(method, IMAGES, config, folder, trackers=trackers)
    return method


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> HashMethod:
    return trained(tmp_path_factory.mktemp("untracked"))


@pytest.mark.parametrize("failing", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_dropped_and_changes_no_weight(
    tmp_path: Path,
    untracked: HashMethod,
    memory: type[Memory],
    failing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("no network")

    broken = type("Broken", (Memory,), {"name": "broken", failing: fails})
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "broken", broken)
    found = trained(tmp_path, "broken", "memory").state_dict()
    for name, weight in untracked.state_dict().items():
        assert torch.equal(weight, found[name]), name
    streams = capsys.readouterr()
    assert streams.err.count("warning:") == 1
    assert "the tracker broken failed and is not used any more in this run: no network" in streams.err
    assert "tracking" not in streams.out  # the command may print JSON there
    of_one = [(step, values["loss"]) for step, values in memory.logged]
    assert [step for step, _ in of_one] == ([0, 0, 10, 10] if failing == "finish" else [0, 10])
    assert memory.finished == ["name"]


def test_a_fitted_method_logs_its_metrics_only(tmp_path: Path, memory: type[Memory]) -> None:
    network = ("backbone=test_resnet", "pretrained=false", "images.size=16")
    options = RunOptions(track=("memory",))
    run = run_toy(tmp_path / "runs", "short", *network, method="itq", execution=options)
    record = json.loads((run.folder / RECORD).read_text())
    (first, values), (second, text) = memory.logged
    assert (first, second) == (0, 0)
    assert values == numbers(record)
    assert text.keys() == {"record"}
    assert memory.finished == [run.record.run_id]


def test_only_the_main_process_tracks(memory: type[Memory], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with Trackers(("memory",), Path("tracking"), "name") as trackers:
        trackers.start(run_config(), 0)
        trackers.write({"step": 0, "loss": 1.0})
    assert memory.logged == memory.finished == []


def test_trackers_are_checked_before_anything_is_trained(
    cli: Callable[..., Any], toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", [])
    command = ("run", "--plugin", toy, "--method", "tiny", "--dataset", "toy", "--bits", "8")
    unknown = cli(*command, "--track", "tensorbord")
    assert (unknown.code, unknown.err) == (
        2, "hashbench: error: unknown tracker 'tensorbord'; did you mean 'tensorboard'?\n"
    )  # fmt: skip
    missing = cli(*command, "--track", "wandb,mlflow")
    assert (missing.code, missing.err) == (
        2, "hashbench: error: --track wandb: wandb is not installed; pip install wandb\n"
    )  # fmt: skip
    assert cli(*command, "--track", "").code == 2
    assert not Path("results").exists()


def test_the_command_line_tracks(cli: Callable[..., Any], toy: Path, memory: type[Memory]) -> None:
    """The commands of a plan for a scheduler include the trackers."""
    command = ("run", "--plugin", toy, "--method", "tiny", "--dataset", "toy", "--protocol", "short")
    short = ("--bits", "8", "--device", "cpu", "--set", "epochs=1", "--json")
    [planned] = json.loads(cli(*command, *short, "--track", "memory", "--dry-run").out)
    assert planned["command"][-2:] == ["--track", "memory"]
    [record] = json.loads(cli(*planned["command"][1:], "--json").out)
    assert memory.finished == [record["run_id"]]
    assert [step for step, _ in memory.logged] == [0, 3, 3]
