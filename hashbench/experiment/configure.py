"""The settings of a run, and how they differ from what its method's recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hashbench import registry
from hashbench.config import RunConfig, flatten
from hashbench.data.download import file_digest
from hashbench.data.load import create_dataset
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.method.base import HashMethod
from hashbench.recipe import FLAGS, load_components, load_published_protocols, load_recipe, resolve
from hashbench.results.record import PublishedProtocol
from hashbench.runtime.device import resolve_precision
from hashbench.training.dataloader import EpochBatches


def resolve_run(flags: dict[str, Any], settings: Sequence[str]) -> RunConfig:
    """Resolve the configuration of a run from the recipe of its method and what the user set.

    Args:
        flags: Values of `hashbench.recipe.FLAGS`, by name.
        settings: `KEY=VALUE` texts.

    Raises:
        UsageError: A key is unknown or a value does not fit; the message names it.
    """
    entry = registry.find("method", flags["method"])
    cls: type[HashMethod] = entry.load()
    path = entry.recipe()
    recipe = load_recipe(path, flags["dataset"], flags["bits"]) if path else {}
    config = resolve(recipe, settings, cls.Hyperparameters, **flags)
    precision = resolve_precision(config.training.precision, config.device)
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def changes(config: RunConfig) -> dict[str, Any]:
    """What of a configuration is not as the method's recipe has it, by dotted path.

    Empty, too, if the recipe alone makes no run, as when there is none.
    """
    return differences(recipe_alone(config), config)


def recipe_alone(config: RunConfig) -> RunConfig | None:
    """Return the run that the method's recipe makes without other settings; None: it makes none."""
    try:
        return resolve_run({key: getattr(config, key) for key in FLAGS}, ())
    except UsageError:
        return None


def differences(recipe: RunConfig | None, config: RunConfig) -> dict[str, Any]:
    """Return what of a configuration is not as in that of `recipe_alone`, as `changes` does."""
    # Named wherever it counts, if the recipe has it, too.
    named = {"selection.name": "best-on-query"} if config.selection.name == "best-on-query" else {}
    if recipe is None:
        return named
    for section in ("backbone", "schedule"):  # another one has settings of its own
        usual_one, chosen_one = getattr(recipe, section), getattr(config, section)
        if usual_one.name != chosen_one.name:
            recipe = recipe.model_copy(update={section: type(usual_one)(name=usual_one.name)})
    usual, chosen = (flatten(c.model_dump(mode="json", exclude=FLAGS)) for c in (recipe, config))
    changed = {path: chosen.get(path) for path in {**usual, **chosen} if usual.get(path) != chosen.get(path)}
    return changed | named


def components(method: str) -> dict[str, dict[str, Any]]:
    """What the recipe of a method declares for ablation: by name, the settings that take it away, by path.

    Raises:
        HashbenchError: The recipe cannot be read, or what it says of components cannot be.
    """
    entry = registry.find("method", method)
    path = entry.recipe()
    return load_components(path, entry.load().Hyperparameters) if path else {}


def recipe_digest(method: str) -> str | None:
    """Return the SHA-256 of a method's recipe; None: it has none."""
    path = registry.find("method", method).recipe()
    return file_digest(path, "sha256") if path else None


def published_protocol(config: RunConfig, images: int) -> PublishedProtocol | None:
    """Return the split that the recipe's training lengths were published for, with both lengths.

    Args:
        config: The run.
        images: Number of its training images.

    Returns:
        None, if the recipe names no published protocol for the dataset, or one whose number of training
        images the data decides.

    Raises:
        HashbenchError: The recipe names a protocol that the dataset lacks.
    """
    path = registry.find("method", config.method).recipe()
    name = load_published_protocols(path).get(config.dataset) if path else None
    recipe = recipe_alone(config) if name is not None else None
    if name is None or recipe is None:
        return None
    protocols = create_dataset(config.dataset).protocols
    if name not in protocols:
        wrong = unknown_name(f"protocol of {config.dataset}", name, protocols)
        raise HashbenchError(f"the recipe {path}, published_protocol: {wrong}")
    published = protocols[name].train
    if published is None:
        return None
    batches, steps = training_length(recipe, published)
    own_batches, own_steps = training_length(config, images)
    return PublishedProtocol(
        name=name,
        images=published,
        batches=batches,
        steps=steps,
        own_batches=own_batches,
        own_steps=own_steps,
    )


def training_length(config: RunConfig, images: int) -> tuple[int, int]:
    """Return the number of batches of an epoch, and that of the whole training.

    Args:
        config: A run.
        images: Number of training images.
    """
    batches = EpochBatches(images, config).batches
    return batches, batches * config.training.epochs
