"""Tests of the selection of an epoch, and of the images that it is based on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.configs import run_config
from torch import Tensor, nn

import hashbench
from hashbench import ArrayImages, Backbone, Dataset, HashbenchError, HashMethod, Split, UsageError
from hashbench.config import RunConfig
from hashbench.experiment.configure import changes, configure
from hashbench.experiment.identity import identity_of
from hashbench.experiment.validation import hold_out, scorer
from hashbench.images.image_sets import Images
from hashbench.images.transforms import test_transform as transform_of
from hashbench.results.record import SelectedEpoch
from hashbench.training.options import TrainingSummary
from hashbench.training.trainer import train
from hashbench_datasets import cifar10
from hashbench_datasets.cifar10 import CIFAR10

SIZE = 16
PIXELS = np.random.RandomState(0).randint(0, 256, (60, SIZE, SIZE, 3), dtype=np.uint8)


def split(start: int, stop: int) -> Split:
    """Return images, of which image i has the class i % 3."""
    ids = [f"i{n:02d}" for n in range(start, stop)]
    return Split(ArrayImages(PIXELS[start:stop], ids), np.arange(start, stop) % 3)


def dataset(**parts: Split) -> Dataset:
    """Return a dataset of 12 queries; two are also among the 30 training images, a part of the database."""
    standard = {"query": split(0, 12), "train": split(10, 40), "database": split(12, 50)}
    return Dataset.from_splits("made_up", "default", "abc", **{**standard, **parts})


def config(selection: str | dict[str, Any] = "best-val", **changes: Any) -> RunConfig:
    chosen = {"name": selection} if isinstance(selection, str) else {"name": "best-val", **selection}
    return run_config(
        changes,
        dataset="made_up",
        protocol="default",
        bits=4,
        images={"size": SIZE},
        training={"epochs": 3, "batch_size": 8, "precision": "float32"},
        selection=chosen,
        evaluation={"k": (5, "all")},
    )


class Plain(HashMethod):
    views = 1

    def __init__(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(Backbone(network, SIZE), 4, self.Hyperparameters())
        self.head = nn.Linear(4, 4)

    def training_losses(self, *views: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.encode(views[0]) - 1).square().mean()}

    def encode(self, images: Tensor) -> Tensor:
        values: Tensor = self.head(self.backbone.pooled(images))
        return values


def scored(*values: float) -> Callable[[HashMethod], float]:
    """Return a score with the given values in order; like a real one, it sets a method to evaluation mode."""
    left = iter(values)

    def score(method: HashMethod) -> float:
        method.eval()
        return next(left)

    return score


def trained(
    folder: Path, run: RunConfig, score: Callable[[HashMethod], float] | None = None
) -> tuple[Plain, TrainingSummary, list[dict[str, Any]]]:
    method = Plain()
    training = train(method, split(0, 16).images, run, folder, score=score)
    return method, training, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: HashMethod, other: HashMethod) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# which epoch


@pytest.mark.parametrize(
    ("scores", "best"), [((0.1, 0.5, 0.3), 2), ((0.5, 0.5, 0.5), 1), ((0.1, 0.2, 0.3), 3)]
)
def test_the_best_epochs_weights_are_the_result(tmp_path: Path, scores: tuple[float, ...], best: int) -> None:
    """Restore the first of equal epochs, with batch norm statistics; validation changes no weights."""
    method, training, log = trained(tmp_path, config(), scored(*scores))
    assert training.selected == SelectedEpoch(
        name="best-val", metric="validation mAP@5", value=max(scores), epoch=best, looks=3
    )
    assert [line["step"] for line in log if "loss" in line] == list(range(6))
    looks = [line for line in log if "loss" not in line]
    assert [(line["epoch"], line["step"], line["validation mAP@5"]) for line in looks] == [
        (0, 1, scores[0]), (1, 3, scores[1]), (2, 5, scores[2]),
    ]  # fmt: skip
    assert not method.training
    for epochs in (1, 2, 3):
        ended, training, _ = trained(tmp_path, config("last", training={"epochs": epochs}))
        assert training.selected is None
        assert same(method, ended) == (epochs == best)


@pytest.mark.parametrize(
    ("selection", "epochs", "looked", "trained_for"),
    [
        ({"every": 2}, 5, [2, 4, 5], 5),
        ({"every": 2}, 4, [2, 4], 4),
        ({"every": 9}, 3, [3], 3),
        ({"patience": 1}, 9, [1, 2, 3], 3),
        ({"patience": 2}, 9, [1, 2, 3, 4], 4),
        ({"patience": 3}, 9, [1, 2, 3, 4, 5, 6, 7, 8], 8),
        ({"patience": 2, "every": 2}, 20, [2, 4, 6, 8], 8),
    ],
)
def test_validation_follows_every_and_patience(
    tmp_path: Path, selection: dict[str, Any], epochs: int, looked: list[int], trained_for: int
) -> None:
    scores = (0.3, 0.5, 0.5, 0.4, 0.6, 0.1, 0.2, 0.6)
    run = config(selection, training={"epochs": epochs})
    _, training, log = trained(tmp_path, run, scored(*scores))
    assert [line["epoch"] + 1 for line in log if "loss" not in line] == looked
    assert {line["epoch"] + 1 for line in log if "loss" in line} == set(range(1, trained_for + 1))
    assert training.selected is not None
    assert training.selected.looks == len(looked)
    assert training.selected.value == max(scores[: len(looked)])
    assert training.selected.epoch == looked[scores.index(training.selected.value)]


# by which images


def test_the_last_epoch_needs_no_validation_images() -> None:
    data = dataset()
    train_images, asked, searched = hold_out(data, config("last"))
    assert train_images is data.train
    assert asked is searched is None


def held_out(run: RunConfig) -> tuple[Images, Split, Split]:
    train_images, asked, searched = hold_out(dataset(), run)
    assert asked is not None
    assert searched is not None
    return train_images, asked, searched


def test_validation_images_are_drawn_once_from_the_training_images() -> None:
    data = dataset()
    train_images, asked, searched = held_out(config({"validation": 9}))
    drawn = set(asked.images.ids)
    assert len(drawn) == 9
    assert drawn < set(data.train.ids)
    assert not drawn & set(data.query.images.ids)
    assert not drawn & set(train_images.ids)
    assert drawn | set(train_images.ids) == set(data.train.ids)
    assert searched.images.ids == train_images.ids
    for part in (asked, searched):
        assert part.labels.tolist() == [int(name[1:]) % 3 for name in part.images.ids]
    for seed in (1, 2):
        assert held_out(config({"validation": 9}, seed=seed))[1].images.ids == asked.images.ids
    ever = {name for size in range(1, 15) for name in held_out(config({"validation": size}))[1].images.ids}
    assert not ever & {"i10", "i11"}  # training images that are queries


def test_a_limit_draws_training_images_once_for_all_seeds() -> None:
    data, names = dataset(), set(dataset().train.ids)
    for selection in ("last", {"validation": 9}):
        drawn = [hold_out(data, config(selection, training={"max_images": 12}, seed=seed)) for seed in (1, 2)]
        assert len(drawn[0].train) == 12
        assert drawn[0].train.ids == drawn[1].train.ids
        assert names > set(drawn[0].train.ids)
    _, asked, searched = held_out(config({"validation": 9}, training={"max_images": 12}))
    assert not {*asked.images.ids} & {*drawn[0].train.ids}
    assert {*searched.images.ids} == names - {*asked.images.ids}  # which is not limited
    everything = hold_out(data, config("last", training={"max_images": len(names)})).train
    assert everything is data.train


def test_the_validation_database_is_the_training_images() -> None:
    """Check that it is the same object, so that features are computed once."""
    train_images, _, searched = held_out(config({"validation": 9}))
    assert searched.images is train_images


def test_too_few_training_images_are_an_error() -> None:
    assert hold_out(dataset(), config({"validation": 14}))[1] is not None
    with pytest.raises(
        UsageError,
        match=r"^selection=best-val: expected at least 30 training images that are not queries, to use 15 of "
        r"them for validation, got 28; try a smaller --set selection\.validation=…$",
    ):
        hold_out(dataset(), config({"validation": 15}))


def test_a_protocols_own_validation_images_are_searched_for_in_the_database() -> None:
    data = dataset(validation=split(50, 60))
    assert hold_out(data, config()) == (data.train, data.validation, data.database)
    assert hold_out(data, config("best-on-query")) == (data.train, data.query, data.database)
    assert data.validation is not None
    method = Plain().eval()
    transform = transform_of(config().images)
    codes = [
        method.codes(method.encode(torch.stack([transform(image) for image in part.images])).detach())
        for part in (data.validation, data.database)
    ]
    expected = hashbench.evaluate(*codes, data.validation.labels, data.database.labels, k=(5,))
    score = scorer(data.validation, data.database, config(), workers=0)(method)
    assert score == expected.mean_average_precision(5)
    assert 0 < score < 1


def test_validation_images_that_are_queries_are_refused() -> None:
    message = (
        r"^made_up: 2 validation images are also queries, such as 'i10'; remove them from one of the two$"
    )
    with pytest.raises(HashbenchError, match=message):
        dataset(validation=split(10, 20))


def test_validation_images_are_checked_as_other_parts_are() -> None:
    images = split(50, 60).images
    with pytest.raises(
        HashbenchError, match="made_up: validation: expected class ids from 0 to 2, got 0 to 9"
    ):
        dataset(validation=Split(images, np.arange(10)))
    with pytest.raises(HashbenchError, match="made_up: validation and query differ in the kind of labels"):
        dataset(validation=Split(images, np.eye(10, 3, dtype=np.uint8)))


def test_validation_images_that_choose_the_epoch_are_part_of_the_run() -> None:
    one, other = (dataset(validation=split(50, stop)) for stop in (59, 60))
    best, last = config(), config("last")
    assert identity_of(best, one, "code") != identity_of(best, other, "code")
    assert identity_of(last, one, "code") == identity_of(last, other, "code")


def test_cibhash_validates_on_the_other_half_of_the_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.random.RandomState(31).permutation(np.repeat(np.arange(10), 6_000))
    ids = [f"train/{row:05d}" for row in range(50_000)] + [f"test/{row:05d}" for row in range(10_000)]
    images = ArrayImages(np.zeros((60_000, 1, 1), np.uint8), ids)
    monkeypatch.setattr(cifar10, "read_batches", lambda folder: Split(images, labels))
    monkeypatch.setattr(cifar10, "_form", lambda folder: folder.is_dir())
    (tmp_path / cifar10.FOLDER).mkdir()
    data = CIFAR10().load(tmp_path, "cibhash")
    assert data.validation is not None
    queries, validation = set(data.query.images.ids), set(data.validation.images.ids)
    assert (len(queries), len(validation), len(queries | validation)) == (5_000, 5_000, 10_000)
    assert queries | validation == set(ids[50_000:])
    known = dict(zip(ids, labels, strict=True))
    assert data.validation.labels.tolist() == [known[name] for name in data.validation.images.ids]
    assert hold_out(data, config()) == (data.train, data.validation, data.database)
    assert CIFAR10().load(tmp_path, "spq").validation is None


# whole runs

FAST = [f"--set={s}" for s in ("backbone=test_resnet", "pretrained=false", "images.size=16", "epochs=3")]


def run_of(cli: Callable[..., Any], *settings: str) -> tuple[hashbench.Record, Path]:
    done = cli("run", "--method", "bihalf", "--dataset", "digits", "--bits", "16", "--json", *FAST, *settings)
    assert done.code == 0, done.err
    (shown,) = json.loads(done.out)
    return hashbench.read_record(Path(shown["folder"])), Path(shown["folder"])


def looks(folder: Path, metric: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line[metric] for line in lines if metric in line]


@pytest.mark.usefixtures("small_digits")
def test_a_run_with_the_best_epoch_on_validation_images(cli: Callable[..., Any]) -> None:
    record, folder = run_of(cli, "--set=selection=best-val", "--set=selection.validation=30")
    values = looks(folder, "validation mAP@all")
    assert record.selected == SelectedEpoch(
        name="best-val",
        metric="validation mAP@all",
        value=max(values),
        epoch=values.index(max(values)) + 1,
        looks=3,
    )
    run = RunConfig(**record.config)
    _, asked, searched = hold_out(hashbench.load_dataset("digits"), run)
    assert asked is not None
    assert searched is not None
    assert (len(asked.images), len(searched.images)) == (30, 70)
    again = scorer(asked, searched, run, workers=0)(hashbench.load(folder))
    assert again == pytest.approx(max(values), abs=1e-6)


@pytest.mark.usefixtures("small_digits")
def test_all_reports_name_a_selection_on_queries(cli: Callable[..., Any]) -> None:
    record, folder = run_of(cli, "--set=selection=best-on-query")
    values = looks(folder, "query mAP@all")
    assert record.selected is not None
    assert (record.selected.name, record.selected.looks) == ("best-on-query", 3)
    assert record.selected.value == max(values) == record.metrics["mAP@all"].expected
    assert record.changes is not None
    assert record.changes["selection.name"] == "best-on-query"
    table = cli("table", "--dataset", "digits", "--metric", "mAP@1000")
    assert table.code == 0, table.err
    assert "selection.name=best-on-query" in table.out


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (
            "defaults: {backbone: {name: test_resnet, pretrained: false}, selection: {name: best-on-query}}",
            [],
        ),
        ("defaults: {selection: {name: best-on-query}}", ["backbone=test_resnet", "pretrained=false"]),
        (None, ["backbone=test_resnet", "pretrained=false", "selection=best-on-query"]),
    ],
    ids=["of the recipe", "of a recipe that alone makes no run", "without a recipe"],
)
def test_a_selection_on_queries_is_a_change_from_all_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str | None, settings: list[str]
) -> None:
    monkeypatch.setattr(hashbench.registry.PLUGIN_FILES, "paths", [])
    plugin = tmp_path / "mean.py"
    plugin.write_text(
        "from hashbench import HashMethod\n"
        "class Mean(HashMethod):\n"
        "    def training_losses(self, *views):\n"
        "        return {'loss': self.encode(views[0]).mean()}\n"
        "    def encode(self, images):\n"
        "        return self.backbone.pooled(images)[:, : self.bits]\n"
        "METHODS = {'mean': Mean}\n"
    )
    if recipe is not None:
        plugin.with_suffix(".yaml").write_text(recipe)
    hashbench.registry.add_plugin_file(plugin)
    data = hashbench.load_dataset("digits")
    run = configure("mean", data, bits=16, seed=0, device="cpu", settings=settings)
    assert run.selection.name == "best-on-query"
    assert changes(run)["selection.name"] == "best-on-query"
