"""Grids of runs: what cannot run is said first, a failure ends only its own run, and a plan can be listed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_plugin import PLUGIN, RECIPE
from helpers.trees import photo

import hashbench
from hashbench.experiment import plan

BROKEN = """
import torch
from hashbench import FeatureMethod


class Broken(FeatureMethod):
    def __init__(self, backbone, bits, hyperparameters):
        super().__init__(backbone, bits, hyperparameters)
        self.head = torch.nn.Linear(backbone.feature_dim, bits)

    def feature_losses(self, *features):
        return {"loss": self.head(features[0]).sum() * torch.inf}

    def encode_features(self, features):
        return self.head(features)


METHODS = {"broken": Broken}
"""
SMALL = ["--set=batch_size=8"]
SHALLOW = ["--backbone", "test_resnet", "--set=pretrained=false", "--set=images.size=16"]


@pytest.fixture
def grid(cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs methods on the dataset `toy`, from a plugin file in the current folder."""
    for name, source in (("toy", PLUGIN), ("broken", BROKEN)):
        (tmp_path / f"{name}.py").write_text(source)
        (tmp_path / f"{name}.yaml").write_text(RECIPE)
    plugins = ["--plugin", "toy.py", "--plugin", "broken.py"]

    def call(methods: str, *arguments: str, command: str = "run") -> Any:
        return cli(command, *plugins, "--method", methods, "--dataset", "toy", "--bits", "8", *arguments)

    return call


def test_failures_do_not_end_a_grid(grid: Callable[..., Any], tmp_path: Path) -> None:
    done = grid("broken,tiny", "--seed", "0,1", "--set", "epochs=1")
    lines = done.err.splitlines()
    assert done.code == 1
    assert lines[-1] == "hashbench: error: 2 of 4 runs have no record; the lines above say why"
    reason = "the loss is not finite at step 0 (epoch 0): loss "
    for seed, line in enumerate(lines[-3:-1]):
        name = f"broken (epochs=1) on toy@short, 8 bits, seed {seed}"
        assert line.startswith(f"hashbench: no record: {name}: {reason}")
    folders = sorted(path.parent for path in (tmp_path / "results").rglob("tiny*/record.json"))
    for folder in folders:
        record = hashbench.read_record(folder)
        metric = record.metrics["mAP@5"]
        result = f"mAP@5 {metric.expected:.4f} [{metric.lowest:.4f}, {metric.highest:.4f}]"
        timing = f"{record.timing.whole_training:.1f} s of training, {folder.relative_to(tmp_path)}"
        assert f"hashbench: {result}, codes COLLAPSED, {timing}" in lines
    assert len(folders) == 2
    # At the end, the view of `hashbench table`.
    assert done.out.startswith("mAP@5, expectation over all orders of equal distances; mean ± standard dev")
    assert "| tiny     | " in done.out
    assert "broken" not in done.out


def test_the_first_failure_can_end_a_grid(grid: Callable[..., Any], tmp_path: Path) -> None:
    done = grid("broken,tiny", "--fail-fast")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("hashbench: error: the loss is not finite at step 0")
    assert list((tmp_path / "results").rglob("tiny*")) == []


def test_what_cannot_run_is_said_before_anything_runs(grid: Callable[..., Any]) -> None:
    done = grid("spq,tiny", *SMALL, "--set", "epochs=1", "--bits", "6")
    _, first, second, *_ = done.err.splitlines()  # a warning of the dataset comes before
    reason = "spq: expected a multiple of 4 bits, as books of 16 words have, got 6; change --bits or --set wo"
    assert first.startswith(
        f"hashbench: cannot run: spq (epochs=1, batch_size=8) on toy@short, 6 bits, seed 0: {reason}"
    )
    assert second == "hashbench: [1/1] tiny (epochs=1) on toy@short, 6 bits, seed 0, cpu"
    assert done.code == 1
    assert (
        done.err.splitlines()[-1] == "hashbench: error: 1 of 2 runs have no record; the lines above say why"
    )


