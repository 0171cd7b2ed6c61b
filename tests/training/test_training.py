"""Tests of the training loop: reproducibility, the log, and errors."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from torch import Tensor, nn

from hashbench import (
    ArrayImages,
    Backbone,
    FeatureMethod,
    HashbenchError,
    HashMethod,
    ShallowMethod,
    UsageError,
    distributed,
)
from hashbench.config import RunConfig, ViewConfig
from hashbench.encoding.encode import encode
from hashbench.experiment.weights import build_method
from hashbench.images.transforms import ViewTransform
from hashbench.method.base import TrainingSet
from hashbench.runtime.device import resolve_device, resolve_precision, resolve_workers
from hashbench.training import dataloader
from hashbench.training.options import RunOptions
from hashbench.training.trainer import train

IMAGES = ArrayImages(
    np.random.RandomState(0).randint(0, 256, (12, 32, 32, 3), dtype=np.uint8), [f"i{n}" for n in range(12)]
)


def config(**changes: Any) -> RunConfig:
    return run_config(
        changes,
        bits=8,
        views={"crop_scale": (0.5, 1.0), "horizontal_flip": 0.5},
        training={"epochs": 2, "batch_size": 5, "precision": "float32"},
    )


def trained(folder: Path, workers: int = 0, **changes: Any) -> tuple[HashMethod, list[dict[str, float]]]:
    run = config(**changes)
    method = build_method(run)
    train(method, IMAGES, run, folder, RunOptions(workers=workers))
    return method, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: HashMethod, other: HashMethod) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_weights_depend_on_the_seed_and_not_on_workers(tmp_path: Path) -> None:
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


def test_views_differ_between_epochs_and_cover_all_images(tmp_path: Path) -> None:
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
        tmp_path,
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


def rates(folder: Path, schedule: dict[str, Any], epochs: int) -> list[float]:
    training = {"epochs": epochs, "batch_size": 6}  # 2 batches of 12 images
    _, log = trained(folder, optimizer={"name": "sgd", "lr": 1.0}, schedule=schedule, training=training)
    return [entry["lr"] for entry in log[::2]]


def test_steps(tmp_path: Path) -> None:
    schedule = {"name": "step", "step_epochs": 2, "step_factor": 0.1}
    assert rates(tmp_path, schedule, 5) == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_a_cosine_that_is_held_and_repeated(tmp_path: Path) -> None:
    assert rates(tmp_path, {"name": "cosine", "hold_epochs": 1}, 3) == pytest.approx([1, 1, 0.5])
    schedule = {"name": "cosine", "hold_epochs": 1, "cosine_epochs": 2}
    assert rates(tmp_path, schedule, 7) == pytest.approx([1, 1, 0.5, 0, 0.5, 1, 0.5], abs=1e-9)
    batches = {**schedule, "cosine_epochs": "batches"}
    assert rates(tmp_path, batches, 7) == pytest.approx(rates(tmp_path, schedule, 7))
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer := torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), T_max=3
    )
    expected = []
    for _ in range(8):
        expected.append(torchs.get_last_lr()[0])
        optimizer.step()
        torchs.step()
    assert rates(tmp_path, {"name": "cosine", "cosine_epochs": 3}, 8) == pytest.approx(expected, abs=1e-9)


def test_a_warm_up_before_a_cosine(tmp_path: Path) -> None:
    schedule = {"name": "warmup_cosine", "warmup_epochs": 1, "final_factor": 0.1}
    settings: dict[str, Any] = {"optimizer": {"name": "sgd", "lr": 2.0}, "schedule": schedule}
    _, log = trained(tmp_path, training={"epochs": 2, "batch_size": 3}, **settings)  # 4 batches an epoch
    rise = [0.2, 0.8, 1.4, 2.0]
    fall = [0.2 + 1.8 * (1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert [entry["lr"] for entry in log] == pytest.approx(rise + fall)


def test_adam_with_a_large_epsilon(tmp_path: Path) -> None:
    """Its first step is lr · gradient / (|gradient| + eps)."""
    settings: dict[str, Any] = {"training": {"epochs": 1, "batch_size": 12}}
    descent, _ = trained(tmp_path, optimizer={"name": "sgd", "lr": 0.1}, **settings)
    adam, _ = trained(tmp_path, optimizer={"name": "adam", "lr": 0.1, "eps": 1e6}, **settings)
    start = dict(build_method(config()).named_parameters())
    for (name, one), other in zip(descent.named_parameters(), adam.parameters(), strict=True):
        torch.testing.assert_close((other - start[name]) * 1e6, one - start[name], rtol=0.1, atol=0.5)


def test_layers_that_are_not_trained(tmp_path: Path) -> None:
    run = config(training={"frozen_layers": ("layer4",), "epochs": 1})
    method, _ = trained(tmp_path, training={"frozen_layers": ("layer4",), "epochs": 1})
    before = build_method(run).backbone.named_parameters()
    after = dict(method.backbone.named_parameters())
    changed = {name.split(".")[1] for name, weights in before if not torch.equal(weights, after[name])}
    assert "layer1" in changed
    assert "layer4" not in changed
    with pytest.raises(UsageError, match="unknown layer 'layer44'; did you mean 'layer4'"):
        build_method(config(training={"frozen_layers": ("layer44",)}))


def test_one_step_of_sgd_is_the_gradient(tmp_path: Path) -> None:
    """Compare the loop with a step that is written out."""
    changes = {
        "training": {"epochs": 1, "batch_size": 12, "gradient_clip": None},
        "optimizer": {"name": "sgd", "lr": 0.1, "backbone_lr": 0.01},
        "views": {"crop_scale": (1.0, 1.0), "horizontal_flip": 0},
        "backbone": {"freeze_batch_norm": True},
    }
    run = config(**changes)
    method = build_method(run)
    images = dataloader._Views(IMAGES, 2, run)
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


def test_a_last_batch_of_one_image_is_dropped(tmp_path: Path) -> None:
    uneven = {"batch_size": 11, "epochs": 1}  # 12 images: batches of 11 and 1
    _, log = trained(tmp_path, training=uneven)
    assert len(log) == 1


def test_a_last_batch_can_be_dropped(tmp_path: Path) -> None:
    batches = {"batch_size": 5, "epochs": 1, "drop_last": True}
    assert len(trained(tmp_path, training=batches)[1]) == 2
    with pytest.raises(
        UsageError, match="12 training images do not fill a batch of 13; use a smaller --set batch"
    ):
        trained(tmp_path, training={**batches, "batch_size": 13})


class Head(FeatureMethod):
    """A method that preserves distances of features, and records its batches."""

    views = 1

    def __init__(self, backbone: Backbone, bits: int) -> None:
        super().__init__(backbone, bits, self.Hyperparameters())
        self.fc = nn.Linear(backbone.feature_dim, bits)
        self.seen: list[Tensor] = []

    def feature_losses(self, *features: Tensor) -> dict[str, Tensor]:
        self.seen.append(features[0].detach())
        values = self.encode_features(features[0])
        return {"loss": (values @ values.T - features[0] @ features[0].T).square().mean()}

    def encode_features(self, features: Tensor) -> Tensor:
        values: Tensor = torch.tanh(self.fc(features))
        return values


def trained_head(run: RunConfig, folder: Path) -> Head:
    backbone = build_method(run).backbone
    head = Head(backbone, 8)
    train(head, IMAGES, run, folder)
    return head


class Prepared(Head):
    """A method that checks that the features of its preparation are those of the images of each batch."""

    uses_indices = True

    def prepare(self, training: TrainingSet) -> None:
        self.known = training.features()
        self.prepared = torch.rand(3)
        training.features().zero_()  # a copy

    def feature_losses(self, *features: Tensor, indices: Tensor) -> dict[str, Tensor]:
        torch.testing.assert_close(features[0], self.known[indices], rtol=1e-3, atol=1e-5)
        return super().feature_losses(*features)


@pytest.mark.parametrize("affine", [None, {}], ids=["features", "images"])
def test_a_method_is_prepared_with_the_features_of_its_images(
    tmp_path: Path, affine: dict[str, Any] | None
) -> None:
    """Also if a step shows images, under an augmentation that changes nothing; the loss stays the same."""
    views = {"crop_scale": (1.0, 1.0), "horizontal_flip": 0, "affine": affine}
    run = config(views=views, training={"freeze_backbone": True})
    prepared, plain = (cls(build_method(run).backbone, 8) for cls in (Prepared, Head))
    torch.manual_seed(5)  # has no effect on what is drawn
    images = IMAGES.subset(np.arange(12))  # whose features nobody else has computed
    train(prepared, images, run, tmp_path)
    train(plain, images, run, tmp_path)
    assert len(prepared.seen) == 6
    torch.testing.assert_close(torch.cat(prepared.seen), torch.cat(plain.seen), rtol=0, atol=0)
    torch.manual_seed(run.seed)
    assert torch.equal(prepared.prepared, torch.rand(3))


def test_a_head_learns_from_features_that_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with a training on the images."""
    calls = []
    pooled = Backbone.pooled

    def counted(self: Backbone, images: Tensor) -> Tensor:
        calls.append(len(images))
        return pooled(self, images)

    monkeypatch.setattr(Backbone, "pooled", counted)
    run = config(views={"crop_scale": (1.0, 1.0), "horizontal_flip": 0}, training={"freeze_backbone": True})
    kept = trained_head(run, tmp_path)
    assert sum(calls) - 1 == 12  # but for one image when a backbone is built
    calls.clear()
    turned = config(
        views={"crop_scale": (1.0, 1.0), "horizontal_flip": 0, "affine": {}},
        training={"freeze_backbone": True},
    )
    anew = trained_head(turned, tmp_path)  # an augmentation that changes nothing
    assert sum(calls) - 1 == 24
    torch.testing.assert_close(kept.seen, anew.seen, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kept.fc.weight, anew.fc.weight, rtol=1e-3, atol=1e-5)
    assert same(kept, trained_head(run, tmp_path))


