"""Experiments: the runs of a study, as a file describes them, or the options of a command."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from hashbench import registry
from hashbench.config import Section, flatten
from hashbench.errors import UsageError, quoted, unknown_name
from hashbench.runtime.arguments import as_path
from hashbench.runtime.yaml_values import MAX_LENGTH, as_set, parse_yaml

_SHIPPED = Path(__file__).parents[1] / "experiments"
_LONGEST_NAME = 100  # characters
_EXPECTED = {
    "tuple_type": "expected a list",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
}


def _as_settings(value: Any) -> Any:
    """Return settings as texts `KEY=VALUE`; a file may also contain a mapping."""
    if isinstance(value, Mapping):
        return tuple(f"{path}={_as_text(setting)}" for path, setting in flatten(value).items())
    if not isinstance(value, list | tuple):
        raise ValueError("expected a mapping, or a list of texts KEY=VALUE")
    return value


def _as_text(setting: Any) -> str:
    try:
        return as_set(setting.tolist() if hasattr(setting, "tolist") else setting)  # of NumPy or torch
    except yaml.YAMLError:
        raise ValueError(f"expected numbers, texts, lists and mappings, got {quoted(setting)}") from None


def _with_equals(settings: tuple[str, ...]) -> tuple[str, ...]:
    for setting in settings:
        if "=" not in setting:
            raise ValueError(f"expected KEY=VALUE, got {quoted(setting)}")
    return settings


def _different(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values or len({*map(repr, values)}) < len(values):
        raise ValueError("expected one or more different values")
    return values


def _all_or_names(value: Any) -> Any:
    if value != "all" and not isinstance(value, list | tuple):
        raise ValueError("expected all, or a list of components")
    return value


def require_label(label: str) -> str:
    """Return a label without the spaces around it, after checking that it fits into a table.

    Raises:
        ValueError: It is empty, too long or not printable.
    """
    from hashbench.results.row_names import LONGEST_LABEL  # here, since it imports the evaluation

    if not (label.isprintable() and 1 <= len(label.strip()) <= LONGEST_LABEL):
        raise ValueError(f"expected 1 to {LONGEST_LABEL} printable characters, got {quoted(label)}")
    return label.strip()


def _folder_name(name: str) -> str:
    if not name.isprintable() or name.startswith(".") or {*"/\\"} & {*name} or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"expected a name for a folder: at most {_LONGEST_NAME} printable characters without a slash"
        )
    return name


# No shell replaces the ~ in a file.
HomePath = Annotated[Path, AfterValidator(lambda path: Path(os.path.expanduser(path)))]  # noqa: PTH111 - never fails
Settings = Annotated[tuple[str, ...], BeforeValidator(_as_settings), AfterValidator(_with_equals)]
Lengths = Annotated[tuple[Annotated[int, Field(gt=0, le=2**16)], ...], AfterValidator(_different)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], AfterValidator(_different)]


class MethodEntry(Section):
    """A method of an experiment; in a file, its name alone is enough."""

    name: Annotated[str, AfterValidator(registry.canonical_method)]
    """Name of a registered method, or an alias of one."""
    label: Annotated[str, AfterValidator(require_label)] | None = None
    """Name of the settings of the method in reports, as `run --name` gives it."""
    settings: Settings = ()
    """Settings of this method."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class DatasetEntry(Section):
    """A dataset of an experiment; in a file, `NAME` or `NAME@PROTOCOL` is enough."""

    name: str
    """Name of a registered dataset."""
    protocol: str | None = None
    """Protocol that splits the dataset; None: its first."""
    root: HomePath | None = None
    """Folder of the data; None: the default one."""
    limit: int | None = Field(default=None, gt=0)
    """Number of images to use of each part; None: all."""
    options: dict[str, Any] = Field(default={})
    """Options of the dataset, as `--data` takes them."""
    bits: Lengths | None = None
    """Code lengths on this dataset; None: those of the experiment."""
    settings: Settings = ()
    """Settings on this dataset, for the methods that have them."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, protocol = value.partition("@")
        return {"name": name, "protocol": protocol or None}


class Needs(Section):
    """Requirements of an experiment, in words for `hashbench experiments`."""

    data: str = ""
    """Data and weights to provide."""
    time: str = ""
    """Time, and how it was estimated or measured."""
    disk: str = ""
    """Disk space of data and results."""


class Reported(Section):
    """Content of the reports of an experiment."""

    metric: str | None = None
    """Metric; None: the first mAP of the recipes."""
    published: bool = False
    """Show the figures that papers print beside the measured ones."""
    bounds: bool = False
    """Show the bounds over all orders of equal distances."""
    plots: tuple[Literal["pr", "bits", "speed", "training"], ...] = ()
    """Plots to draw."""


class Experiment(Section):
    """The runs of a study: each method on each dataset, with each backbone, code length and seed."""

    name: Annotated[str, AfterValidator(_folder_name)] = ""
    """Name of the experiment, by default that of its file."""
    description: str = ""
    """Its question or its result, in one sentence."""
    needs: Needs = Needs()
    """Requirements."""
    methods: Annotated[tuple[MethodEntry, ...], AfterValidator(_different)]
    """Methods."""
    datasets: Annotated[tuple[DatasetEntry, ...], AfterValidator(_different)]
    """Datasets."""
    backbones: tuple[str, ...] = ()
    """Backbones for all methods; empty: those of the recipes."""
    bits: Lengths = (32,)
    """Code lengths."""
    seeds: Seeds = (0,)
    """Random seeds."""
    settings: Settings = ()
    """Settings for the methods that have them; those of datasets and methods take precedence."""
    components: Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_all_or_names)] = ()
    """Components of the methods to remove, one at a time and together; `all`: those of the recipes."""
    overrides: Settings = ()
    """Settings that take precedence over all others, for the methods that have them."""
    plugins: tuple[HomePath, ...] = ()
    """Files of plugins."""
    allow_overlap: bool = False
    """Accept queries that are also in the database."""
    report: Reported = Reported()
    """Content of its reports."""

    def choose(self, methods: Sequence[str], datasets: Sequence[str]) -> Experiment:
        """Return the experiment with some of its methods and datasets; an empty sequence chooses all.

        Raises:
            UsageError: It has no such method or dataset.
        """
        wanted = {"method": [*map(registry.canonical_method, methods)], "dataset": datasets}
        update: dict[str, Any] = {}
        for kind, entries in (("method", self.methods), ("dataset", self.datasets)):
            known = {entry.name for entry in entries}
            for name in wanted[kind]:
                if name not in known:
                    raise unknown_name(f"{kind} of the experiment {self.name}", name, known)
            chosen = tuple(entry for entry in entries if entry.name in wanted[kind])
            update |= {f"{kind}s": chosen} if chosen else {}
        return self.model_copy(update=update)

    def change(self, update: Mapping[str, Any], of_datasets: Mapping[str, Any]) -> Experiment:
        """Return the experiment with other values of some keys, and of some keys of all its datasets.

        Options of datasets are added to those that they have.
        """
        new = of_datasets.get("options", {})
        datasets = tuple(
            entry.model_copy(update={**of_datasets, "options": {**entry.options, **new}})
            for entry in self.datasets
        )
        return self.model_copy(update={"datasets": datasets, **update})

    def as_yaml(self) -> str:
        """Return the content of a file that describes the experiment."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110))

    def require_registered(self) -> None:
        """Check that all methods and datasets are registered, without importing them.

        Raises:
            UsageError: One is unknown.
        """
        for method in self.methods:
            registry.find("method", method.name)
        for dataset in self.datasets:
            registry.find("dataset", dataset.name)


