"""From a method's recipe and the user's settings to the configuration of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, Field, ValidationError

from hashbench.config import RunConfig, Section, flatten
from hashbench.errors import HashbenchError, UsageError, quoted, unknown_name
from hashbench.runtime.yaml_values import MAX_LENGTH, parse_yaml

# What has a flag of its own, or comes from the machine, is not for recipes and --set.
FLAGS = {"method", "dataset", "protocol", "data", "bits", "seed", "device", "processes"}

Model = TypeVar("Model", bound=BaseModel)


class Recipe(Section):
    """The content of a `recipe.yaml`: settings, what differs for some code lengths and datasets, components.

    A component is what an ablation takes away from the method, by the settings that take it away, their keys
    as `--set` has them. `published_protocol` names, by dataset, the protocol that the training lengths were
    published for: another number of training images makes another number of steps of the same epochs.
    """

    defaults: dict[str, Any] = Field(default={})
    components: dict[str, dict[str, Any]] = Field(default={})
    bits: dict[int, dict[str, Any]] = Field(default={})
    datasets: dict[str, dict[str, Any]] = Field(default={})
    published_protocol: dict[str, str] = Field(default={})


def load_recipe(path: Path, dataset: str, bits: int) -> dict[str, Any]:
    """Read a method's settings for a dataset and a code length: its defaults, and over them what differs.

    Where both sections have a setting, that of the dataset counts.

    Raises:
        HashbenchError: The file is not a recipe.
    """
    recipe = _read(path)
    settings = merge(merge(recipe.defaults, recipe.bits.get(bits, {})), recipe.datasets.get(dataset, {}))
    if flags := FLAGS & settings.keys():
        raise HashbenchError(f"the recipe {path} sets {', '.join(sorted(flags))}, which only a flag can")
    return settings


def load_components(path: Path, hyperparameters: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Read a method's components: by name, the settings that take it away, by dotted path.

    Args:
        path: The recipe.
        hyperparameters: The method's model of its own settings.

    Raises:
        HashbenchError: The file is not a recipe, a component has an unknown key, none, or one of another's.
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
            what = f"sets {', '.join(shared)}, as another one does" if shared else "sets nothing"
            raise HashbenchError(f"the recipe {path}, component {name!r} {what}")
        found[name] = chosen
    return found


def load_published_protocols(path: Path) -> dict[str, str]:
    """Read the names of the protocols that a recipe's training lengths were published for, by dataset.

    Raises:
        HashbenchError: The file is not a recipe.
    """
    return dict(_read(path).published_protocol)


@lru_cache(maxsize=16)
def _parse(text: str) -> Recipe:  # takes longer than all else that a record is verified by
    return Recipe(**parse_yaml(text))


def _read(path: Path) -> Recipe:
    try:
        with path.open(encoding="utf-8") as file:
            return _parse(file.read(MAX_LENGTH + 1))
    except (TypeError, ValidationError) as error:
        raise HashbenchError(
            f"the recipe {path} is not valid: expected the keys defaults (settings), components (name: "
            "settings), bits (length: settings), datasets (name: settings) and published_protocol (dataset: "
            "protocol), and no other"
        ) from error
    except (OSError, ValueError) as error:
        raise HashbenchError(f"the recipe {path} cannot be read: {error}") from error


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `changes` over `base`, section by section.

    Another backbone or schedule replaces the base's section: the settings of one mean nothing to another.
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
    **flags: Any,
) -> RunConfig:
    """Make the configuration of one run.

    Args:
        recipe: What `load_recipe` gave.
        settings: `KEY=VALUE` texts, the values in YAML. A key is a path (`training.epochs`), its last part
            where that is unique (`epochs`), or a section with a name (`backbone=resnet50`). Their order does
            not matter, but that a key given twice has its last value.
        hyperparameters: The method's model of its own settings.
        **flags: `method`, `dataset`, `protocol`, `data`, `bits`, `seed`, `device`.

    Raises:
        UsageError: A key is unknown or a value does not fit; the message names it.
    """
    chosen: dict[str, Any] = {}
    for setting in settings:
        ((key, value),) = parse_pairs("--set", [setting]).items()
        chosen = merge(chosen, _at_path(key, value, hyperparameters))
    try:
        config = RunConfig(**{**merge(recipe, chosen), **flags})
    except ValidationError as error:
        raise UsageError(_in_one_line(error, hyperparameters)) from None
    own = check_settings("hyperparameter", hyperparameters, config.hyperparameters)
    return config.model_copy(update={"hyperparameters": own.model_dump(mode="json")})


def check_settings(kind: str, model: type[Model], values: Mapping[str, Any]) -> Model:
    """The values of a plugin's own settings, which may have no key that its model lacks.

    Args:
        kind: What one of them is called, as in "hyperparameter".
        model: The plugin's model of them.
        values: By key.

    Raises:
        UsageError: A key is unknown or a value does not fit; the message names it.
    """
    for key in values:
        if key not in model.model_fields:
            raise unknown_name(kind, key, model.model_fields)
    try:
        return model(**values)
    except ValidationError as error:
        raise UsageError(f"{kind} {_in_one_line(error, model)}") from None


def parse_pairs(flag: str, settings: Sequence[str]) -> dict[str, Any]:
    """Read `KEY=VALUE` texts, the values in YAML.

    Raises:
        UsageError: One is something else.
    """
    values = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"{flag} takes KEY=VALUE, not {quoted(setting)}")
        try:
            values[key] = parse_yaml(text)
        except ValueError as error:
            raise UsageError(f"{flag} {key[:100]}: {quoted(text)} is not a YAML value: {error}") from None
    return values


def _at_path(key: str, value: Any, hyperparameters: type[BaseModel]) -> dict[str, Any]:
    if key.partition(".")[0] in FLAGS:
        raise UsageError(f"--set {key[:100]}: use the flag --{key.partition('.')[0]}")
    paths = dict(_paths(RunConfig, hyperparameters))
    matches = [key] if key in paths else [path for path in paths if path.endswith(f".{key}")]
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


def _paths(model: type[BaseModel], hyperparameters: type[BaseModel]) -> Iterator[tuple[str, bool]]:
    """Every key that a recipe may have, as a dotted path, and whether it is a section with a name."""
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
        return f"the recipe lacks {key}; give it with --set {key}=…"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{key}={quoted(first['input'])}: {reason[0].lower()}{reason[1:]}"