def test_a_head_on_a_network_that_trains_sees_images(tmp_path: Path) -> None:
    run = config(views={"crop_scale": (1.0, 1.0), "horizontal_flip": 0})
    head = trained_head(run, tmp_path)
    before = build_method(run).backbone.state_dict()
    assert any(not torch.equal(p, before[name]) for name, p in head.backbone.state_dict().items())


def test_dropout_of_a_frozen_network_differs_between_batches(tmp_path: Path) -> None:
    still = {"crop_scale": (1.0, 1.0), "horizontal_flip": 0}
    vgg = {"name": "vgg11", "options": {"drop_rate": 0.5, "mlp_ratio": 0.05}}  # fc6 is most of it, and slow
    frozen = {"freeze_backbone": True, "batch_size": 6}
    dropped = trained_head(
        config(views=still, backbone=vgg, training={**frozen, "feature_dropout": True}), tmp_path
    )
    plain = trained_head(config(views=still, backbone=vgg, training=frozen), tmp_path)
    rows = [torch.unique(torch.cat(head.seen).round(decimals=3), dim=0) for head in (dropped, plain)]
    assert [len(found) for found in rows] == [24, 12]  # 12 images in 2 epochs


def test_a_method_without_trainable_parameters(tmp_path: Path) -> None:
    class Bare(Head):
        def __init__(self, backbone: Backbone, bits: int) -> None:
            super().__init__(backbone, bits)
            self.fc.requires_grad_(False)

    run = config(training={"freeze_backbone": True})
    with pytest.raises(
        HashbenchError, match="Bare has no trainable parameters; add --set freeze_backbone=false"
    ):
        train(Bare(build_method(run).backbone, 8), IMAGES, run, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["spq", "bihalf", "itq"])
