"""Tests of options of the trainer: accumulation, compilation, precision, views on the device, and errors."""

import gzip
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from PIL import Image
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import get_worker_info

from hashbench import ArrayImages, Backbone, FileImages, HashbenchError, HashMethod, UsageError
from hashbench.config import RunConfig
from hashbench.data.load import load_dataset
from hashbench.experiment.configure import configure
from hashbench.images.image_sets import Images
from hashbench.results.record import STATES, TRACE
from hashbench.training import trainer
from hashbench.training.dataloader import ViewBatches
from hashbench.training.loss_module import PendingLosses
from hashbench.training.options import DEFAULT, RunOptions, TrainingSummary
from hashbench.training.throughput import Meter
from hashbench.training.trainer import train

SIZE = 16
PIXELS = np.random.RandomState(0).randint(0, 256, (20, SIZE, SIZE, 3), dtype=np.uint8)
AUGMENTED = {"crop_scale": (0.5, 1.0), "horizontal_flip": 0.5}


def images(count: int) -> ArrayImages:
    return ArrayImages(PIXELS[:count], [f"i{n}" for n in range(count)])


def config(**changes: Any) -> RunConfig:
    """Return a configuration of plain gradient descent on batches of four, without augmentation."""
    return run_config(
        changes,
        method="plain",
        bits=4,
        images={"size": SIZE},
        optimizer={"name": "sgd", "lr": 0.5},
        training={"epochs": 1, "batch_size": 4, "precision": "float32"},
    )


class Plain(HashMethod):
    """A method whose loss is the mean over images, and which records its batches."""

    views = 1

    def __init__(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        super().__init__(Backbone(network, SIZE), 4, self.Hyperparameters())
        self.head = nn.Linear(4, 4)
        self.seen: list[Tensor] = []

    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        self.seen.append(views[0])
        loss = (self.encode(views[0]) - 1).square().mean()
        return {"loss": loss, "half": loss / 2}

    def encode(self, images: Tensor) -> Tensor:
        values: Tensor = self.head(self.backbone.pooled(images))
        return values


class Failing(Plain):
    """A method whose loss changes at a step."""

    def __init__(self, instead: Callable[[Tensor], Tensor], step: int = 0) -> None:
        super().__init__()
        self.instead, self.step = instead, step

    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        losses = super().training_losses(*views)
        return losses if len(self.seen) <= self.step else {"loss": self.instead(losses["loss"])}


def raising(error: Exception) -> Callable[[Tensor], Tensor]:
    def instead(_: Tensor) -> Tensor:
        raise error

    return instead


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def trained(folder: Path, count: int = 16, workers: int = 0, **changes: Any) -> Plain:
    method = Plain()
    train(method, images(count), config(**changes), folder, RunOptions(workers=workers))
    return method


def same(one: HashMethod, other: HashMethod, **tolerance: float) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, **(tolerance or {"rtol": 0, "atol": 0})) for a, b in pairs)


# accumulation


def test_two_accumulated_half_batches_are_one_step_of_a_batch(tmp_path: Path) -> None:
    whole = trained(tmp_path, training={"batch_size": 16})
    halves = trained(tmp_path, training={"batch_size": 8, "accumulate": 2})
    assert [len(batch) for batch in halves.seen] == [8, 8]
    assert torch.equal(torch.cat(halves.seen), whole.seen[0])
    assert same(halves, whole, rtol=1e-5, atol=1e-6)
    assert not same(halves, Plain(), rtol=1e-3, atol=1e-3)
    assert not same(trained(tmp_path, training={"batch_size": 8}), whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_last_batches_of_an_epoch_are_a_step(tmp_path: Path, clip: float | None) -> None:
    """Compare five batches per epoch, two per step, with six steps that are written out."""
    method = trained(
        tmp_path,
        count=20,
        schedule={"name": "one_cycle"},
        training={"epochs": 2, "accumulate": 2, "gradient_clip": clip},
    )
    expected = Plain()
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.5)
    schedule = OneCycleLR(optimizer, max_lr=0.5, total_steps=6, cycle_momentum=False)
    batches = iter(method.seen)
    log = []
    for together in (2, 2, 1) * 2:
        optimizer.zero_grad()
        for _ in range(together):
            loss = expected.training_losses(next(batches))["loss"]
            log.append((schedule.get_last_lr()[0], loss.item()))
            (loss / together).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(expected.parameters(), clip)
        optimizer.step()
        schedule.step()
    assert same(method, expected, rtol=1e-5, atol=1e-6)
    written = lines(tmp_path)
    assert [entry["step"] for entry in written] == list(range(10))  # a line a batch
    assert [entry["epoch"] for entry in written] == [0] * 5 + [1] * 5
    for (rate, value), entry in zip(log, written, strict=True):
        assert entry["lr"] == pytest.approx(rate)
        assert entry["loss"] == pytest.approx(value, rel=1e-4)
        assert entry["half"] == pytest.approx(value / 2, rel=1e-4)
    assert written[-1]["lr"] < 1e-4 < written[0]["lr"]  # it ended


