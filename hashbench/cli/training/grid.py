"""The options of the commands that train, and the grid of runs that they describe."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashbench.cli.datasets import DataOptions, data_options
from hashbench.cli.options import (
    RESULTS,
    DatasetNames,
    ExperimentName,
    MethodNames,
    PluginFiles,
    Results,
    Settings,
    add_plugins,
    integers,
    names,
    read_experiment,
    with_options,
)
from hashbench.cli.training.execution import ExecutionOptions, execution_options
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.experiment.definition import Experiment
    from hashbench.experiment.plan import PlannedRun


@dataclass(frozen=True)
class Grid:
    """A grid of runs: an experiment, and how the command line carries it out."""

    experiment: "Experiment"
    results: Path
    execution: ExecutionOptions
    allow_overlap: bool

    def plan(self, device: str) -> "list[PlannedRun]":
        """Plan all runs; `device` is "cpu" or "cuda"."""
        from hashbench.experiment.plan import plan

        return plan(self.experiment, device, self.results, allow_overlap=self.allow_overlap)

    def command(self, run: "PlannedRun") -> list[str]:
        """Return the words of the command that executes one run of the grid, for a scheduler."""
        from hashbench.runtime.yaml_values import as_set

        chosen = run.chosen
        single: dict[str, object] = {
            "--method": run.method, "--dataset": chosen.name, "--bits": run.bits, "--seed": run.seed,
            "--protocol": chosen.protocol, "--data-root": chosen.root, "--limit": chosen.limit,
            "--results": self.results, "--device": self.execution.device, "--name": run.name,
        }  # fmt: skip
        data = {key: str(v) if isinstance(v, Path) else as_set(v) for key, v in chosen.options.items()}
        several = [
            *(("--data", f"{key}={value}") for key, value in data.items()),
            *(("--set", setting) for setting in run.settings),
            *(("--plugin", str(file)) for file in self.experiment.plugins),
            *(("--track", name) for name in self.execution.track),
        ]
        options = [(name, str(value)) for name, value in single.items() if value is not None]
        words = [word for option in [*options, *several] for word in option]
        return ["hashbench", "run", *words, *(["--allow-overlap"] if self.allow_overlap else [])]


@with_options("execution", execution_options)
@with_options("data", data_options)
def grid(
    config: ExperimentName = None,
    method: MethodNames = None,
    dataset: DatasetNames = None,
    bits: Annotated[
        str | None, typer.Option("--bits", help="One or more code lengths, e.g. 16,32,64 (default: 32).")
    ] = None,
    seed: Annotated[
        str | None, typer.Option("--seed", help="One or more seeds, e.g. 0,1,2 (default: 0).")
    ] = None,
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
    """Return the grid that these options describe; reject unknown names before torch is imported.

    With an experiment, --method and --dataset choose from it, and the other options replace what it says.
    """
    from hashbench.experiment.definition import DatasetEntry, Experiment, MethodEntry

    if config is None and (method is None or dataset is None):
        lacking = "--method" if method is None else "--dataset"
        raise UsageError(f"missing option '{lacking}', or an experiment by --config")
    methods = names("--method", method) if method is not None else []
    datasets = names("--dataset", dataset) if dataset is not None else []
    if config is None:
        experiment = Experiment(
            methods=tuple(MethodEntry(name=name) for name in methods),
            datasets=tuple(DatasetEntry(name=name) for name in datasets),
        )
    else:
        experiment = read_experiment(config).choose(methods, datasets)
    new: dict[str, Any] = {
        "bits": tuple(integers("--bits", bits, least=1)) if bits is not None else None,
        "seeds": tuple(integers("--seed", seed, least=0)) if seed is not None else None,
        "backbones": tuple(names("--backbone", backbone)) if backbone is not None else None,
        "overrides": (*experiment.overrides, *settings),
        "plugins": (*experiment.plugins, *plugin),
    }
    of_datasets = {
        "protocol": data.protocol, "root": data.root, "limit": limit, "options": data.options or None,
    }  # fmt: skip
    experiment = experiment.change(
        {key: value for key, value in new.items() if value is not None},
        {key: value for key, value in of_datasets.items() if value is not None}
        | ({"bits": None} if bits is not None else {}),
    )
    add_plugins(plugin)
    experiment.require_registered()
    return Grid(experiment, results, execution, allow_overlap)
