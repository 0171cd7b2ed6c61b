"""Recipes of methods, and their merging with the user's settings to the configuration of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from hashbench.config import Part, RunConfig, Section, flatten
from hashbench.errors import HashbenchError, UsageError, quoted, unknown_name
from hashbench.runtime.yaml_values import MAX_LENGTH, parse_yaml

# Recipes and --set cannot contain these: they have a flag of their own, or depend on the machine.
FLAGS = {"method", "dataset", "protocol", "data", "bits", "seed", "device", "processes"}

Model = TypeVar("Model", bound=BaseModel)


class Laptop(Section):
    """The part `laptop` of a recipe: a small network, small images, and minutes of training on a CPU.

    Attributes:
        defaults: Settings for any dataset; they take precedence over those of the other part, `paper`.
        datasets: Settings that differ for a dataset. Without another choice, it is run with them.
    """

    defaults: dict[str, Any] = Field(default={})
    datasets: dict[str, dict[str, Any]] = Field(default={})


class Recipe(Section):
    """The content of a `recipe.yaml`.

    Attributes:
        defaults: Settings of the method.
        components: By name of a part of the method, the settings that remove it in an ablation; their keys
            are those of `--set`.
        bits: Settings that differ for a code length.
        datasets: Settings that differ for a dataset.
        published_protocol: By dataset, the protocol for which the number of epochs was published. With
            another number of training images, the same epochs have another number of steps.
        laptop: Settings for machines without a GPU. All other ones are the part `paper`.
    """

    defaults: dict[str, Any] = Field(default={})
    components: dict[str, dict[str, Any]] = Field(default={})
    bits: dict[int, dict[str, Any]] = Field(default={})
    datasets: dict[str, dict[str, Any]] = Field(default={})
    published_protocol: dict[str, str] = Field(default={})
    laptop: Laptop | None = None


def load_recipe(path: Path, dataset: str, bits: int, part: Part | None = None) -> dict[str, Any]:
    """Load a method's settings for a dataset and a code length.

    Settings of the dataset take precedence over those of the code length, and these over the defaults.

    Args:
        path: The recipe.
        dataset: Name of the dataset.
        bits: Code length.
        part: `paper`: the published settings. `laptop`: those for machines without a GPU; of the published
            ones for the dataset, only the metrics remain. None: `laptop` if it names the dataset, else
            `paper`.

    Returns:
        The settings, with the part under `recipe` if the file has both.

    Raises:
        UsageError: The recipe has no part `laptop`.
        HashbenchError: The file is not a recipe.
    """
    recipe = _read(path)
    own, laptop = recipe.datasets.get(dataset, {}), recipe.laptop
    if laptop is None:
        if part == "laptop":
            raise UsageError(f"the recipe {path} has no part laptop; add one, or leave out recipe=laptop")
    elif part is None:
        part = "laptop" if dataset in laptop.datasets else "paper"
    settings = merge(recipe.defaults, recipe.bits.get(bits, {}))
    if laptop is not None and part == "laptop":
        metrics = {"evaluation": own["evaluation"]} if "evaluation" in own else {}
        for section in (metrics, laptop.defaults, laptop.datasets.get(dataset, {})):
            settings = merge(settings, section)
    else:
        settings = merge(settings, own)
    if flags := (FLAGS | {"recipe"}) & settings.keys():
        raise HashbenchError(f"the recipe {path} sets {', '.join(sorted(flags))}, which only a flag can set")
    return settings if laptop is None else {**settings, "recipe": part}


def load_components(path: Path, hyperparameters: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Load a method's components: by name, the settings that remove the component, by dotted path.

    Raises:
        HashbenchError: The file is not a recipe, or a component has no key, or an unknown or shared one.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, settings in _read(path).components.items():
        try:
            chosen: dict[str, Any] = {}
            for key, value in settings.items():
                chosen |= flatten(_at_path(key, value, hyperparameters))
        except UsageError as error:
            raise HashbenchError(f"the recipe {path}, component {name!r}: {error}") from error
        shared = {key for other in found.values() for key in other} & chosen.keys()
        if shared or not chosen:
            what = f"sets {', '.join(shared)}, like another component" if shared else "sets nothing"
            raise HashbenchError(f"the recipe {path}, component {name!r} {what}")
        found[name] = chosen
    return found


def load_published_protocols(path: Path) -> dict[str, str]:
    """Load the protocols for which the epochs of a recipe were published, by dataset.

    Raises:
        HashbenchError: The file is not a recipe.
    """
    return dict(_read(path).published_protocol)


@lru_cache(maxsize=16)
def _parse(text: str) -> Recipe:  # the slowest part of the verification of a record
    return Recipe(**parse_yaml(text))


def _read(path: Path) -> Recipe:
    try:
        with path.open(encoding="utf-8") as file:
            return _parse(file.read(MAX_LENGTH + 1))
    except (TypeError, ValidationError) as error:
        raise HashbenchError(
            f"the recipe {path} is not valid: expected the keys defaults (settings), components (name: "
            "settings), bits (length: settings), datasets (name: settings), published_protocol (dataset: "
            "protocol) and laptop (with defaults and datasets), and no other"
        ) from error
    except (OSError, ValueError) as error:
        raise HashbenchError(f"the recipe {path} cannot be read: {error}") from error


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated by `changes`, section by section.

    A backbone or schedule with another name replaces the whole section, since its settings differ.
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _replaces(key, value, old):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def _replaces(key: str, new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    return key in ("backbone", "schedule") and "name" in old and new.get("name", old["name"]) != old["name"]


def resolve(
    recipe: Mapping[str, Any],
    settings: Sequence[str],
    hyperparameters: type[BaseModel],
    complete: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None,
    **flags: Any,
) -> RunConfig:
    """Create the configuration of a run.

    Args:
        recipe: Settings from `load_recipe`.
        settings: Strings `KEY=VALUE` with values in YAML. A key is a path (`training.epochs`), its last part
            if that is unique (`epochs`), or a section with a name (`backbone=resnet50`). If a key is given
            twice, its last value counts; otherwise the order does not matter.
        hyperparameters: The model of the method's hyperparameters.
        complete: Gets the settings of the recipe and the user's, and returns both together with what depends
            on the backbone; None: they are only merged.
        **flags: `method`, `dataset`, `protocol`, `data`, `bits`, `seed`, `device`.

    Raises:
        UsageError: A key is unknown or a value is invalid; the message names it.
    """
    chosen: dict[str, Any] = {}
    for setting in settings:
        ((key, value),) = parse_pairs("--set", [setting]).items()
        chosen = merge(chosen, _at_path(key, value, hyperparameters))
    try:
        merged = merge(recipe, chosen) if complete is None else complete(dict(recipe), chosen)
        config = RunConfig(**{**merged, **flags})
    except ValidationError as error:
        raise UsageError(_in_one_line(error, hyperparameters)) from None
    own = check_settings("hyperparameter", hyperparameters, config.hyperparameters)
    return config.model_copy(update={"hyperparameters": own.model_dump(mode="json")})


def check_settings(kind: str, model: type[Model], values: Mapping[str, Any]) -> Model:
    """Validate the settings of a plugin by its model.

    Args:
        kind: Name of a setting in errors, such as "hyperparameter".
        model: The model of the plugin's settings.
        values: The settings by key.

    Raises:
        UsageError: A key is unknown or a value is invalid; the message names it.
    """
    for key in values:
        if key not in model.model_fields:
            raise unknown_name(kind, key, model.model_fields)
    try:
        return model(**values)
    except ValidationError as error:
        raise UsageError(f"{kind} {_in_one_line(error, model)}") from None


def parse_pairs(flag: str, settings: Sequence[str]) -> dict[str, Any]:
    """Parse strings `KEY=VALUE` with values in YAML.

    Raises:
        UsageError: A string has another form, or its value is not YAML.
    """
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"{flag}: expected KEY=VALUE, got {quoted(setting)}")
        try:
            values[key] = parse_yaml(text)
        except ValueError as error:
            raise UsageError(f"{flag} {key[:100]}: {quoted(text)} is not a YAML value: {error}") from None
    return values


def split_part(settings: Sequence[str]) -> tuple[Part | None, list[str]]:
    """Return the part of the recipe that texts `KEY=VALUE` choose, if any, and the other texts.

    Raises:
        UsageError: There is no such part.
    """
    own = [setting for setting in settings if setting.partition("=")[0] == "recipe"]
    part = parse_pairs("--set", own).get("recipe")
    if part not in (None, *get_args(Part)):
        raise UsageError(f"recipe={quoted(part)}: expected paper or laptop")
    return part, [setting for setting in settings if setting not in own]


def setting_path(setting: str, hyperparameters: type[BaseModel]) -> str:
    """Return the dotted path of the setting that a text `KEY=VALUE` changes; see `resolve`.

    Raises:
        UsageError: The key is unknown or ambiguous, or the value is invalid.
    """
    ((key, _),) = parse_pairs("--set", [setting]).items()
    return _path_of(key, hyperparameters)[0]


def _path_of(key: str, hyperparameters: type[BaseModel]) -> tuple[str, bool]:
    """Return the path of a key, and True if it is a section with a name."""
    if key.partition(".")[0] in FLAGS:
        raise UsageError(f"--set {key[:100]}: use the flag --{key.partition('.')[0]}")
    if key.startswith("backbone.options."):  # any argument of any timm model
        return key, False
    paths = dict(_paths(RunConfig, hyperparameters))
    matches = [key] if key in paths else [path for path in paths if path.endswith(f".{key}")]
    if len(matches) > 1:
        raise UsageError(f"--set {key}: the key is ambiguous; use {' or '.join(matches)}")
    if not matches:
        raise unknown_name("key", key, {*paths, *(path.rpartition(".")[2] for path in paths)})
    return matches[0], paths[matches[0]]


def _at_path(key: str, value: Any, hyperparameters: type[BaseModel]) -> dict[str, Any]:
    path, named = _path_of(key, hyperparameters)
    if named and isinstance(value, str):
        value = {"name": value}
    for part in reversed(path.split(".")):
        value = {part: value}
    return dict(value)


def _paths(model: type[BaseModel], hyperparameters: type[BaseModel]) -> Iterator[tuple[str, bool]]:
    """Yield each key of a recipe as a dotted path, with True if it is a section with a name."""
    for name, field in model.model_fields.items():
        if model is RunConfig and name in FLAGS:
            continue
        types = (field.annotation, *get_args(field.annotation))
        section = next((t for t in types if isinstance(t, type) and issubclass(t, BaseModel)), None)
        if model is RunConfig and name == "hyperparameters":
            section = hyperparameters
        yield name, section is not None and "name" in section.model_fields
        if section is not None:
            yield from ((f"{name}.{path}", named) for path, named in _paths(section, hyperparameters))


def _in_one_line(error: ValidationError, hyperparameters: type[BaseModel]) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])[:150]
    if first["type"] == "extra_forbidden":
        return str(unknown_name("key", key, (path for path, _ in _paths(RunConfig, hyperparameters))))
    if first["type"] == "missing":
        return f"the recipe does not set {key}; set it with --set {key}=…"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{key}={quoted(first['input'])}: {reason[0].lower()}{reason[1:]}"
