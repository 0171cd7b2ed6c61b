"""The options of the commands that train, and the grid of runs that they describe."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
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
from hashbench.cli.output import format_result, warn_about
from hashbench.errors import HashbenchError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.config import RunConfig
    from hashbench.data.dataset import Dataset
    from hashbench.experiment.plan import PlannedRun
    from hashbench.experiment.run import Run
    from hashbench.training.options import RunOptions


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


def run_all(
    planned: "Sequence[PlannedRun]", wanted: Grid, options: "RunOptions", failed: list[str]
) -> Iterator["Run"]:
    """Execute runs one after another, and yield each when it is done or has a record already.

    A line is appended to `failed` for each run that fails or is impossible, and the others go on. The error
    of a single run is raised, and so is any error with --fail-fast or in one of several processes.
    """
    from hashbench import distributed
    from hashbench.experiment.resume import require_same_settings
    from hashbench.runtime.preemption import PreemptionError
    from hashbench.runtime.progress import progress

    one_failure = wanted.execution.fail_fast or len(planned) == 1 or distributed.world_size() > 1
    impossible = [(run, run.error) for run in planned if run.error]
    if impossible and (one_failure or len(impossible) == len(planned)):
        raise impossible[0][1]
    failed += [_failure(run, error) for run, error in impossible]
    for line in failed:
        info(f"cannot run: {line}")
    ready = [(run, run.config, run.data) for run in planned if run.config and run.data and not run.error]
    if options.resume:
        require_same_settings([(config, data) for _, config, data in ready], wanted.results)
    _report_backbones([config for _, config, _ in ready])
    left = sum(wanted.execution.force or run.status != "exists" for run, *_ in ready)
    done, shown_notes = 0, set[str]()
    with progress("runs", left) if len(planned) > 1 else nullcontext(lambda _: None) as advance:
        for number, (run, config, data) in enumerate(ready, start=1):
            fresh = wanted.execution.force or run.status == "to run"
            _announce(run, config, data, f"[{number}/{len(ready)}] " if len(planned) > 1 else "", shown_notes)
            try:
                yield _execute(config, data, wanted, options, len(planned) > 1)
                done += 1
            except KeyboardInterrupt:
                info(
                    f"stopped; {done} of {len(planned)} runs are done; repeat the command to start with the "
                    "next one, or add --resume to continue within the interrupted run"
                )
                raise
            except HashbenchError as error:
                if one_failure or isinstance(error, PreemptionError):
                    raise
                failed.append(_failure(run, error))
                info(f"failed: {failed[-1]}")
            if fresh:
                advance(1)


def _report_backbones(configs: "Sequence[RunConfig]") -> None:
    """Print a line for each dataset on which the runs differ in their backbone or image size."""
    from hashbench.results.stored_run import describe_backbone

    used: dict[str, dict[str, dict[str, None]]] = {}
    for config in configs:
        backbones = used.setdefault(f"{config.dataset}@{config.protocol}", {})
        backbones.setdefault(describe_backbone(config.model_dump()), {})[config.method] = None
    for name, backbones in used.items():
        if len(backbones) > 1:
            listed = "; ".join(f"{', '.join(methods)}: {text}" for text, methods in backbones.items())
            info(f"{name}: the backbones differ ({listed}); --backbone NAME uses one for all")


def _announce(
    run: "PlannedRun", config: "RunConfig", data: "Dataset", number: str, shown_notes: set[str]
) -> None:
    """Print which run starts, and its note on the training length, once for all code lengths and seeds."""
    from hashbench.experiment.configure import length_note

    processes = f", {config.processes} processes" if config.processes > 1 else ""
    info(f"{number}{run.kind}, seed {run.seed}, {config.device}{processes}")
    note = length_note(config, data)
    if note and note not in shown_notes:
        info(note)
        shown_notes.add(note)


def _execute(
    config: "RunConfig", data: "Dataset", wanted: Grid, options: "RunOptions", several: bool
) -> "Run":
    """Execute a run, and print a line about its record."""
    from hashbench.experiment import run as experiment
    from hashbench.experiment.identity import source_of
    from hashbench.runtime.preemption import stoppable

    with stoppable():
        run = experiment.run(config, data, wanted.results, force=wanted.execution.force, execution=options)
    if run.existed:
        threads = experiment.threads_note(run.record)
        stale = run.record.environment.get("source") != source_of(config)
        kept = "a record of another version of the code" if stale else "a record"
        again = f"{f'{threads}; ' if threads else ''}--force runs it again"
        info(f"{kept} exists, nothing was trained; {again}")
        if options.name not in (None, run.record.name):
            info(f"it keeps its name, {run.record.name or run.record.method}; --rename shows another one")
    if several:
        info(f"{format_result(run.record)}, {run.folder}")
    return run


def _failure(run: "PlannedRun", error: HashbenchError) -> str:
    """Describe a run that has no record in one line."""
    return f"{run.kind}, seed {run.seed}: {str(error).splitlines()[0]}"


def report_failures(failed: Sequence[str], runs: int) -> None:
    """Print a line for each run that failed or was impossible.

    Raises:
        HashbenchError: There are any.
    """
    for line in failed:
        info(f"no record: {line}")
    if failed:
        raise HashbenchError(f"{len(failed)} of {runs} runs have no record; the lines above say why")
