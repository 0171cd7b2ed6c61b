"""Tests of recipes, settings and the configuration."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import hashbench_methods
from hashbench import HashbenchError, UsageError, registry
from hashbench.backbones.pixels import with_backbone
from hashbench.config import RunConfig, ViewConfig
from hashbench.recipe import load_recipe, merge, resolve
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
        "nearest_patch": True,
        "local_similarity": True,
        "balance": True,
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
        ("views.affine.degrees=5", "views.affine.degrees", 5.0),
        ("degrees=5", "views.affine.degrees", 5.0),
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
    for settings in (("backbone=vgg16", "stage=-1"), ("stage=-1", "backbone=vgg16")):
        backbone = set_to(*settings).backbone
        assert (backbone.name, backbone.stage, backbone.options) == ("vgg16", -1, {})


def test_another_optimizer_keeps_the_learning_rate() -> None:
    for settings in (("lr=1e-4", "optimizer=adamw"), ("optimizer=adamw", "lr=1e-4")):
        optimizer = set_to(*settings).optimizer
        assert (optimizer.name, optimizer.lr) == ("adamw", 1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=7", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("trainning.epochs=7", "unknown key 'trainning.epochs'; did you mean 'training.epochs'?"),
        ("epochs", "--set: expected KEY=VALUE, got 'epochs'"),
        (
            "name=adam",
            "--set name: the key is ambiguous; use backbone.name or optimizer.name or schedule.name or "
            "selection.name",
        ),
        ("bits=64", "--set bits: use the flag --bits"),
        ("epochs=many", "training.epochs='many': input should be a valid integer"),
        ("epochs=0", "training.epochs=0: input should be greater than 0"),
        ("weight_temperature=-1", "hyperparameter weight_temperature=-1: input should be greater than 0"),
        ("optimizer={learning_rate: 1}", "unknown key 'optimizer.learning_rate'"),
        ("epochs=[1", "--set epochs: '[1' is not a YAML value"),
        ("hyperparameters={tau: 1}", "unknown hyperparameter 'tau'"),
        ("crop_scale=[1, 0.2]", "views.crop_scale=[1, 0.2]: expected a range with positive limits"),
        ("images.std=[0, 0, 0]", "images.std.0=0: input should be greater than 0"),
        (
            "color_jitter=[0, 0, 0, 0.6]",
            "views.color_jitter.3=0.6: input should be less than or equal to 0.5",
        ),
        (
            "options={stage: 2}",
            "backbone.options={'drop_path_rate': 0.1, 'stage': 2}: stage cannot be an option",
        ),
        ("batch_size=1", "training.batch_size=1: input should be greater than or equal to 2"),
    ],
)
def test_invalid_settings(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        set_to(setting)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_the_error_about_a_missing_backbone_has_advice() -> None:
    with pytest.raises(UsageError, match="does not set backbone; set it with --set backbone="):
        resolve({}, (), WCH.Hyperparameters, **FLAGS)


def test_sections_override_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "defaults: {training: {epochs: 3, batch_size: 8}}\n"
        "bits: {16: {training: {epochs: 5, drop_last: true}}}\n"
        "datasets: {digits: {training: {epochs: 1}}}"
    )
    assert load_recipe(path, "digits", 32) == {"training": {"epochs": 1, "batch_size": 8}}
    assert load_recipe(path, "coco", 32) == {"training": {"epochs": 3, "batch_size": 8}}
    assert load_recipe(path, "coco", 16) == {"training": {"epochs": 5, "batch_size": 8, "drop_last": True}}
    assert load_recipe(path, "digits", 16)["training"] == {"epochs": 1, "batch_size": 8, "drop_last": True}


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "default: {}",
        "a: [",
        "!!python/object/apply:os.getcwd []",
        "defaults: 3",
        "datasets: {digits: 5}",
        "bits: {many: {}}",
        "3: {}",
        "",
        "defaults: {bits: 16}",
    ],
)
def test_invalid_recipes_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(HashbenchError, match=r"recipe .*recipe\.yaml"):
        load_recipe(path, "digits", 32)


def test_merge_does_not_change_its_arguments() -> None:
    base = {"a": {"b": 1, "c": 2}}
    assert merge(base, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


def test_hyperparameters_of_a_plain_model_have_no_unknown_keys() -> None:
    class Plain(BaseModel):
        tau: float = 1.0

    assert resolve(RECIPE, ["tau=2"], Plain, **FLAGS).hyperparameters == {"tau": 2.0}
    with pytest.raises(UsageError, match="unknown hyperparameter 'taus'; did you mean 'tau'"):
        resolve({**RECIPE, "hyperparameters": {"taus": 3}}, (), Plain, **FLAGS)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_invalid_seeds(seed: int) -> None:
    with pytest.raises(UsageError, match="seed="):
        resolve(RECIPE, (), WCH.Hyperparameters, **{**FLAGS, "seed": seed})


PUBLISHED: dict[str, dict[str, Any]] = {
    "cibhash": {
        "backbone.name": "vgg16.tv_in1k", "backbone.options": {"drop_rate": 0.5}, "images.size": 224,
        "views.crop_scale": (0.5, 1.0), "views.color_jitter": (0.4, 0.4, 0.4, 0.1),
        "views.color_jitter_probability": 0.7, "views.grayscale": 0.2, "views.blur": 0.5,
        "views.blur_sigma": (0.1, 2.0), "views.blur_kernel": 3, "views.horizontal_flip": 0.5,
        "views.whole_image": True, "optimizer.name": "adam", "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 0, "schedule.name": "constant", "training.epochs": 60,
        "training.batch_size": 64, "training.freeze_backbone": True, "training.feature_dropout": True,
        "evaluation.k": (1000, "all"), "hyperparameters": {"temperature": 0.3, "kl_weight": 0.001},
    },
    "bihalf": {
        "backbone.name": "vgg16.tv_in1k", "backbone.options": {"drop_rate": 0.5}, "images.size": 224,
        "images.resize": None, "views": ViewConfig(), "optimizer.name": "sgd", "optimizer.lr": 1e-4,
        "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4, "schedule.name": "step",
        "schedule.step_epochs": 120, "schedule.step_factor": 0.1, "training.epochs": 300,
        "training.batch_size": 32, "training.freeze_backbone": True, "training.feature_dropout": True,
        "evaluation.k": (1000, "all"), "hyperparameters": {"gamma": 6.0},
    },
    "spq": {
        "backbone.name": "resnet18_cifar", "backbone.pretrained": False, "images.size": 32,
        "images.mean": (0, 0, 0), "images.std": (1, 1, 1), "views.crop_scale": (0.08, 1.0),
        "views.color_jitter": (0.4, 0.4, 0.4, 0.1), "views.color_jitter_probability": 0.8,
        "views.grayscale": 0.2, "views.blur": 0.5, "views.blur_sigma": (0.1, 2.0), "views.blur_kernel": 3,
        "views.horizontal_flip": 0.5, "views.whole_image": True, "optimizer.name": "adam",
        "optimizer.lr": 3e-4, "optimizer.weight_decay": 1e-5, "schedule.name": "cosine",
        "schedule.hold_epochs": 10, "schedule.cosine_epochs": "batches", "training.epochs": 5000,
        "training.batch_size": 256, "training.drop_last": True, "training.freeze_backbone": False,
        "evaluation.k": (1000, "all"),
        "hyperparameters": {"words": 16, "dim": 16, "quantization_scale": 5.0, "temperature": 0.5},
    },
}  # fmt: skip


def shipped(method: str, dataset: str, bits: int = 32) -> RunConfig:
    entry = registry.find("method", method)
    recipe = entry.recipe()
    assert recipe is not None
    flags = {**FLAGS, "method": method, "dataset": dataset, "bits": bits}
    return resolve(load_recipe(recipe, dataset, bits), (), entry.load().Hyperparameters, **flags)


@pytest.mark.parametrize("method", PUBLISHED)
def test_shipped_recipes_are_those_of_the_papers(method: str) -> None:
    config = shipped(method, "cifar10")
    for path, expected in PUBLISHED[method].items():
        value: Any = config
        for part in path.split("."):
            value = getattr(value, part)
        assert value == expected, path


def test_recipes_have_the_exceptions_of_the_published_code() -> None:
    assert shipped("cibhash", "cifar10", 16).training.epochs == 80
    assert shipped("cibhash", "digits", 16).training.epochs == 10
    coco = shipped("bihalf", "coco")
    assert (coco.optimizer.lr, coco.schedule.step_epochs, coco.training.epochs) == (1e-3, 60, 150)
    assert (coco.images.resize, coco.views.random_crop, coco.views.horizontal_flip) == (256, True, 0.5)
    flickr = shipped("bihalf", "flickr25k")
    assert (flickr.optimizer.lr, flickr.schedule.step_epochs, flickr.training.epochs) == (1e-4, 60, 100)


def test_another_schedule_drops_the_settings_of_the_first() -> None:
    base = {"schedule": {"name": "cosine", "hold_epochs": 10}}
    assert merge(base, {"schedule": {"name": "step"}}) == {"schedule": {"name": "step"}}
    assert merge(base, {"schedule": {"cosine_epochs": 5}})["schedule"]["hold_epochs"] == 10


def test_settings_that_exclude_each_other() -> None:
    for settings, message in (
        (["images.size=64", "images.resize=48"], "expected resize to be at least size=64, got resize=48"),
        (["random_crop=true", "whole_image=true"], "random_crop and whole_image cannot both be true"),
        (["k=[]"], "at least 1 item"),
    ):
        with pytest.raises(UsageError, match=message):
            resolve(RECIPE, settings, WCH.Hyperparameters, **FLAGS)


def test_shipped_recipe_of_wch() -> None:
    path = Path(hashbench_methods.__path__[0]) / "wch" / "recipe.yaml"

    def config(dataset: str) -> RunConfig:
        flags = {**FLAGS, "dataset": dataset}
        return resolve(load_recipe(path, dataset, 32), (), WCH.Hyperparameters, with_backbone, **flags)

    for dataset, k in (("cifar10", 1000), ("nuswide", 5000), ("coco", 5000), ("any other", 1000)):
        paper = config(dataset)
        assert paper.backbone.name == "vit_base_patch16_224.orig_in21k"
        assert paper.images.size == 224
        assert (paper.optimizer.name, paper.optimizer.lr, paper.optimizer.backbone_lr) == ("adam", 1e-5, None)
        assert (paper.schedule.name, paper.training.epochs, paper.training.batch_size) == ("cosine", 50, 32)
        assert paper.evaluation.k == (k, "all")
        assert paper.views.crop_scale == (0.2, 1.0)
    for dataset in ("digits", "fashionmnist"):
        fitted = config(dataset)
        assert fitted.backbone.name == "efficientnet_lite0"
        assert fitted.backbone.options == {}
        assert fitted.backbone.freeze_batch_norm
        assert fitted.views.color_jitter is None
    assert config("digits").views.horizontal_flip == 0
