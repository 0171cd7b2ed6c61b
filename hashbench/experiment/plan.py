"""The plan of a grid of runs: which have a record, which can run, and which cannot, and why."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from hashbench.backbones import Backbone
from hashbench.backbones.timm_weights import require_weights
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.data.load import choose_protocol, create_dataset, load_dataset, without_limit
from hashbench.errors import HashbenchError, UsageError
from hashbench.experiment.configure import (
    changes,
    component_settings,
    configure,
    resolve_run,
    settings_by_method,
)
from hashbench.experiment.definition import DatasetEntry, Experiment
from hashbench.experiment.identity import identity_of, source_of
from hashbench.experiment.weights import build_backbone
from hashbench.method.base import HashMethod
from hashbench.method.create import create_method
from hashbench.results.record import run_folder, run_id_of
from hashbench.results.stored_run import label_of
from hashbench.runtime.console import warn

Result = TypeVar("Result")


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment, before it starts.

    Attributes:
        method: Name of the method.
        chosen: The dataset, as the experiment describes it.
        bits: Code length.
        seed: Random seed.
        settings: The texts `KEY=VALUE` of the run.
        name: Name of the settings in reports; None: that of the method.
        data: The loaded dataset; None if it cannot be loaded.
        config: The configuration; None if the run is impossible.
        folder: The folder of the record; None if the run is impossible.
        errors: The reasons why the run is impossible; empty if it is not.
    """

    method: str
    chosen: DatasetEntry
    bits: int
    seed: int
    settings: Sequence[str]
    name: str | None = None
    data: Dataset | None = None
    config: RunConfig | None = None
    folder: Path | None = None
    errors: Sequence[HashbenchError] = ()

    @property
    def status(self) -> Literal["exists", "to run", "impossible"]:
        """State of the run: it has a record, can run, or cannot."""
        if self.folder is None:
            return "impossible"
        return "exists" if self.folder.exists() else "to run"

    @cached_property
    def kind(self) -> str:
        """Description of the run without its seed, such as `wch (epochs=1) on digits@default, 32 bits`."""
        label = f"{self.method} ({', '.join(self.settings)})" if self.settings else self.method
        if self.config is not None:
            label = label_of(self.method, changes(self.config))
        data = self.chosen.name if self.data is None else f"{self.chosen.name}@{self.data.protocol}"
        return f"{label} on {data}, {self.bits} bits"


def runs_of(experiment: Experiment) -> list[PlannedRun]:
    """Return the runs of an experiment, by dataset, method, code length, settings and seed.

    Raises:
        UsageError: No method has a setting, the recipe of a method lacks a component, or a setting names
            another backbone than `backbones`.
        HashbenchError: A recipe cannot be read.
    """
    _require_one_backbone(experiment)
    methods = [entry.name for entry in experiment.methods]
    common = settings_by_method(methods, experiment.settings)
    overrides = settings_by_method(methods, experiment.overrides)
    variants = {name: component_settings(name, experiment.components) for name in methods}
    backbones = [[f"backbone={name}"] for name in experiment.backbones] or [[]]
    runs = []
    for dataset in experiment.datasets:
        own = settings_by_method(methods, dataset.settings)
        for entry in experiment.methods:
            name = entry.name
            several = [
                (*backbone, *common[name], *own[name], *entry.settings, *variant, *overrides[name])
                for backbone in backbones
                for variant in variants[name]
            ]
            runs += [
                PlannedRun(name, dataset, length, seed, settings, entry.label)
                for length in dataset.bits or experiment.bits
                for settings in several
                for seed in experiment.seeds
            ]
    return runs


def _require_one_backbone(experiment: Experiment) -> None:
    """Check that settings name no backbone if the experiment does, because they would take precedence."""
    settings = [*experiment.settings, *experiment.overrides]
    settings += [text for method in experiment.methods for text in method.settings]
    settings += [text for dataset in experiment.datasets for text in dataset.settings]
    named = [text for text in settings if re.match(r"backbone(\.name)? *= *[^{ ]", text)]
    if experiment.backbones and named:
        raise UsageError(
            f"the setting {named[0]} and the backbone {experiment.backbones[0]} exclude each other; "
            "leave one out"
        )


def plan(experiment: Experiment, device: str, results: Path) -> list[PlannedRun]:
    """Configure the runs of an experiment, and check everything that can be checked before hours of training.

    Args:
        experiment: The experiment.
        device: "cpu" or "cuda".
        results: The results folder.

    Raises:
        UsageError: As by `runs_of`; or two runs are the same, or none will have the metric of the reports.
    """
    planned: list[PlannedRun] = []
    for dataset, group in itertools.groupby(runs_of(experiment), key=lambda run: run.chosen):
        runs = list(group)
        try:
            data = _load(dataset, experiment.allow_overlap)
        except HashbenchError as error:
            planned += [replace(run, errors=(error, *_missing_weights(run, str(error)))) for run in runs]
        else:
            planned += [_configured(run, data, device, results) for run in runs]
    _require_reportable(planned, experiment.report.metric)
    return list(_checked(planned)) if len(planned) > 1 else planned  # a single run checks itself at its start


