"""The parts of a recipe: the published settings, and those for machines without a GPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.trees import photo

from hashbench import HashbenchError, UsageError, read_record, registry
from hashbench.config import RunConfig
from hashbench.experiment.configure import (
    changes,
    is_fitted,
    published_protocol,
    resolve_run,
    training_length,
)
from hashbench.recipe import load_recipe, split_part
from hashbench.runtime.yaml_values import as_set

TEXT = """
defaults: {images: {size: 224}, training: {epochs: 50, batch_size: 32}, evaluation: {k: [1000]}}
bits: {16: {training: {epochs: 80, accumulate: 2}}}
datasets: {coco: {training: {epochs: 60, drop_last: true}, evaluation: {k: [5000]}}}
laptop:
  defaults: {images: {size: 64}, training: {epochs: 3}}
  datasets: {digits: {images: {size: 32}}}
"""
METHODS = sorted(registry.entries("method"))


def config(method: str, dataset: str, *settings: str, bits: int = 32) -> RunConfig:
    flags = {"method": method, "dataset": dataset, "protocol": "default", "bits": bits, "seed": 0}
    return resolve_run({**flags, "device": "cpu", "processes": 1}, settings)


def test_the_parts_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(TEXT)
    paper = {
        "images": {"size": 224},
        "training": {"epochs": 50, "batch_size": 32},
        "evaluation": {"k": [1000]},
    }
    laptop = {**paper, "images": {"size": 64}, "training": {"epochs": 3, "batch_size": 32}}
    digits = {**laptop, "images": {"size": 32}}
    coco = {"training": {"epochs": 60, "batch_size": 32, "drop_last": True}, "evaluation": {"k": [5000]}}
    for dataset, part, expected in (
        ("other", None, {**paper, "recipe": "paper"}),
        ("other", "paper", {**paper, "recipe": "paper"}),
        ("other", "laptop", {**laptop, "recipe": "laptop"}),
        ("digits", None, {**digits, "recipe": "laptop"}),
        ("digits", "laptop", {**digits, "recipe": "laptop"}),
        ("digits", "paper", {**paper, "recipe": "paper"}),
        ("coco", None, {**paper, **coco, "recipe": "paper"}),
        ("coco", "laptop", {**laptop, "evaluation": {"k": [5000]}, "recipe": "laptop"}),
    ):
        assert load_recipe(path, dataset, 32, part) == expected, (dataset, part)
    assert load_recipe(path, "digits", 16)["training"] == {"epochs": 3, "batch_size": 32, "accumulate": 2}

    path.write_text("defaults: {images: {size: 8}}")
    for part in (None, "paper"):
        assert load_recipe(path, "digits", 32, part) == {"images": {"size": 8}}
    with pytest.raises(
        UsageError, match=r"recipe\.yaml has no part laptop; add one, or leave out recipe=laptop"
    ):
        load_recipe(path, "digits", 32, "laptop")
    for text in (
        "laptop: {bits: {}}",
        "laptop: 3",
        "laptop: {datasets: {digits: 3}}",
        "defaults: {recipe: paper}",
    ):
        path.write_text(text)
        with pytest.raises(HashbenchError, match=r"the recipe .*recipe\.yaml"):
            load_recipe(path, "digits", 32)


def test_the_last_choice_of_a_part_counts() -> None:
    assert split_part(["epochs=3"]) == (None, ["epochs=3"])
    assert split_part(["recipe=laptop", "epochs=3", "recipe=paper"]) == ("paper", ["epochs=3"])
    with pytest.raises(UsageError, match="recipe='lap': expected paper or laptop"):
        split_part(["recipe=lap"])


@pytest.mark.parametrize(
    ("method", "setting", "changed"),
    [
        ("wch", "views.affine=null", {"views.affine": None}),
        ("wch", "views.affine.degrees=5", {"views.affine.degrees": 5}),
        ("cibhash", "backbone.options.drop_path_rate=0.1", {"backbone.options.drop_path_rate": 0.1}),
        ("bihalf", "views.affine={degrees: 5, scale: [0.9, 1]}", {
            "views.affine.degrees": 5, "views.affine.translate": 0, "views.affine.scale": [0.9, 1],
            "views.affine.shear": 0,
        }),
    ],
)  # fmt: skip
def test_changes_of_sections_that_may_be_missing_make_the_same_run(
    method: str, setting: str, changed: dict[str, Any]
) -> None:
    run = config(method, "digits", setting)
    assert changes(run) == changed
    assert config(method, "digits", *(f"{path}={as_set(value)}" for path, value in changed.items())) == run


@pytest.mark.parametrize("method", METHODS)
def test_each_method_has_a_recipe_for_any_dataset_on_a_laptop(method: str) -> None:
    """The network is installed, and the number of steps does not depend on the dataset."""
    for dataset in ("folder", "coco"):
        run = config(method, dataset, "recipe=laptop")
        assert run.backbone.name == "efficientnet_lite0"
        assert run.images.size <= 96
        assert run.evaluation == config(method, dataset).evaluation
        assert is_fitted(method) or (run.training.epoch_images == 5000 and run.training.epochs <= 100)
        assert (run.recipe, changes(run)) == ("laptop", {"recipe": "laptop"})
        assert published_protocol(run, 100_000) is None
        for images in (10, 60, 100_000):  # not more steps for few images
            assert is_fitted(method) or training_length(run, images)[0] <= 160
    for dataset in ("digits", "fashionmnist"):
        run = config(method, dataset)
        assert run == config(method, dataset, "recipe=laptop")
        assert (run.recipe, changes(run), run.training.epoch_images) == ("laptop", {}, None)
        paper = config(method, dataset, "recipe=paper", "k=[7]")
        assert changes(paper) == {"recipe": "paper", "evaluation.k": [7]}
        assert paper.backbone == config(method, "folder").backbone
    assert changes(config(method, "folder", "recipe=paper")) == {}


@pytest.mark.usefixtures("small_digits")
def test_runs_of_both_parts_are_verified(cli: Callable[..., Any]) -> None:
    run = ("run", "--method", "lsh", "--dataset", "digits", "--bits", "16")
    for part in ([], ["--recipe", "paper", "--backbone", "efficientnet_lite0", "--set", "images.size=32"]):
        done = cli(*run, *part)
        assert done.code == 0, done.err
    verified = cli("results", "verify")
    assert (verified.code, "2 passed" in verified.out) == (0, True), verified.out + verified.err


def test_a_recipe_for_a_laptop_needs_no_other_option(cli: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(24):
        photo(tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg", number % 2, number)
    run = ("run", "--method", "lsh,bihalf", "--dataset", "folder", "--data-root", tmp_path / "photos")
    run = (*run, "--bits", "16", "--set", "epochs=1", "--set", "epoch_images=40")
    done = cli(*run, "--recipe", "laptop", "--results", tmp_path / "runs")
    assert done.code == 0, done.err
    records = {r.method: r for r in (read_record(p.parent) for p in (tmp_path / "runs").rglob("record.json"))}
    assert records["lsh"].changes == {"recipe": "laptop"}
    assert records["bihalf"].config["recipe"] == "laptop"
    (log,) = (tmp_path / "runs").rglob("bihalf*/log.jsonl")
    assert len(log.read_text().splitlines()) == 2  # passes over 22 images, of a batch each
    table = cli("table", "--results", tmp_path / "runs")
    assert "All runs (recipe=laptop)." in table.out
    assert "; laptop recipes." in table.out
    shown = cli("results", "show", records["lsh"].run_id, "--results", tmp_path / "runs")
    assert "recipe=laptop" in "".join(shown.out.split())

    wrong = cli(*run, "--recipe", "desktop", "--results", tmp_path / "runs")
    assert wrong.code == 2
    assert "'desktop' is not one of 'paper', 'laptop'" in wrong.err
