"""Experiment files: their keys and values, and the runs that they describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashbench.errors import UsageError
from hashbench.experiment.definition import read_experiment, shipped_experiments
from hashbench.experiment.expected import expected_runs, filter_of
from hashbench.experiment.plan import runs_of
from hashbench.results.query import RunFilter
from hashbench.results.selection import select

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "records"
EVERYTHING = """
description: All keys.
methods:
  - lsh
  - {name: wch, label: wch long, settings: {training: {epochs: 7}, optimizer.lr: 1.0e-3}}
datasets:
  - digits
  - {name: fashionmnist, protocol: small, options: {seed: 3}, bits: [8], settings: {images.size: 40}}
bits: [16, 32]
seeds: [1, 2]
backbones: [test_resnet]
settings: {images.size: 48, training.epochs: 5}
overrides: [batch_size=16]
report: {metric: mAP@all, published: true, plots: [pr, speed]}
"""


def test_the_runs_of_a_file_and_the_precedence_of_its_settings(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(EVERYTHING)
    experiment = read_experiment(tmp_path / "all.yaml")
    assert experiment.name == "all"
    runs = runs_of(experiment)
    assert len(runs) == 2 * 2 * 2 + 2 * 1 * 2  # methods, code lengths and seeds of either dataset
    last = runs[-1]
    assert (last.method, last.chosen.name, last.bits, last.seed) == ("wch", "fashionmnist", 8, 2)
    assert last.name == "wch long"
    assert list(last.settings) == [
        "backbone=test_resnet", "images.size=48", "training.epochs=5", "images.size=40", "training.epochs=7",
        "optimizer.lr=0.001", "batch_size=16",
    ]  # fmt: skip
    # Settings of training are for the methods that are trained.
    assert list(runs[0].settings) == ["backbone=test_resnet", "images.size=48"]
    configs = [run.config for run in expected_runs(experiment).runs]
    assert configs[-1]["training"]["epochs"] == 7
    assert configs[-1]["images"]["size"] == 40
    assert (configs[-1]["protocol"], configs[-1]["data"]["seed"]) == ("small", 3)
    assert [config["seed"] for config in configs[:4]] == [1, 2, 1, 2]
    assert [config["bits"] for config in configs[:4]] == [16, 16, 32, 32]


def test_a_saved_experiment_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(EVERYTHING)
    experiment = read_experiment(str(tmp_path / "all.yaml"))
    (tmp_path / "again.yaml").write_text(experiment.as_yaml())
    assert read_experiment(tmp_path / "again.yaml") == experiment


def test_components_become_variants() -> None:
    content = {"methods": ["wch"], "datasets": ["digits"], "components": ["balance term", "patch weighting"]}
    experiment = read_experiment(content)
    assert [run.settings for run in runs_of(experiment)] == [
        (), ("hyperparameters.balance=false",), ("hyperparameters.patch_weighting=false",),
        ("hyperparameters.balance=false", "hyperparameters.patch_weighting=false"),
    ]  # fmt: skip
    assert len(runs_of(experiment.change({"components": "all"}, {}))) == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"datasets": None}, "the experiment, datasets: expected a list, got None"),
        ({"methods": "lsh"}, "the experiment, methods: expected a list, got 'lsh'"),
        ({"methods": [5]}, "the experiment, methods.0: expected keys and values, got 5"),
        ({"report": ["pr"]}, "the experiment, report: expected keys and values, got ['pr']"),
        ({"settings": None}, "settings: expected a mapping, or a list of texts KEY=VALUE, got None"),
        ({"settings": {"images.size": Path("a")}}, "expected numbers, texts, lists and mappings, got Posix"),
        ({"components": "balance term"}, "components: expected all, or a list of components, got 'balance"),
        ({1: 2}, "the experiment, 1: keys should be strings, got 1"),
        ({"training.epochs": 5}, "unknown key 'training.epochs'"),
        ({"name": "../x"}, "name: expected a name for a folder: at most 100 printable characters without a"),
        ({"name": "x" * 101}, "name: expected a name for a folder"),
        ({"methods": [{"name": "lsh", "label": "a" * 41}]}, "label: expected 1 to 40 printable characters"),
        ({"methods": [{"name": "lsh", "label": "a\nb"}]}, "label: expected 1 to 40 printable characters"),
        ({"seed": [1]}, "unknown key 'seed'; did you mean 'seeds'?"),
        ({"methods": [{"name": "lsh", "setings": {}}]}, "unknown key 'setings'; did you mean 'settings'?"),
        ({"datasets": [{"name": "digits", "bit": 3}]}, "unknown key 'bit'; did you mean 'bits'?"),
        ({"report": {"metrics": "mAP@all"}}, "unknown key 'metrics'; did you mean 'metric'?"),
        ({"methods": []}, "methods: expected one or more different values, got []"),
        ({"methods": ["lsh", "lsh"]}, "methods: expected one or more different values, got ['lsh', 'lsh']"),
        ({"bits": [0]}, "bits.0: input should be greater than 0, got 0"),
        ({"settings": ["lr"]}, "settings: expected KEY=VALUE, got 'lr'"),
        ({"report": {"plots": ["pie"]}}, "report.plots.0: input should be 'pr', 'bits',"),
    ],
)  # fmt: skip
def test_wrong_keys_and_values_are_named(content: dict[Any, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_experiment({"methods": ["lsh"], "datasets": ["digits"], **content})
    assert message in str(refused.value)
    with pytest.raises(UsageError, match="the experiment lacks the key datasets"):
        read_experiment({"methods": ["lsh"]})


def test_settings_of_numpy_and_of_a_timm_model() -> None:
    options = {"drop_rate": np.float64(0.1), "act_layer": "relu"}
    settings = {"images": {"size": np.int64(48), "mean": np.zeros(3)}, "backbone": {"options": options}}
    experiment = read_experiment({"methods": ["lsh"], "datasets": ["digits"], "settings": settings})
    assert experiment.settings == (
        "images.size=48", "images.mean=[0.0, 0.0, 0.0]", "backbone.options.drop_rate=0.1",
        "backbone.options.act_layer=relu",
    )  # fmt: skip
    (run,) = expected_runs(experiment).runs
    assert run.config["backbone"]["options"] == {"drop_rate": 0.1, "act_layer": "relu"}


@pytest.mark.parametrize(
    "text", ["[1, 2]", "a: [", "bits: [16]\nbits: [32]", "methods: !!python/name:os.system"]
)
def test_files_that_are_no_experiments(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"the experiment .*x\.yaml"):
        read_experiment(tmp_path / "x.yaml")
    with pytest.raises(UsageError, match="unknown experiment 'laptp'; did you mean 'laptop'"):
        read_experiment("laptp")
    with pytest.raises(UsageError, match=r"gone\.yaml cannot be read"):
        read_experiment("gone.yaml")


def test_shipped_experiments_are_valid() -> None:
    assert {*shipped_experiments()} >= {"laptop", "controlled", "wch-ablation", "wch-table1"}
    for name in shipped_experiments():
        experiment = read_experiment(name)
        experiment.require_registered()
        assert all([experiment.description, *experiment.needs.model_dump().values()])
        runs = expected_runs(experiment).runs
        assert len({repr(run.config) for run in runs}) == len(runs)
    (table,) = {len(expected_runs(read_experiment("wch-table1")).runs)}
    assert table == 4 * 3 * 3
    fair = [run.config for run in expected_runs(read_experiment("controlled")).runs]
    assert len({config["backbone"]["name"] for config in fair}) == 1
    assert {config["backbone"]["pretrained"] for config in fair} == {True}
    assert len({repr(config["images"]) for config in fair}) == 1


def test_the_reference_records_are_those_of_the_experiment_laptop() -> None:
    experiment = read_experiment("laptop")
    found = select(REFERENCE, filter_of(experiment), None)
    assert len(found.runs) == len(expected_runs(experiment).runs) == 160  # without those of the ablation
    assert found.shown_notes == []
    assert found.labels == [entry.name for entry in experiment.methods]


def test_missing_runs_and_other_settings_are_named() -> None:
    experiment = read_experiment(
        {"name": "mine", "methods": ["lsh"], "datasets": ["digits"], "bits": [16], "seeds": [0, 1, 99]}
    )
    found = select(REFERENCE, filter_of(experiment), None)
    assert [run.record.seed for run in found.runs] == [0, 1]
    assert found.shown_notes == [
        "1 of 3 runs of the experiment mine have no record: lsh on digits@default, 16 bits, seed 99"
    ]
    other = experiment.change({"overrides": ("images.size=33",), "seeds": (0,)}, {})
    with pytest.raises(
        UsageError, match=r"1 of 1 runs of the experiment mine have no record: lsh \(images\.size"
    ):
        select(REFERENCE, filter_of(other), None)
    drawn = experiment.change({"seeds": (0,)}, {"options": {"seed": 1}})
    with pytest.raises(UsageError, match="has no such run"):
        select(REFERENCE, filter_of(drawn), None)
    part = experiment.change({"seeds": (0,)}, {"options": {"fraction": 0.5}})
    with pytest.raises(UsageError, match="has no such run"):
        select(REFERENCE, filter_of(part), None)
    one = select(REFERENCE, filter_of(experiment, RunFilter(seeds=(1,))), None)
    assert ([run.record.seed for run in one.runs], one.notes) == ([1], [])  # seed 99 is not asked for
    trained = RunFilter(seeds=(0, 1), where={"seed": "0"})
    assert select(REFERENCE, filter_of(experiment, trained), None).notes == []


@pytest.mark.parametrize(
    "settings",
    [{"methods": [{"name": "lsh", "settings": ["backbone = b"]}]}, {"overrides": ["backbone.name=b"]}],
)
def test_a_backbone_is_named_once(settings: dict[str, Any]) -> None:
    content = {"methods": ["lsh"], "datasets": ["digits"], "backbones": ["a"], **settings}
    with pytest.raises(UsageError, match=r"the setting backbone.*b and the backbone a exclude each other"):
        runs_of(read_experiment(content))
    assert len(runs_of(read_experiment({**content, "backbones": []}))) == 1


def test_paths_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    content = {"methods": ["lsh"], "datasets": [{"name": "digits", "root": "~/a"}], "plugins": ["~/b.py"]}
    experiment = read_experiment(content)
    assert (experiment.datasets[0].root, experiment.plugins) == (Path("/home/me/a"), (Path("/home/me/b.py"),))


def test_runs_of_a_gpu_are_found_on_any_machine() -> None:
    settings = {"training.precision": "float16"}
    experiment = read_experiment({"methods": ["wch"], "datasets": ["digits"], "settings": settings})
    assert len(expected_runs(experiment).runs) == 1


def test_options_of_a_command_are_added_to_those_of_the_file() -> None:
    datasets = [{"name": "digits", "options": {"seed": 3}}, "fashionmnist"]
    experiment = read_experiment({"methods": ["lsh"], "datasets": datasets})
    changed = experiment.change({}, {"options": {"fraction": 0.5}})
    assert [entry.options for entry in changed.datasets] == [{"seed": 3, "fraction": 0.5}, {"fraction": 0.5}]


def test_two_limits_exclude_each_other() -> None:
    experiment = read_experiment({"methods": ["lsh"], "datasets": ["digits@default-limit100"]})
    assert [run.config["protocol"] for run in expected_runs(experiment).runs] == ["default-limit100"]
    with pytest.raises(UsageError, match="the protocol default-limit100 has another limit than 50"):
        expected_runs(experiment.change({}, {"limit": 50}))
