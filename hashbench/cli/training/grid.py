"""The options of the commands that train, which describe a grid of runs."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashbench.cli.datasets import DataOptions, data_options
from hashbench.cli.options import (
    RESULTS,
    AllowOverlap,
    DatasetNames,
    ExperimentName,
    MethodNames,
    PluginFiles,
    RecipePart,
    Results,
    Settings,
    add_plugins,
    integers,
    names,
    read_experiment,
    with_options,
)
from hashbench.cli.training.execution import execution_options
from hashbench.cli.training.launch import launch_options
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.launchers.grid import Grid


@with_options("launch", launch_options)
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
    recipe: RecipePart = None,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    *,
    data: DataOptions,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Use N images of each part only, for a first try."),
    ] = None,
    results: Results = RESULTS,
    execution: Any,  # not `Execution` and `Launch`, which would import torch
    launch: Any,
    allow_overlap: AllowOverlap = None,
    plugin: PluginFiles = [],  # noqa: B006
) -> "Grid":
    """Return the grid that these options describe; reject unknown names before torch is imported.

    With an experiment, --method and --dataset choose from it, and the other options replace what it says.
    """
    from hashbench.experiment.definition import DatasetEntry, Experiment, MethodEntry
    from hashbench.launchers.grid import Grid

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
        "overrides": (*experiment.overrides, *([f"recipe={recipe}"] if recipe else []), *settings),
        "plugins": (*experiment.plugins, *plugin),
        "allow_overlap": allow_overlap,
    }
    of_datasets = {"protocol": data.protocol, "root": data.root, "limit": limit, "options": data.options}
    experiment = experiment.change(
        {key: value for key, value in new.items() if value is not None},
        {key: value for key, value in of_datasets.items() if value is not None}
        | ({"bits": None} if bits is not None else {}),
    )
    add_plugins(plugin)
    experiment.require_registered()
    launch.check(execution.device)
    return Grid(experiment, results, execution, launch)