def _require_reportable(planned: Sequence[PlannedRun], metric: str | None) -> None:
    """Check that the runs of an experiment can be shown together, before hours of training."""
    first: dict[Path, PlannedRun] = {}
    for run in planned:
        if run.folder is not None and first.setdefault(run.folder, run) is not run:
            raise UsageError(
                f"two runs are the same: {run.kind}, seed {run.seed}; leave one out, or give it other "
                "settings (of the components of a method, --components chooses some)"
            )
    known = dict.fromkeys(name for run in planned if run.config for name in run.config.evaluation.metrics)
    if metric and known and metric not in known:
        raise UsageError(f"no run will have {metric}; choose from {', '.join(known)}")


def _load(chosen: DatasetEntry, allow_overlap: bool) -> Dataset:
    """Load a dataset, and print its warnings."""
    create_dataset(chosen.name, **chosen.options)  # since an option may have the name of an argument below
    data = load_dataset(chosen.name, chosen.protocol, chosen.root, limit=chosen.limit, **chosen.options)
    if not allow_overlap:
        data.require_disjoint_queries()
    for warning in data.warnings:
        warn(f"{data.name}@{data.protocol}: {warning}")
    return data


def _missing_weights(run: PlannedRun, known: str) -> list[HashbenchError]:
    """Return the error of a run whose pretrained weights are not here, although its data is not known yet.

    Args:
        run: The run.
        known: The message of its other error.
    """
    try:
        backbone = config_without_data(run).backbone
        if backbone.pretrained and backbone.weights is None:
            require_weights(backbone.name)
    except HashbenchError as error:
        return [error] if str(error) != known else []
    return []


def config_without_data(run: PlannedRun) -> RunConfig:
    """Return the configuration of a run on a GPU, as far as it does not depend on the images.

    Raises:
        UsageError: A name, a setting or an option is unknown, or a value is invalid.
    """
    chosen = run.chosen
    plugin = create_dataset(chosen.name, **chosen.options)
    options = plugin.recorded_options(chosen.root) if chosen.root else plugin.options
    wanted, limit = without_limit(chosen.protocol, chosen.limit)
    protocol = choose_protocol(chosen.name, plugin, wanted)
    flags = {
        "method": run.method, "bits": run.bits, "seed": run.seed, "device": "cuda", "dataset": chosen.name,
        "protocol": f"{protocol}-limit{limit}" if limit else protocol,
        "data": options.model_dump(mode="json", exclude={"lists", "packed"}),
    }  # fmt: skip
    return resolve_run(flags, run.settings)


def _configured(run: PlannedRun, data: Dataset, device: str, results: Path) -> PlannedRun:
    """Add the configuration and the folder to a run, or the error."""
    try:
        config = configure(
            run.method, data, bits=run.bits, seed=run.seed, device=device, settings=run.settings
        )
        run_id = run_id_of(identity_of(config, data, source_of(config)))
    except HashbenchError as error:
        return replace(run, data=data, errors=(error,))
    folder = run_folder(results, config.dataset, config.protocol, config.method, config.bits, run_id)
    return replace(run, data=data, config=config, folder=folder)


def _checked(planned: Sequence[PlannedRun]) -> Iterator[PlannedRun]:
    """Build the method of each run that is to run, to find its errors: each network and each method once."""
    networks: dict[str, Backbone | HashbenchError] = {}
    methods: dict[str, HashMethod | HashbenchError] = {}
    for run in planned:
        if run.config is None or run.status == "exists":
            yield run
            continue
        network = run.config.model_dump_json(include={"backbone", "images"})
        method = run.config.model_dump_json(include={"method", "bits", "hyperparameters"}) + network
        if network not in networks:
            networks[network] = _attempt(_build_without_weights, run.config)
        backbone = networks[network]
        if isinstance(backbone, Backbone) and method not in methods:
            arguments = run.config.method, backbone, run.config.bits
            methods[method] = _attempt(create_method, *arguments, **run.config.hyperparameters)
        built = methods.get(method, backbone)
        yield replace(run, folder=None, errors=(built,)) if isinstance(built, HashbenchError) else run


def _build_without_weights(config: RunConfig) -> Backbone:
    """Build a backbone without its pretrained weights, which must be here or can be downloaded."""
    backbone = build_backbone(config, pretrained=False)
    if config.backbone.pretrained:
        require_weights(config.backbone.name)
    return backbone


def _attempt(function: Callable[..., Result], *arguments: Any, **named: Any) -> Result | HashbenchError:
    try:
        return function(*arguments, **named)
    except HashbenchError as error:
        return error
