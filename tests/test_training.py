"""The training loop: reproducible, logged, honest about failure."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hashbench import ArrayImages, HashbenchError, HashMethod, UsageError, training
from hashbench.config import RunConfig
from hashbench.experiment import build_method
from hashbench.training import resolve_device, resolve_precision, train

IMAGES = ArrayImages(
    np.random.RandomState(0).randint(0, 256, (12, 32, 32, 3), dtype=np.uint8), [f"i{n}" for n in range(12)]
)


def config(**changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "method": "wch", "dataset": "none", "protocol": "none", "bits": 8, "seed": 0, "device": "cpu",
        "backbone": {"name": "test_resnet", "pretrained": False},
        "images": {"size": 32},
        "views": {"crop_scale": (0.5, 1.0), "horizontal_flip": 0.5},
        "training": {"epochs": 2, "batch_size": 5, "precision": "float32"},
    }  # fmt: skip
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values} if isinstance(values, dict) else values
    return RunConfig(**settings)


def trained(folder: Path, workers: int = 0, **changes: Any) -> tuple[HashMethod, list[dict[str, float]]]:
    run = config(**changes)
    method = build_method(run)
    train(method, IMAGES, run, workers=workers, log=folder / "log.jsonl")
    return method, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: HashMethod, other: HashMethod) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_same_seed_same_weights_whatever_the_workers(tmp_path: Path) -> None:
    first, log = trained(tmp_path)
    assert same(first, trained(tmp_path)[0])
    assert same(first, trained(tmp_path, workers=2)[0])
    assert not same(first, trained(tmp_path, seed=1)[0])
    vit = {"name": "test_vit", "options": {"proj_drop_rate": 0.5}}
    assert same(trained(tmp_path, backbone=vit)[0], trained(tmp_path, backbone=vit, workers=2)[0])
    assert [entry["step"] for entry in log] == list(range(6))  # 3 batches of 12 images, 2 epochs
    assert [entry["epoch"] for entry in log] == [0, 0, 0, 1, 1, 1]
    for entry in log:
        assert entry["loss"] == pytest.approx(entry["contrastive"] + entry["balance"], abs=1e-4)
    assert not first.training


def test_views_are_new_each_epoch_and_every_image_is_seen(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Recorder(HashMethod):
        def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
            seen.append(torch.cat(views))
            return {"loss": self.backbone.pooled(views[0]).mean()}

        def encode(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, : self.bits]

    run = config()
    train(
        Recorder(build_method(run).backbone, 8, Recorder.Hyperparameters()),
        IMAGES,
        run,
        workers=0,
        log=tmp_path / "l",
    )
    views = torch.cat(seen)
    assert len(views) == 2 * 2 * 12
    assert len(torch.unique(views.flatten(1), dim=0)) == len(views)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_optimizers_and_schedules(tmp_path: Path, name: str, schedule: str) -> None:
    optimizer = {"name": name, "lr": 0.01, "momentum": 0.9}
    _, log = trained(tmp_path, optimizer=optimizer, schedule={"name": schedule})
    rates = [round(entry["lr"], 6) for entry in log]
    if schedule == "constant":
        assert rates == [0.01] * 6
    elif schedule == "cosine":
        assert rates == [0.01] * 3 + [0.005] * 3
    else:
        assert max(rates) == pytest.approx(0.01, rel=0.1)
        assert rates[-1] < 0.001


def test_one_step_of_sgd_is_the_gradient(tmp_path: Path) -> None:
    """The loop against the same step written out."""
    changes = {
        "training": {"epochs": 1, "batch_size": 12, "gradient_clip": None},
        "optimizer": {"name": "sgd", "lr": 0.1, "backbone_lr": 0.01},
        "views": {"crop_scale": (1.0, 1.0), "horizontal_flip": 0},
        "backbone": {"freeze_batch_norm": True},
    }
    run = config(**changes)
    method = build_method(run)
    images = training._Views(IMAGES, training.view_transform(run.images, run.views), 2, 0)
    batch = [torch.stack(views) for views in zip(*(images[i] for i in range(12)), strict=True)]
    method.train()
    method.training_losses(*batch)["loss"].backward()
    expected = {
        name: p.detach() - (0.01 if name.startswith("backbone") else 0.1) * p.grad
        for name, p in method.named_parameters()
        if p.grad is not None
    }
    after = dict(trained(tmp_path, **changes)[0].named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(after[name].detach(), value, rtol=1e-3, atol=1e-4)


def test_gradient_clip(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "optimizer": {"name": "sgd", "lr": 1.0},
        "training": {"epochs": 1, "batch_size": 12},
    }
    run = config(**changes)
    before = build_method(run)
    changes["training"]["gradient_clip"] = 1e-3
    after = trained(tmp_path, **changes)[0]
    moved = sum(
        (a - b).detach().square().sum() for a, b in zip(after.parameters(), before.parameters(), strict=True)
    )
    assert float(moved**0.5) == pytest.approx(1e-3, rel=0.05)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        HashbenchError, match=r"not finite at step \d+ \(epoch \d\): loss (nan|inf), contrastive"
    ):
        trained(tmp_path, optimizer={"name": "sgd", "lr": 1e30}, training={"epochs": 9})
    assert (tmp_path / "log.jsonl").read_text().count("\n") >= 2


def test_bfloat16_on_the_cpu(tmp_path: Path) -> None:
    _, log = trained(tmp_path, training={"precision": "bfloat16"})
    _, full = trained(tmp_path)
    assert log[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.1)
    assert log[0]["loss"] != full[0]["loss"]


def test_a_single_image_left_over_is_left_out(tmp_path: Path) -> None:
    uneven = {"batch_size": 11, "epochs": 1}  # 12 images: batches of 11 and 1
    _, log = trained(tmp_path, training=uneven)
    assert len(log) == 1


def test_a_method_without_a_loss(tmp_path: Path) -> None:
    class Lossless(HashMethod):
        def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
            return {"lost": views[0].mean()}

        def encode(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, : self.bits]

    run = config()
    method = Lossless(build_method(run).backbone, 8, Lossless.Hyperparameters())
    with pytest.raises(HashbenchError, match="Lossless.training_losses gives no 'loss'"):
        train(method, IMAGES, run, workers=0, log=tmp_path / "log.jsonl")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_and_the_cpu_still_does_after_it(tmp_path: Path) -> None:
    _, cpu = trained(tmp_path)
    method, gpu = trained(tmp_path, device="cuda", training={"precision": "bfloat16"}, workers=2)
    assert next(method.parameters()).is_cuda
    assert gpu[0]["loss"] == pytest.approx(cpu[0]["loss"], rel=0.1)
    assert trained(tmp_path)[1][-1]["loss"] == cpu[-1]["loss"]


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UsageError, match="torch sees no GPU"):
        resolve_device("cuda")
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"
    assert training.resolve_workers(None, "cpu") == 0
    assert training.resolve_workers(3, "cpu") == 3
    assert 0 <= training.resolve_workers(None, "cuda") <= 8