# compilation and precision


def test_a_compiled_step_is_the_same_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile by a backend that only records its graphs, since a real one takes a minute."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    def compiled(module: nn.Module) -> None:
        module._compiled_call_impl = torch.compile(module._call_impl, backend=backend)

    monkeypatch.setattr(nn.Module, "compile", compiled)
    torch.compiler.reset()
    plain = trained(tmp_path)
    log = lines(tmp_path)
    assert not graphs
    method = trained(tmp_path, training={"compile": True})
    assert any("conv2d" in str(node.target) for graph in graphs for node in graph.graph.nodes)
    assert [entry["loss"] for entry in lines(tmp_path)] == pytest.approx([e["loss"] for e in log], rel=1e-4)
    assert same(method, plain, rtol=1e-4, atol=1e-5)
    assert method.state_dict().keys() == plain.state_dict().keys()


def test_float16_needs_a_gpu() -> None:
    with pytest.raises(
        UsageError, match="^precision=float16 needs a GPU; on a CPU choose float32 or bfloat16$"
    ):
        configure(
            "wch", load_dataset("digits"), bits=16, seed=0, device="cpu", settings=["precision=float16"]
        )


def test_only_the_forward_pass_is_in_bfloat16(tmp_path: Path) -> None:
    types = []

    class Typed(Plain):
        def encode(self, images: Tensor) -> Tensor:
            values = super().encode(images)
            types.append(values.dtype)
            return values

    method = Typed()
    train(method, images(16), config(training={"precision": "bfloat16"}), tmp_path)
    assert types == [torch.bfloat16] * 4
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
    assert same(method, trained(tmp_path), atol=0.02)
    assert not same(method, trained(tmp_path))


# views on the device


def test_views_on_the_device_depend_only_on_the_seed(tmp_path: Path) -> None:
    pytest.importorskip("kornia", minversion="0.9")
    views = {**AUGMENTED, "on_device": True}
    method = trained(tmp_path, views=views)
    assert len(method.seen) == 4
    assert all(batch.shape == (4, 3, SIZE, SIZE) and batch.dtype == torch.float32 for batch in method.seen)
    assert same(method, trained(tmp_path, views=views))
    assert same(method, trained(tmp_path, views=views, workers=2))
    assert not same(method, trained(tmp_path, views=views, seed=1))
    assert not same(method, trained(tmp_path, views=AUGMENTED))
    assert not method.state_dict().keys() - Plain().state_dict().keys()


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_stay_on_the_device_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    pytest.importorskip("kornia", minversion="0.9")
    changes: dict[str, Any] = {"views": {**AUGMENTED, "on_device": True}, "training": {"epochs": 2}}
    resident = trained(tmp_path, **changes, workers=workers)
    monkeypatch.setattr(trainer, "image_batches", ViewBatches)
    assert torch.equal(torch.stack(trained(tmp_path, **changes).seen), torch.stack(resident.seen))


def test_images_that_stay_on_the_device_are_decoded_once(tmp_path: Path) -> None:
    pytest.importorskip("kornia", minversion="0.9")
    asked: list[int] = []

    class Counted(ArrayImages):
        def __getitem__(self, index: int) -> Image.Image:
            asked.append(index)
            return super().__getitem__(index)

    counted = Counted(PIXELS[:16], [f"i{n}" for n in range(16)])
    train(Plain(), counted, config(views={"on_device": True}, training={"epochs": 3}), tmp_path)
    assert asked == [*range(16)]


def test_views_on_the_device_without_augmentation_are_the_test_images(tmp_path: Path) -> None:
    pytest.importorskip("kornia", minversion="0.9")
    method, pillows = trained(tmp_path, views={"on_device": True}), trained(tmp_path)
    torch.testing.assert_close(method.seen, pillows.seen)


def test_views_on_the_device_need_cropped_images(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"^views\.whole_image needs images of different shapes.*set one of the two"
    ):
        trained(tmp_path, views={"whole_image": True, "on_device": True})


# speed


