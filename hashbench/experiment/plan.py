"""The plan of a grid of runs: which have a record, which can run, and which cannot, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from hashbench.backbones import Backbone, require_weights
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError
from hashbench.experiment.configure import changes, configure
from hashbench.experiment.identity import identity_of, source_of
from hashbench.experiment.weights import build_backbone
from hashbench.method.base import HashMethod
from hashbench.method.create import create_method
from hashbench.results.record import run_folder, run_id_of
from hashbench.results.stored_run import label_of

Result = TypeVar("Result")


@dataclass(frozen=True)
class PlannedRun:
    """A run of a grid, before it starts.

    Attributes:
        method: Name of the method.
        dataset: Name of the dataset.
        bits: Code length.
        seed: Random seed.
        settings: The texts `KEY=VALUE` of the run.
        data: The loaded dataset; None if it cannot be loaded.
        config: The configuration; None if the run is impossible.
        folder: The folder of the record; None if the run is impossible.
        error: The reason why the run is impossible; None if it is not.
    """

    method: str
    dataset: str
    bits: int
    seed: int
    settings: Sequence[str]
    data: Dataset | None = None
    config: RunConfig | None = None
    folder: Path | None = None
    error: HashbenchError | None = None

    @property
    def status(self) -> Literal["exists", "to run", "impossible"]:
        """State of the run: it has a record, can run, or cannot."""
        if self.folder is None:
            return "impossible"
        return "exists" if self.folder.exists() else "to run"

    @cached_property
    def kind(self) -> str:
        """Description of the run without its seed, such as `wch (epochs=1) on digits@default, 32 bits`."""
        label = self.method if self.config is None else label_of(self.method, changes(self.config))
        data = self.dataset if self.data is None else f"{self.dataset}@{self.data.protocol}"
        return f"{label} on {data}, {self.bits} bits"


def plan(
    datasets: Mapping[str, Callable[[], Dataset]],
    variants: Mapping[str, Sequence[Sequence[str]]],
    bits: Sequence[int],
    seeds: Sequence[int],
    device: str,
    results: Path,
) -> list[PlannedRun]:
    """Configure the runs of a grid, and check everything that can be checked before hours of training.

    Args:
        datasets: By name, a function that loads the dataset.
        variants: By method, the settings `KEY=VALUE` of each of its variants.
        bits: Code lengths.
        seeds: Random seeds.
        device: "cpu" or "cuda".
        results: The results folder.
    """
    planned: list[PlannedRun] = []
    for dataset, load in datasets.items():
        runs = [
            PlannedRun(method, dataset, length, seed, settings)
            for method, several in variants.items()
            for length in bits
            for settings in several
            for seed in seeds
        ]
        try:
            data = load()
        except HashbenchError as error:
            planned += [replace(run, error=error) for run in runs]
        else:
            planned += [_configured(run, data, device, results) for run in runs]
    return list(_checked(planned)) if len(planned) > 1 else planned  # a single run checks itself at its start


def _configured(run: PlannedRun, data: Dataset, device: str, results: Path) -> PlannedRun:
    """Add the configuration and the folder to a run, or the error."""
    try:
        config = configure(
            run.method, data, bits=run.bits, seed=run.seed, device=device, settings=run.settings
        )
        run_id = run_id_of(identity_of(config, data, source_of(config)))
    except HashbenchError as error:
        return replace(run, data=data, error=error)
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
        yield replace(run, folder=None, error=built) if isinstance(built, HashbenchError) else run


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
