"""What a run is made of: a recipe and the flags, resolved into one frozen RunConfig."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hashbench.errors import HashbenchError, UsageError, unknown_name

Probability = Annotated[float, Field(ge=0, le=1)]
Rank = Annotated[int, Field(gt=0)] | Literal["all"]


class Section(BaseModel):
    """A part of the configuration: typed, frozen, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BackboneConfig(Section):
    """The network under the method; see `hashbench.create_backbone`."""

    name: str
    """`efficientnet_lite0` (built in) or any timm model."""
    pretrained: bool = True
    """Start from pretrained weights."""
    stage: int | None = None
    """Intermediate feature map that gives the tokens; None: the output."""
    freeze_batch_norm: bool = False
    """Keep batch norm on its stored statistics."""
    options: dict[str, Any] = {}
    """Further arguments of the timm model."""


class ImageConfig(Section):
    """How an image becomes a tensor, in training and in testing."""

    size: int = Field(default=224, gt=0)
    """Height and width in pixels: shorter side resized to it, then a centre crop."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from the channels, which are in 0..1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divides the channels."""


class AffineConfig(Section):
    """A random affine map."""

    degrees: float = Field(default=0.0, ge=0)
    """Largest rotation."""
    translate: Probability = 0.0
    """Largest shift, as a share of the image."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the scale."""
    shear: float = Field(default=0.0, ge=0)
    """Largest shear, in degrees."""


class ViewConfig(Section):
    """The random augmentation that makes a training view, in this order; the defaults change nothing."""

    affine: AffineConfig | None = None
    """Rotation, shift, scale and shear."""
    crop_scale: tuple[float, float] = (1.0, 1.0)
    """Range of the area of a random resized crop."""
    color_jitter: tuple[float, float, float, float] | None = None
    """Strength of brightness, contrast, saturation, hue."""
    color_jitter_probability: Probability = 0.8
    """Share of views with colour jitter."""
    grayscale: Probability = 0.0
    """Share of views without colour."""
    blur: Probability = 0.0
    """Share of views with a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the blur's standard deviation in pixels."""
    horizontal_flip: Probability = 0.0
    """Share of views that are mirrored."""


class OptimizerConfig(Section):
    """The optimizer, one of torch's."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Its name in torch.optim, in lower case."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate."""
    backbone_lr: float | None = Field(default=None, gt=0)
    """Learning rate of the backbone; None: `lr`."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay."""
    momentum: float = Field(default=0.0, ge=0)
    """Momentum of sgd; adam and adamw have none."""


class ScheduleConfig(Section):
    """How the learning rate goes over training."""

    name: Literal["constant", "cosine", "one_cycle"] = "constant"
    """`cosine` falls to 0, a step an epoch; `one_cycle` rises and falls, a step a batch."""


class TrainingConfig(Section):
    """The training loop."""

    epochs: int = Field(default=50, gt=0)
    """Passes over the training images."""
    batch_size: int = Field(default=32, gt=0)
    """Images a step; each gives all its views."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient; None: no limit."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward pass; `auto`: bfloat16 on a GPU that has it, else float32."""


class EvaluationConfig(Section):
    """What is measured; see `hashbench.evaluate`."""

    k: tuple[Rank, ...] = (1000, "all")
    """Ranks at which mAP, precision and recall are taken."""
    radius: int = Field(default=2, ge=0)
    """Hamming radius of the precision within a radius."""
    denominator: Literal["hits", "relevant"] = "hits"
    """What AP@K divides by."""
    no_relevant: Literal["zero", "skip"] = "zero"
    """Queries with nothing relevant in the database."""


class RunConfig(Section):
    """Everything about a run that can change its numbers, but for the data and the code."""

    method: str
    dataset: str
    protocol: str
    bits: int = Field(gt=0)
    seed: int = Field(ge=0)
    device: Literal["cpu", "cuda"]
    backbone: BackboneConfig
    images: ImageConfig = ImageConfig()
    views: ViewConfig = ViewConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    hyperparameters: dict[str, Any] = {}


