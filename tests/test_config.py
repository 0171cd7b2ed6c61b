"""Recipes, overrides and the frozen configuration."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hashbench import HashbenchError, UsageError
from hashbench.config import RunConfig, load_recipe, merge, resolve
from hashbench_methods.wch import WCH

FLAGS: dict[str, Any] = {
    "method": "wch", "dataset": "digits", "protocol": "default", "bits": 16, "seed": 0, "device": "cpu",
}  # fmt: skip
RECIPE = {"backbone": {"name": "resnet18", "options": {"drop_path_rate": 0.1}}, "training": {"epochs": 3}}


def set_to(*settings: str) -> RunConfig:
    return resolve(RECIPE, settings, WCH.Hyperparameters, **FLAGS)


def test_resolved_values_and_defaults() -> None:
    config = set_to()
    assert (config.method, config.bits, config.training.epochs, config.training.batch_size) == (
        "wch",
        16,
        3,
        32,
    )
    assert config.backbone.options == {"drop_path_rate": 0.1}
    assert config.hyperparameters == {
        "mutual_attention": True,
        "patch_weighting": True,
        "attention_temperature": 1.0,
        "weight_temperature": 0.2,
        "similarity_temperature": 0.3,
    }
    with pytest.raises(ValidationError, match="frozen"):
        config.bits = 32  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("training.epochs=7", "training.epochs", 7),
        ("epochs=7", "training.epochs", 7),
        ("lr=1e-3", "optimizer.lr", 0.001),  # YAML reads 1e-3 as text
        ("k=[10, all]", "evaluation.k", (10, "all")),
        ("mutual_attention=false", "hyperparameters.mutual_attention", False),
        ("views.affine={degrees: 5}", "views.affine.degrees", 5.0),
        ("optimizer.name=sgd", "optimizer.name", "sgd"),
        ("schedule=cosine", "schedule.name", "cosine"),
    ],
)
def test_settings(setting: str, path: str, value: object) -> None:
    found: Any = set_to(setting)
    for part in path.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


def test_another_backbone_drops_the_settings_of_the_first() -> None:
    assert set_to("backbone=vgg16").backbone.options == {}
    assert set_to("backbone=resnet18").backbone.options == {"drop_path_rate": 0.1}
    assert set_to("backbone=vgg16", "stage=-1").backbone.stage == -1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=7", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("trainning.epochs=7", "unknown key 'trainning.epochs'; did you mean 'training.epochs'?"),
        ("epochs", "--set takes KEY=VALUE, not 'epochs'"),
        ("name=adam", "--set name: which one, backbone.name or optimizer.name or schedule.name?"),
        ("bits=64", "--set bits: use the flag --bits"),
        ("epochs=many", "training.epochs='many': input should be a valid integer"),
        ("epochs=0", "training.epochs=0: input should be greater than 0"),
        ("weight_temperature=-1", "hyperparameters.weight_temperature=-1: input should be greater than 0"),
        ("optimizer={learning_rate: 1}", "unknown key 'optimizer.learning_rate'"),
        ("epochs=[1", "--set epochs: '[1' is not a YAML value"),
    ],
)
def test_settings_that_do_not_fit(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        set_to(setting)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_recipe_without_a_backbone_says_how_to_give_one() -> None:
    with pytest.raises(UsageError, match="lacks backbone; give it with --set backbone="):
        resolve({}, (), WCH.Hyperparameters, **FLAGS)


def test_recipes_of_datasets_lie_over_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "defaults: {training: {epochs: 3, batch_size: 8}}\ndatasets: {digits: {training: {epochs: 1}}}"
    )
    assert load_recipe(path, "digits") == {"training": {"epochs": 1, "batch_size": 8}}
    assert load_recipe(path, "coco") == {"training": {"epochs": 3, "batch_size": 8}}


@pytest.mark.parametrize("text", ["- a", "default: {}", "a: [", "!!python/object/apply:os.getcwd []"])
def test_what_is_no_recipe_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(HashbenchError, match=r"recipe .*recipe\.yaml"):
        load_recipe(path, "digits")


def test_merge_leaves_its_arguments_alone() -> None:
    base = {"a": {"b": 1, "c": 2}}
    assert merge(base, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}