def test_a_trace_has_the_requested_steps(tmp_path: Path) -> None:
    train(Plain(), images(20), config(), tmp_path, RunOptions(profile=2))
    with gzip.open(tmp_path / TRACE, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    names = {str(event.get("name")) for event in events}
    assert {name for name in names if name.startswith("ProfilerStep")} == {"ProfilerStep#2", "ProfilerStep#3"}
    assert any("convolution" in name for name in names)


def test_no_trace_is_written_by_default(tmp_path: Path) -> None:
    trained(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != STATES] == ["log.jsonl"]


def test_the_meter_separates_waiting_from_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(
        "hashbench.training.throughput.time", SimpleNamespace(monotonic=lambda: now, perf_counter=lambda: now)
    )

    def slow() -> Iterator[int]:
        nonlocal now
        for batch in range(3):
            now += 2 + batch
            yield batch

    meter = Meter(images=7, seconds=10.0, waited=1.0)  # as it was before a stop
    seen = []
    for batch in meter.steps(slow()):
        seen.append(batch)
        now += 5
    assert seen == [0, 1, 2]
    assert (meter.images, meter.waited, meter.seconds) == (7, 1 + 2 + 3 + 4, 10 + 2 + 3 + 4 + 3 * 5)
    assert list(meter.steps([])) == []
    assert meter.seconds == 34


class Slow(ArrayImages):
    """Images that take 20 ms each to load."""

    def __getitem__(self, index: int) -> Image.Image:
        time.sleep(0.02)
        return super().__getitem__(index)


def test_a_training_reports_throughput_and_waiting(tmp_path: Path) -> None:
    run = config(training={"epochs": 2, "batch_size": 3})  # one of ten images is left over
    slow = Slow(PIXELS[:10], [f"i{n}" for n in range(10)])
    waits = train(Plain(), slow, run, tmp_path)

    def rest(loss: Tensor) -> Tensor:
        time.sleep(0.05)
        return loss

    works = train(Failing(rest), images(10), run, tmp_path)
    for training in (waits, works):
        assert isinstance(training, TrainingSummary)
        assert training.images_per_second is not None
        assert 0 < 18 / training.images_per_second <= training.seconds + 0.01
        assert training.peak_memory > 2**20
        assert (training.resumed, training.selected) == (0, None)
    assert waits.images_per_second is not None
    assert waits.images_per_second < 50
    assert waits.waiting is not None
    assert works.waiting is not None
    assert works.waiting < 0.5 < waits.waiting < 1


# failures


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_one_line_with_advice(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(HashbenchError) as raised:
        train(Failing(raising(error)), images(8), config(), tmp_path)
    assert re.fullmatch(
        r"out of memory in training with 4 images a step: test_resnet at 16 px in float32 on the machine; "
        r"lower --set batch_size=.* \(and raise accumulate=.*\), image size, or choose a smaller backbone",
        str(raised.value),
    )
    assert raised.value.exit_code == 1
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("x")])
def test_other_errors_of_a_method_are_not_caught(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        train(Failing(raising(error)), images(8), config(), tmp_path)
    assert raised.value is error


class Killing(ArrayImages):
    """Images that kill the process that loads them."""

    def __getitem__(self, index: int) -> Image.Image:
        if get_worker_info() is not None:
            os._exit(1)
        return super().__getitem__(index)


def test_a_worker_that_dies_is_one_line_with_advice(tmp_path: Path) -> None:
    killing = Killing(PIXELS[:8], [f"i{n}" for n in range(8)])
    message = (
        r"^training with 4 images a step: a worker process died \(DataLoader worker \(pid.*\) "
        r"exited unexpectedly.*\), perhaps for lack of memory or of space in /dev/shm; "
        r"try fewer --workers, or --workers 0$"
    )
    with pytest.raises(HashbenchError, match=message):
        train(Plain(), killing, config(), tmp_path, RunOptions(workers=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named(tmp_path: Path, workers: int) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(8)]
    for path, pixels in zip(paths, PIXELS, strict=False):
        Image.fromarray(pixels).save(path)
    paths[5].write_bytes(b"<html>404</html>")
    damaged: Images = FileImages(paths, [path.name for path in paths])
    with pytest.raises(HashbenchError) as raised:
        train(Plain(), damaged, config(), tmp_path, RunOptions(workers=workers))
    assert str(raised.value) == f"{paths[5]} is a web page, not an image; download it again or remove it"


@pytest.mark.parametrize(("value", "named"), [(math.nan, "nan"), (math.inf, "inf")])
@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("together", [1, 10])
def test_an_error_about_an_infinite_loss_names_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, named: str, states: bool, together: int
) -> None:
    monkeypatch.setattr(trainer, "PendingLosses", lambda _: PendingLosses(together))
    execution = RunOptions(save_every=0) if states else DEFAULT
    with pytest.raises(HashbenchError) as raised:
        train(
            Failing(lambda loss: loss + value, step=5),
            images(16),
            config(training={"epochs": 2}),
            tmp_path,
            execution,
        )
    kept = f", the checkpoint of step 5 in {tmp_path / STATES}" if states else ""
    assert str(raised.value) == (
        f"the loss is not finite at step 5 (epoch 1): loss {named}; try a lower --set lr=…, "
        "--set gradient_clip=1 or --set precision=float32; "
        f"the log is {tmp_path / 'log.jsonl'}{kept}"
    )
    assert [entry["loss"] for entry in lines(tmp_path)][5:] == [named]
    assert bool(list(tmp_path.glob(f"{STATES}/step000000005-*.pt"))) == states


@pytest.mark.parametrize("together", [3, 10])
def test_losses_that_are_read_together_give_the_same_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    trained(tmp_path, training={"epochs": 3})
    expected = [{**line, "seconds": 0} for line in lines(tmp_path)]
    (tmp_path / "log.jsonl").unlink()
    monkeypatch.setattr(trainer, "PendingLosses", lambda _: PendingLosses(together))
    trained(tmp_path, training={"epochs": 3})
    assert [{**line, "seconds": 0} for line in lines(tmp_path)] == expected
    assert len(expected) == 12