# What has a flag of its own, or comes from the machine, is not for recipes and --set.
FLAGS = {"method", "dataset", "protocol", "bits", "seed", "device"}


def load_recipe(path: Path, dataset: str) -> dict[str, Any]:
    """Read the settings that a method's recipe has for one dataset.

    A recipe is a YAML file with `defaults` and, under `datasets`, what differs for each.

    Raises:
        HashbenchError: The file is not a recipe.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise HashbenchError(f"the recipe {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict) or not recipe.keys() <= {"defaults", "datasets"}:
        raise HashbenchError(f"the recipe {path} must have the keys defaults and datasets, and no other")
    return merge(recipe.get("defaults") or {}, (recipe.get("datasets") or {}).get(dataset) or {})


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `changes` over `base`, section by section.

    A section that names another thing than the base does (`backbone: {name: …}`) replaces the base's section:
    the settings of one backbone mean nothing to another.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and old.get("name") == value.get("name", old.get("name"))
        ):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def resolve(
    recipe: Mapping[str, Any],
    settings: Sequence[str],
    hyperparameters: type[BaseModel],
    **flags: Any,
) -> RunConfig:
    """Make the configuration of one run.

    Args:
        recipe: What `load_recipe` gave.
        settings: `KEY=VALUE` texts, the values in YAML. A key is a path (`training.epochs`), its last part
            where that is unique (`epochs`), or a section with a name (`backbone=resnet50`).
        hyperparameters: The method's model of its own settings.
        **flags: `method`, `dataset`, `protocol`, `bits`, `seed`, `device`.

    Raises:
        UsageError: A key is unknown or a value does not fit; the message names it.
    """
    for setting in settings:
        recipe = merge(recipe, _parse_setting(setting, hyperparameters))
    try:
        config = RunConfig(**{**recipe, **flags})
        own = hyperparameters(**config.hyperparameters)
    except ValidationError as error:
        raise UsageError(_in_one_line(error, hyperparameters)) from None
    return config.model_copy(update={"hyperparameters": own.model_dump(mode="json")})


def _parse_setting(setting: str, hyperparameters: type[BaseModel]) -> dict[str, Any]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"--set takes KEY=VALUE, not {setting!r}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {key}: {text!r} is not a YAML value") from None
    paths = dict(_paths(hyperparameters))
    matches = [path for path in paths if path == key or path.endswith(f".{key}")]
    if key in paths:
        matches = [key]
    if key in FLAGS:
        raise UsageError(f"--set {key}: use the flag --{key}")
    if len(matches) > 1:
        raise UsageError(f"--set {key}: which one, {' or '.join(matches)}?")
    if not matches:
        raise unknown_name("key", key, {*paths, *(path.rpartition(".")[2] for path in paths)})
    (path,) = matches
    if paths[path] and isinstance(value, str):
        value = {"name": value}
    for part in reversed(path.split(".")):
        value = {part: value}
    return dict(value)


def _paths(hyperparameters: type[BaseModel]) -> Iterator[tuple[str, bool]]:
    """Every key that a recipe may have, as a dotted path, and whether it is a section with a name."""
    for section, field in RunConfig.model_fields.items():
        if section in FLAGS:
            continue
        model = hyperparameters if section == "hyperparameters" else field.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        yield section, "name" in model.model_fields
        for name in model.model_fields:
            yield f"{section}.{name}", False


def _in_one_line(error: ValidationError, hyperparameters: type[BaseModel]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if error.title == hyperparameters.__name__:
        key = f"hyperparameters.{key}"
    if first["type"] == "extra_forbidden":
        return str(unknown_name("key", key, (path for path, _ in _paths(hyperparameters))))
    if first["type"] == "missing":
        return f"the recipe lacks {key}; give it with --set {key}=…"
    return f"{key}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}"