def test_a_gpu_trains_heads_and_fits(tmp_path: Path, name: str) -> None:
    for frozen in (True, False):
        run = config(
            method=name,
            device="cuda",
            training={"freeze_backbone": frozen},
            backbone={"name": "test_efficientnet_ln"},
        )
        method = build_method(run)
        train(method, IMAGES, run, tmp_path, RunOptions(workers=1))
        codes = encode(method, IMAGES, run, workers=0, task="t")
        assert (len(codes), codes.bits) == (12, 8)
        values = method.encode(torch.rand(2, 3, 32, 32, device="cuda"))
        assert method.codes(values.cpu()).bits == method.codes(values).bits == 8


def test_a_shallow_method_is_fitted_to_all_images(tmp_path: Path) -> None:
    class Centre(ShallowMethod):
        def __init__(self, backbone: Backbone) -> None:
            super().__init__(backbone, 8, self.Hyperparameters())
            self.register_buffer("mean", torch.zeros(backbone.feature_dim))

        def fit(self, features: Tensor) -> None:
            self.mean = features.mean(0)

        def encode_features(self, features: Tensor) -> Tensor:
            return (features - self.mean)[:, : self.bits]

    run = config()
    method = Centre(build_method(run).backbone.train())
    train(method, IMAGES, run, tmp_path)
    transform = ViewTransform(run.images, ViewConfig())
    images = torch.stack([transform(image) for image in IMAGES])
    torch.testing.assert_close(method.mean, method.backbone.pooled(images).mean(0), rtol=1e-3, atol=1e-4)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["images"] == 12
    with pytest.raises(TypeError, match="Centre is fitted, not trained"):
        method.training_losses(images)