def read_experiment(source: str | Path | Mapping[str, Any]) -> Experiment:
    """Read an experiment.

    Args:
        source: A YAML file, the name of an experiment that comes with hashbench, or the content of a file.

    Raises:
        UsageError: There is no such experiment, or a key or value is invalid; the message names it.
    """
    if isinstance(source, Mapping):
        return _validated("the experiment", source)
    path = as_path(source, "experiment")
    if not path.is_file() and len(path.parts) == 1 and not path.suffix:
        known = shipped_experiments()
        if str(source) not in known:
            raise unknown_name("experiment", str(source), known)
        path = known[str(source)]
    try:
        with path.open(encoding="utf-8") as file:
            content = parse_yaml(file.read(MAX_LENGTH + 1))
    except (OSError, ValueError) as error:
        raise UsageError(f"the experiment {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"the experiment {path}: expected keys such as methods and datasets")
    return _validated(f"the experiment {path}", {"name": path.stem, **content})


def shipped_experiments() -> dict[str, Path]:
    """Return the files of the experiments that come with hashbench, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml"))}


def _validated(where: str, content: Mapping[str, Any]) -> Experiment:
    try:
        return Experiment.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])[:150]
        if first["type"] == "extra_forbidden":
            *parents, key = first["loc"]
            known = _model_at(parents).model_fields
            raise UsageError(f"{where}: {unknown_name('key', str(key), known)}") from None
        if first["type"] == "missing":
            raise UsageError(f"{where} lacks the key {place}") from None
        why = _EXPECTED.get(first["type"], first["msg"].removeprefix("Value error, "))
        got = "" if ", got " in why else f", got {quoted(first['input'])}"
        raise UsageError(f"{where}, {place}: {why[0].lower()}{why[1:]}{got}") from None


def _model_at(place: Sequence[int | str]) -> type[BaseModel]:
    """Return the model of the part of an experiment that a validation error is in."""
    models: dict[int | str, type[BaseModel]] = {
        "methods": MethodEntry, "datasets": DatasetEntry, "needs": Needs, "report": Reported,
    }  # fmt: skip
    return models[place[0]] if place else Experiment
