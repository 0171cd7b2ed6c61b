"""The configuration of a run, and how it differs from the recipe of its method."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from hashbench import distributed, registry
from hashbench.backbones.pixels import pixel_note, with_backbone
from hashbench.config import RunConfig, flatten
from hashbench.data.dataset import Dataset
from hashbench.data.load import create_dataset
from hashbench.data.packing import require_size
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.experiment.relevance import require_relevance
from hashbench.experiment.validation import hold_out
from hashbench.images.gpu_transforms import DeviceViews
from hashbench.method.base import HashMethod, ShallowMethod
from hashbench.recipe import (
    FLAGS,
    load_components,
    load_published_protocols,
    load_recipe,
    resolve,
    setting_path,
    split_part,
)
from hashbench.results.published_protocol import PublishedProtocol
from hashbench.runtime.device import resolve_precision
from hashbench.runtime.files import sha256_of
from hashbench.training.dataloader import EpochBatches

_OF_TRAINING = {"views", "optimizer", "schedule", "training", "selection"}  # sections without use in a fit


def configure(
    method: str, dataset: Dataset, *, bits: int, seed: int, device: str, settings: Sequence[str] = ()
) -> RunConfig:
    """Resolve the configuration of a run from the recipe of its method and the settings of the user.

    Args:
        method: Name of a registered method.
        dataset: The loaded dataset.
        bits: Length of the codes.
        seed: Random seed.
        device: "cpu" or "cuda".
        settings: Texts `KEY=VALUE`.

    Raises:
        UsageError: A setting is unknown, or does not fit the method or the dataset.
        HashbenchError: The recipe cannot be read.
    """
    for setting in settings:
        _require_setting(method, setting)
    flags: dict[str, Any] = {"method": registry.find("method", method).name, "bits": bits, "seed": seed}
    flags |= {"device": device, "processes": distributed.world_size()}
    flags |= {"dataset": dataset.name, "protocol": dataset.protocol, "data": dict(dataset.options)}
    config = resolve_run(flags, settings)
    # These checks come before any training, which may take hours for the other runs of a grid.
    if config.views.on_device:
        DeviceViews(config.images, config.views)
    require_relevance(dataset.query, dataset.database, config)
    images = len(hold_out(dataset, config).train)
    if not is_fitted(method):
        training_length(config, images)
    published_protocol(config, images)
    require_size(dataset, config.images.resize or config.images.size)
    return config


def settings_by_method(methods: Sequence[str], settings: Sequence[str]) -> dict[str, list[str]]:
    """Return the settings that each method has, of those for all of them.

    Raises:
        UsageError: No method has a setting.
    """
    found: dict[str, list[str]] = {method: [] for method in methods}
    for setting in settings:
        errors = []
        for method in methods:
            try:
                _require_setting(method, setting)
                found[method].append(setting)
            except UsageError as error:
                errors.append(error)
        if len(errors) == len(methods):
            raise errors[0]
    return found


def _require_setting(method: str, setting: str) -> None:
    """Check that a method has the setting that a text `KEY=VALUE` changes.

    Raises:
        UsageError: The setting is unknown, or one of training and the method is fitted.
    """
    path = setting_path(setting, registry.find("method", method).load().Hyperparameters)
    if path.partition(".")[0] in _OF_TRAINING and is_fitted(method):
        raise UsageError(f"--set {path}: {method} is fitted in a single step, without training; leave it out")


def is_fitted(method: str) -> bool:
    """Return True if a method is fitted in a single step, without training."""
    return issubclass(registry.find("method", method).load(), ShallowMethod)


def resolve_run(flags: dict[str, Any], settings: Sequence[str]) -> RunConfig:
    """Resolve a configuration from the values of `hashbench.recipe.FLAGS` and texts `KEY=VALUE`."""
    part, settings = split_part(settings)
    entry = registry.find("method", flags["method"])
    cls: type[HashMethod] = entry.load()
    path = entry.recipe()
    if path is None and part == "laptop":
        raise UsageError(f"{entry.name} has no recipe, so it has no part laptop; leave out --recipe laptop")
    recipe = load_recipe(path, flags["dataset"], flags["bits"], part) if path else {}
    config = resolve(recipe, settings, cls.Hyperparameters, with_backbone, **flags)
    precision = resolve_precision(config.training.precision, config.device)
    resolve_precision(config.evaluation.precision_encode, config.device, "precision_encode")
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def length_note(config: RunConfig, dataset: Dataset) -> str | None:
    """Describe how the length of training differs from the published one; None if it does not.

    Raises:
        HashbenchError: The recipe names a protocol that the dataset does not have.
    """
    published = published_protocol(config, len(hold_out(dataset, config).train))
    return published.difference(config.method, config.dataset, config.protocol) if published else None


def record_fields(config: RunConfig, images: int) -> dict[str, Any]:
    """Return the fields of a record that come from the recipe of the method.

    Raises:
        HashbenchError: The recipe cannot be read, or names a protocol that the dataset does not have.
    """
    path = registry.find("method", config.method).recipe()
    return {
        "changes": changes(config),
        "components": components(config.method),
        "recipe": sha256_of(path) if path else None,
        "published_protocol": published_protocol(config, images),
    }


def changes(config: RunConfig) -> dict[str, Any]:
    """Return the settings that differ from the recipe of the method, by dotted path.

    The result is empty if the recipe alone does not describe a complete run, or if there is no recipe.
    """
    return differences(recipe_alone(config), config)


def recipe_alone(config: RunConfig) -> RunConfig | None:
    """Return the configuration that the recipe gives without other settings; None if it is incomplete.

    It has the settings of the same part of the recipe, and names the part that is used without a choice.
    """
    flags = {key: getattr(config, key) for key in FLAGS}
    try:
        default = resolve_run(flags, ())
        if config.recipe == default.recipe:
            return default
        chosen = resolve_run(flags, [f"recipe={config.recipe}"])
    except UsageError:
        return None
    return chosen.model_copy(update={"recipe": default.recipe})


def differences(recipe: RunConfig | None, config: RunConfig) -> dict[str, Any]:
    """Return the settings of a run that differ from those of `recipe_alone`, by dotted path."""
    # Selection on the queries is reported even if the recipe asks for it.
    reported = {"selection.name": "best-on-query"} if config.selection.name == "best-on-query" else {}
    if recipe is None:
        return reported
    for section in ("backbone", "schedule"):  # the recipe's options do not apply to another backbone
        default, chosen = getattr(recipe, section), getattr(config, section)
        if default.name != chosen.name:
            recipe = recipe.model_copy(update={section: type(default)(name=default.name)})
    if recipe.backbone.name != config.backbone.name and pixel_note(config) is None:
        # Mean and standard deviation follow the backbone and are not changes of their own.
        followed = {"mean": config.images.mean, "std": config.images.std}
        recipe = recipe.model_copy(update={"images": recipe.images.model_copy(update=followed)})
    # The hash of a file of weights comes with its name.
    hidden: dict[str, Any] = {**dict.fromkeys(FLAGS, True), "backbone": {"weights_sha256"}}
    defaults, settings = (flatten(c.model_dump(mode="json", exclude=hidden)) for c in (recipe, config))
    # Of a section that may be missing, only what the settings have is named: `views.affine`, or all its keys.
    changed = {
        path: value for path, value in settings.items() if path not in defaults or defaults[path] != value
    }
    return changed | reported


def components(method: str) -> dict[str, dict[str, Any]]:
    """Return the components that the recipe declares for ablation: by name, the settings that remove each.

    Raises:
        HashbenchError: The recipe or its components cannot be read.
    """
    entry = registry.find("method", method)
    path = entry.recipe()
    return load_components(path, entry.load().Hyperparameters) if path else {}


def component_settings(method: str, wanted: Literal["all"] | Sequence[str]) -> list[list[str]]:
    """Return the settings of the whole method, without each of its components, and without all of them.

    Args:
        method: Name of a registered method.
        wanted: Names of components; `all`: those that the recipe declares; empty: none.

    Raises:
        UsageError: The recipe declares no components, or a wanted component is unknown.
        HashbenchError: The recipe cannot be read.
    """
    if not wanted:
        return [[]]
    declared = components(method)
    if not declared:
        raise UsageError(
            f"the recipe of {method} declares no components; add `components: {{NAME: {{KEY: VALUE}}}}` "
            "with the settings that remove each component"
        )
    chosen = list(declared) if wanted == "all" else wanted
    for name in chosen:
        if name not in declared:
            raise unknown_name(f"component of {method}", name, declared)
    without = [[f"{path}={json.dumps(value)}" for path, value in declared[name].items()] for name in chosen]
    every = [setting for settings in without for setting in settings]
    return [[], *without, *([every] if len(without) > 1 else [])]


def published_protocol(config: RunConfig, images: int) -> PublishedProtocol | None:
    """Return the protocol for which the training length was published, with both lengths.

    Returns:
        None if the recipe names no published protocol for the dataset, or one without a fixed number of
        training images, or if its part `laptop` is used.

    Raises:
        HashbenchError: The recipe names a protocol that the dataset does not have.
    """
    path = registry.find("method", config.method).recipe()
    if path is None or config.recipe == "laptop":
        return None
    name = load_published_protocols(path).get(config.dataset)
    recipe = recipe_alone(config) if name is not None else None
    if name is None or recipe is None:
        return None
    protocols = create_dataset(config.dataset).protocols
    if name not in protocols:
        error = unknown_name(f"protocol of {config.dataset}", name, protocols)
        raise HashbenchError(f"the recipe {path}, published_protocol: {error}")
    published = protocols[name].train
    if published is None:
        return None
    batches, steps = training_length(recipe, published)
    own = training_length(config, images)
    return PublishedProtocol(
        name=name, images=published, batches=batches, steps=steps, own_batches=own[0], own_steps=own[1]
    )


def training_length(config: RunConfig, images: int) -> tuple[int, int]:
    """Return the number of batches in an epoch and in the whole training, for a number of training images."""
    batches = EpochBatches(images, config).batches
    return batches, batches * config.training.epochs