def test_a_method_without_a_loss(tmp_path: Path) -> None:
    class Lossless(HashMethod):
        def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
            return {"lost": views[0].mean()}

        def encode(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, : self.bits]

    run = config()
    method = Lossless(build_method(run).backbone, 8, Lossless.Hyperparameters())
    with pytest.raises(HashbenchError, match="Lossless.training_losses: expected the key 'loss', got"):
        train(method, IMAGES, run, tmp_path)


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
    with pytest.raises(UsageError, match="--device cuda:1: torch sees no GPU"):
        resolve_device("cuda:1")
    assert resolve_precision("auto", "cpu") == "float32"
    assert resolve_precision("bfloat16", "cpu") == "bfloat16"
    assert resolve_workers(None, "cpu") == 0
    assert resolve_workers(3, "cpu") == 3
    assert 0 <= resolve_workers(None, "cuda") <= 8


def test_a_gpu_is_chosen_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [resolve_device(device) for device in ("cuda", "cuda:1", "cuda:0", "auto", "cpu")] == [
        *("cuda", "cuda", "cuda", "cuda", "cpu")
    ]
    assert chosen == [1, 0]
    with pytest.raises(UsageError, match=r"^--device cuda:2: torch sees 2 GPUs, from cuda:0 to cuda:1$"):
        resolve_device("cuda:2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="each process has a GPU of its own; use --device cuda$"):
        resolve_device("cuda:1")


@pytest.mark.parametrize(("name", "whole"), [("wch", True), ("spq", False)])
def test_a_head_normalizes_by_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, whole: bool
) -> None:
    given: list[nn.Module] = []
    monkeypatch.setattr(distributed, "synchronize_batch_norm", lambda module, device: given.append(module))
    method, _ = trained(tmp_path, method=name)
    assert given == [method if whole else method.backbone]
    trained(tmp_path, method=name, training={"freeze_backbone": True})
    assert len(given) == (2 if whole else 1)
