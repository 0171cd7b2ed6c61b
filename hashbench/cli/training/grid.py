"""The options of the commands that train, and the grid of runs that they describe."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.datasets import DataOptions, data_options
from hashbench.cli.options import (
    RESULTS,
    DatasetNames,
    ExecutionOptions,
    MethodNames,
    PluginFiles,
    Results,
    Settings,
    add_plugins,
    execution_options,
    integers,
    names,
    with_options,
)
from hashbench.cli.output import warn_about

if TYPE_CHECKING:
    from hashbench.data.dataset import Dataset
    from hashbench.experiment.plan import PlannedRun


@dataclass(frozen=True)
class Grid:
    """A grid of runs, as the command line describes it."""

    methods: list[str]
    datasets: list[str]
    bits: list[int]
    seeds: list[int]
    backbones: list[str]
    data: DataOptions
    limit: int | None
    settings: list[str]
    results: Path
    execution: ExecutionOptions
    allow_overlap: bool
    plugins: list[Path]

    def command(self, run: "PlannedRun") -> list[str]:
        """Return the words of the command that executes one run of the grid, for a scheduler."""
        from hashbench.results.stored_run import as_set

        single: dict[str, object] = {
            "--method": run.method, "--dataset": run.dataset, "--bits": run.bits, "--seed": run.seed,
            "--protocol": self.data.protocol, "--data-root": self.data.root, "--limit": self.limit,
            "--results": self.results, "--device": self.execution.device,
        }  # fmt: skip
        data = {key: str(v) if isinstance(v, Path) else as_set(v) for key, v in self.data.options.items()}
        several = [
            *(("--data", f"{key}={value}") for key, value in data.items()),
            *(("--set", setting) for setting in run.settings),
            *(("--plugin", str(file)) for file in self.plugins),
        ]
        options = [(name, str(value)) for name, value in single.items() if value is not None]
        words = [word for option in [*options, *several] for word in option]
        return ["hashbench", "run", *words, *(["--allow-overlap"] if self.allow_overlap else [])]

    def load(self, name: str) -> "Dataset":
        """Load a dataset."""
        from hashbench.data.load import load_dataset

        data = load_dataset(name, self.data.protocol, self.data.root, limit=self.limit, **self.data.options)
        if not self.allow_overlap:
            data.require_disjoint_queries()
        warn_about(data)
        return data

    def plan(self, variants: Mapping[str, Sequence[Sequence[str]]], device: str) -> "list[PlannedRun]":
        """Plan all runs.

        Args:
            variants: The settings of each variant, by method, in addition to those of the grid.
            device: "cpu" or "cuda".
        """
        from hashbench.experiment.configure import settings_by_method
        from hashbench.experiment.plan import plan

        own = settings_by_method(self.methods, self.settings)
        backbones = [[f"backbone={name}"] for name in self.backbones] or [[]]
        settings = {
            name: [[*backbone, *own[name], *variant] for backbone in backbones for variant in several]
            for name, several in variants.items()
        }
        datasets = {name: partial(self.load, name) for name in self.datasets}
        return plan(datasets, settings, self.bits, self.seeds, device, self.results)


@with_options("execution", execution_options)
@with_options("data", data_options)
def grid(
    method: MethodNames,
    dataset: DatasetNames,
    bits: Annotated[str, typer.Option("--bits", help="One or more code lengths, e.g. 16,32,64.")] = "32",
    seed: Annotated[str, typer.Option("--seed", help="One or more seeds, e.g. 0,1,2.")] = "0",
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", help="One or more backbones, separated by commas (default: the recipe's)."
        ),
    ] = None,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    *,
    data: DataOptions,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Use N images of each part only, for a first try."),
    ] = None,
    results: Results = RESULTS,
    execution: ExecutionOptions,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Accept queries that are also in the database.")
    ] = False,
    plugin: PluginFiles = [],  # noqa: B006
) -> Grid:
    """Return the grid that these options describe; reject unknown names before torch is imported."""
    from hashbench import registry

    add_plugins(plugin)
    lengths, seeds = integers("--bits", bits, least=1), integers("--seed", seed, least=0)
    methods, datasets = names("--method", method), names("--dataset", dataset)
    for name in methods:
        registry.find("method", name)
    for name in datasets:
        registry.find("dataset", name)
    networks = names("--backbone", backbone) if backbone is not None else []
    return Grid(
        methods, datasets, lengths, seeds, networks, data, limit, settings, results, execution, allow_overlap,
        plugin,
    )  # fmt: skip
