"""Experiment files on the command line: `run`, `table`, `plot` and `report` with --config, and the list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_plugin import PLUGIN, RECIPE
from helpers.trees import photo

from hashbench.experiment.definition import read_experiment

STUDY = """
methods: [tiny, {name: lsh, label: random lines}]
datasets: [toy@short]
backbones: [test_resnet]
bits: [4, 8]
seeds: [0, 1]
settings: {images.size: 16, pretrained: false, evaluation.k: [5]}
plugins: [toy.py]
report: {bounds: true, plots: [bits, training]}
"""


@pytest.fixture
def study(cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Write an experiment of a plugin and return the function that runs commands."""
    (tmp_path / "toy.py").write_text(PLUGIN)
    (tmp_path / "toy.yaml").write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(STUDY)
    return cli


def test_a_study_from_a_file(study: Callable[..., Any], tmp_path: Path) -> None:
    assert study("run", "--config=study.yaml", "--set=epochs=1", "--seed=0").code == 0
    folder = tmp_path / "results" / "runs" / "experiments" / "study"
    assert {path.name for path in folder.iterdir()} == {
        "experiment.yaml", "table.md", "table.tex", "table.csv", "bits.pdf", "training.pdf",
    }  # fmt: skip
    resolved = read_experiment(folder / "experiment.yaml")
    assert (resolved.name, resolved.seeds, resolved.overrides) == ("study", (0,), ("epochs=1",))
    assert "| random lines" in (folder / "table.md").read_text()
    assert "no record" not in (folder / "table.md").read_text()

    # The whole study has another seed and other epochs, so that its runs of `tiny` are missing.
    shown = study("table", "--config", "study.yaml")
    assert shown.code == 0, shown.err
    assert "| random lines" in shown.out
    assert "| tiny" not in shown.out
    missing = "6 of 8 runs of the experiment study have no record: tiny (backbone=test_resnet, images.size=16"
    assert missing in shown.out
    assert missing in shown.err
    same = study("table", "--config", folder / "experiment.yaml")
    assert same.out == (folder / "table.md").read_text()
    assert "| tiny" in same.out
    assert study("plot", "bits", "--config", "study.yaml", "--output", "a.pdf").code == 0
    assert study("report", "--config", "study.yaml").code == 0
    assert "6 of 8 runs of the experiment study" in (tmp_path / "report.html").read_text()


def test_methods_and_datasets_are_chosen_and_other_options_replace(
    study: Callable[..., Any], tmp_path: Path
) -> None:
    rows = json.loads(
        study("run", "--config=study.yaml", "--method=lsh", "--bits=16", "--dry-run", "--json").out
    )
    assert [(row["method"], row["bits"], row["seed"]) for row in rows] == [("lsh", 16, 0), ("lsh", 16, 1)]
    assert rows[0]["command"][-2:] == ["--plugin", "toy.py"]
    with (tmp_path / "study.yaml").open("a") as file:
        file.write("allow_overlap: true\n")
    rows = json.loads(study("run", "--config=study.yaml", "--dry-run", "--json").out)
    assert {row["command"][-1] for row in rows} == {"--allow-overlap"}
    done = study("run", "--config=study.yaml", "--method=itq")
    assert (done.code, done.err) == (
        2, "hashbench: error: unknown method of the experiment study 'itq'; known: lsh, tiny\n",
    )  # fmt: skip


def test_an_ablation_has_the_components_of_the_file(study: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY + "components: [large batch]\n")
    done = study("ablate", "--config=study.yaml", "--method=tiny")
    assert (done.code, done.err) == (
        2, "hashbench: error: unknown component of tiny 'large batch'; did you mean 'small batch'?\n",
    )  # fmt: skip


def test_a_plan_without_data_says_what_to_do(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("run", "--config=wch-table1", "--dry-run", "--device=cpu", f"--data-root={tmp_path}",
               "--method=wch,bihalf", "--dataset=nuswide,coco", "--bits=16,32")  # fmt: skip
    assert done.code == 0
    lines = done.out.splitlines()
    steps = [line for line in lines if line[:2] in {"1.", "2.", "3.", "4."}]
    assert "8 impossible" in lines
    assert steps[0].startswith(f"1. needed by 4 runs: nuswide: no Groundtruth/AllLabels in {tmp_path}")
    assert steps[1].startswith("2. needed by 4 runs: the weights of vit_base_patch16_224.orig_in21k")
    assert steps[2].startswith("3. needed by 4 runs: the weights of vgg16.tv_in1k")
    assert steps[3].startswith("4. needed by 4 runs: coco: no annotations/instances_train2014.json in ")
    assert f"next: hashbench data prepare coco --protocol 107k --data-root {tmp_path}" in lines


def test_the_runs_of_a_collection_are_found(cli: Callable[..., Any], tmp_path: Path) -> None:
    """The record has the name of the folder, which the experiment leaves out."""
    for number in range(8):
        photo(tmp_path / "mine" / ("cat" if number % 2 else "dog") / f"{number}.png", number, number)
    settings = "{backbone: test_resnet, pretrained: false, images.size: 16}"
    text = f"methods: [lsh]\ndatasets: [{{name: folder, root: mine}}]\nbits: [4]\nsettings: {settings}\n"
    (tmp_path / "own.yaml").write_text(text)
    assert cli("run", "--config=own.yaml").code == 0
    shown = cli("table", "--config=own.yaml")
    assert shown.code == 0, shown.err
    assert "no record" not in shown.out
    (tmp_path / "own.yaml").write_text(text.replace("root: mine", "root: yours"))
    other = cli("table", "--config=own.yaml")
    assert other.code == 2
    assert "1 of 1 runs of the experiment own have no record" in other.err


def test_the_list_of_experiments(cli: Callable[..., Any]) -> None:
    listed = cli("experiments")
    assert listed.code == 0
    for name in ("controlled", "laptop", "wch-ablation", "wch-table1"):
        assert f"\n{name}: " in f"\n{listed.out}"
    assert "(an estimate" in listed.out
    names = [row["name"] for row in json.loads(cli("experiments", "--json").out)]
    assert names == ["controlled", "laptop", "wch-ablation", "wch-table1"]