def test_a_network_without_weights_is_asked_for_once_and_named_for_all(
    grid: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def gone(name: str) -> None:
        asked.append(name)
        raise hashbench.HashbenchError(f"the weights of {name} are gone")

    monkeypatch.setattr(plan, "require_weights", gone)
    rows = json.loads(grid("tiny,broken", "--set=pretrained=true", "--seed=0,1", "--dry-run", "--json").out)
    assert [row["reason"] for row in rows] == ["the weights of test_resnet are gone"] * 4
    assert asked == ["test_resnet"]


def test_a_grid_that_cannot_run_at_all_is_wrong_use(grid: Callable[..., Any]) -> None:
    done = grid("spq,itq", *SHALLOW, *SMALL, "--bits", "1001")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 2
    assert "expected a multiple of 4 bits" in done.err


def test_a_plan_is_listed(grid: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path) -> None:
    grid("tiny", "--set", "epochs=1")
    rows = json.loads(grid("spq,tiny", *SMALL, "--seed", "0,1", "--bits", "6,8", "--dry-run", "--json").out)
    assert len(rows) == 8
    assert [(row["method"], row["bits"], row["seed"]) for row in rows[:3]] == [
        ("spq", 6, 0), ("spq", 6, 1), ("spq", 8, 0),
    ]  # fmt: skip
    assert {row["status"] for row in rows if row["bits"] == 8} == {"to run"}
    assert [row["folder"] for row in rows[:2]] == [None, None]
    assert rows[0]["reason"].startswith("spq: expected a multiple of 4 bits")
    rows = json.loads(grid("tiny", "--seed", "0,1", "--set", "epochs=1", "--dry-run", "--json").out)
    assert [row["status"] for row in rows] == ["exists", "to run"]
    assert (tmp_path / rows[0]["folder"] / "record.json").is_file()
    assert (rows[0]["protocol"], rows[0]["settings"]) == ("short", ["epochs=1"])
    assert cli(*rows[1]["command"][1:]).code == 0
    assert (tmp_path / rows[1]["folder"] / "record.json").is_file()
    shown = grid("tiny", "--seed", "0,2", "--set", "epochs=1", "--dry-run").out
    assert shown.splitlines()[-1] == "1 exists, 1 to run"
    assert not list((tmp_path / "results").rglob("*seed2*"))


def test_the_command_of_a_planned_run_has_all_options(cli: Callable[..., Any], tmp_path: Path) -> None:
    options = ("--dataset=folder", "--data-root=my photos", "--data", "query_ratio=0.25", "--limit=20")
    for number in range(30):
        photo(tmp_path / "my photos" / f"{'cat' if number % 2 else 'dog'}" / f"{number}.png", number, number)
    small = (
        "--backbone",
        "test_resnet",
        "--set=images.size=16",
        "--set=pretrained=false",
        "--results=own runs",
    )
    planned = cli("run", "--method=lsh,itq", "--bits=4", *options, *small, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    for row in json.loads(planned.out):
        program, *arguments = row["command"]
        assert program == "hashbench"
        done = cli(*arguments)
        assert done.code == 0, done.err
        assert (tmp_path / row["folder"] / "record.json").is_file()


def test_settings_apply_to_the_methods_that_have_them(grid: Callable[..., Any]) -> None:
    both = json.loads(grid("itq,tiny", *SHALLOW, "--set=epochs=1", "--dry-run", "--json").out)
    used = ["backbone=test_resnet", "pretrained=false", "images.size=16"]
    assert [row["settings"] for row in both] == [used, [*used, "epochs=1"]]
    words = json.loads(grid("spq,tiny", "--set=words=8", "--bits=9", "--dry-run", "--json").out)
    assert [row["settings"] for row in words] == [["words=8"], []]
    done = grid("itq", *SHALLOW, "--set=epochs=1")
    reason = "itq is fitted in a single step, without training; leave it out"
    assert (done.code, done.err) == (2, f"hashbench: error: --set training.epochs: {reason}\n")
    done = grid("itq,tiny", "--set=epchs=8")
    assert (done.code, done.err) == (2, "hashbench: error: unknown key 'epchs'; did you mean 'epochs'?\n")


def test_different_backbones_are_named_before_the_runs(grid: Callable[..., Any]) -> None:
    sizes = ["--set=pretrained=false", "--set=images.size=16", "--set=epochs=1"]
    done = grid("tiny,broken", "--backbone", "test_resnet,test_vit", *sizes)
    said = (
        "test_resnet, untrained, 16 px; tiny, broken: test_vit, untrained, 16 px); --backbone NAME uses one"
    )
    assert f"hashbench: toy@short: the backbones differ (tiny, broken: {said} for all\n" in done.err
    assert "the backbones differ" not in grid("tiny", *sizes, "--seed", "0,1", "--force").err


def test_several_backbones_make_a_grid(grid: Callable[..., Any]) -> None:
    done = grid("itq", *SHALLOW[2:], "--backbone", "test_resnet,resnet18", "--dry-run", "--json")
    assert [row["settings"][0] for row in json.loads(done.out)] == [
        "backbone=test_resnet",
        "backbone=resnet18",
    ]


def test_training_images_are_limited_and_counted(grid: Callable[..., Any], cli: Callable[..., Any]) -> None:
    few = ["--set=max_images=10", "--set=epochs=1", "--set=backbone=test_resnet", "--set=pretrained=false"]
    assert grid("tiny,lsh", *few).code == 0
    table = cli("table", "--metric=mAP@all").out
    assert (
        "8 queries, 24 training and 24 database images; tiny (epochs=1, max_images=10) trained on 10 of"
        in table
    )
    verified = cli("results", "verify")
    assert (verified.code, "2 passed" in verified.out) == (0, True), verified.out + verified.err


def test_a_limit_makes_another_split(
    grid: Callable[..., Any], cli: Callable[..., Any], tmp_path: Path
) -> None:
    assert grid("tiny", "--set=epochs=1").code == 0
    done = grid("tiny", "--set=epochs=1", "--limit", "5")
    assert done.code == 0, done.err
    (path,) = (tmp_path / "results").rglob("toy@short-limit5/*/*/*/record.json")
    record = hashbench.read_record(path.parent)
    assert (record.protocol, record.split.train, record.split.query, record.split.database) == (
        "short-limit5", 5, 5, 5,
    )  # fmt: skip
    assert record.split.warnings[-1] == "limited to 5 images of each part, for a first try only"
    table = cli("table").out
    assert "toy@short-limit5: 5 queries, 5 training and 5 database images, a small part of the prot" in table
    assert "toy@short-limit5 8 bits" in table
    hashbench.registry.add_plugin_file(tmp_path / "toy.py")
    whole = hashbench.load_dataset("toy")
    part = hashbench.load_dataset("toy", "short-limit5")
    assert part.fingerprint == record.split.sha256 != whole.fingerprint
    assert part.fingerprint == hashbench.load_dataset("toy", limit=5).fingerprint
    assert {*part.query.images.ids} < {*whole.query.images.ids}
    assert part.database.labels.tolist() == [int(name[-2:]) % 4 for name in part.database.images.ids]
