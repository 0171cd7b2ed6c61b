"""The commands that train: `hashbench run` and `hashbench ablate`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hashbench.cli.output import (
    METRIC,
    RESULTS,
    AsJson,
    DataRoot,
    DataSettings,
    Lists,
    MetricName,
    Missing,
    PluginFiles,
    ProtocolName,
    Results,
    Settings,
    TableFormat,
    add_plugins,
    data_options,
    integers,
    names,
    print_json,
    say_warnings,
    show,
    timing_in_words,
    write_ablations,
)
from hashbench.errors import UsageError, unknown_name
from hashbench.runtime.console import say

if TYPE_CHECKING:
    from hashbench.config import RunConfig
    from hashbench.data.dataset import Dataset
    from hashbench.experiment.run import Run
    from hashbench.results.record import Record
    from hashbench.training.trainer import Execution

RUNS_ABREAST = 3  # in a table, so that it fits a terminal of 80 columns

MethodNames = Annotated[str, typer.Option("--method", help="Method, or several with commas between.")]
DatasetNames = Annotated[str, typer.Option("--dataset", help="Dataset, or several with commas between.")]
Lengths = Annotated[str, typer.Option("--bits", help="Code length, or several: 16,32,64.")]
Seeds = Annotated[str, typer.Option("--seed", help="Seed, or several: 0,1,2.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto takes a GPU if there is one.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Processes that load images (default: up to 8 for a GPU, else 0)."),
]
Force = Annotated[bool, typer.Option("--force", help="Run again what has a record, and replace it.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on where the same command was stopped; what was not begun is begun."),
]
SaveEvery = Annotated[
    float,
    typer.Option(
        "--save-every", metavar="SECONDS", min=0, help="Time from one saved state to the next, for --resume."
    ),
]
Profile = Annotated[
    int,
    typer.Option(
        "--profile",
        metavar="STEPS",
        min=0,
        help="Write a trace of so many steps, trace.json.gz in the run's folder.",
    ),
]
AllowOverlap = Annotated[
    bool, typer.Option("--allow-overlap", help="Accept queries that are also in the database.")
]
Planned = tuple["RunConfig", "Dataset"]


def run(
    method: MethodNames,
    dataset: DatasetNames,
    bits: Lengths = "32",
    seed: Seeds = "0",
    protocol: ProtocolName = None,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    data_root: DataRoot = None,
    lists: Lists = None,
    missing: Missing = None,
    data_settings: DataSettings = [],  # noqa: B006
    results: Results = RESULTS,
    device: Device = "auto",
    workers: Workers = None,
    force: Force = False,
    resume: Resume = False,
    save_every: SaveEvery = 300.0,
    profile: Profile = 0,
    allow_overlap: AllowOverlap = False,
    plugin: PluginFiles = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Train, encode, evaluate, and leave a record; commas make a grid."""
    add_plugins(plugin)
    lengths, seeds = integers("--bits", bits, least=1), integers("--seed", seed, least=0)
    methods, datasets = _known(method, dataset)

    from hashbench import distributed

    chosen, execution = _execution(device, workers, resume, save_every, profile)
    data = _load(datasets, protocol, data_root, lists, missing, data_settings, allow_overlap)
    planned = _plan({name: [settings] for name in methods}, data, lengths, seeds, chosen)
    runs: list[Run] = []
    try:
        runs.extend(_runs(planned, results, force, execution))
    finally:  # those that are done, too, if one fails
        if not distributed.is_first():
            pass
        elif as_json:
            print_json([{**done.record.model_dump(mode="json"), "folder": str(done.folder)} for done in runs])
        else:
            _print_runs(runs)


def ablate(
    method: MethodNames,
    dataset: DatasetNames,
    bits: Lengths = "32",
    seed: Seeds = "0",
    components: Annotated[
        str | None,
        typer.Option(
            help="Components to take away, of those under `components` in the method's recipe, with commas "
            "between, as in 'balance term,patch weighting' (default: all)."
        ),
    ] = None,
    protocol: ProtocolName = None,
    settings: Settings = [],  # noqa: B006
    data_root: DataRoot = None,
    lists: Lists = None,
    missing: Missing = None,
    data_settings: DataSettings = [],  # noqa: B006
    results: Results = RESULTS,
    device: Device = "auto",
    workers: Workers = None,
    force: Force = False,
    resume: Resume = False,
    save_every: SaveEvery = 300.0,
    profile: Profile = 0,
    allow_overlap: AllowOverlap = False,
    plugin: PluginFiles = [],  # noqa: B006
    metric: MetricName = METRIC,
    form: TableFormat = "markdown",
) -> None:
    """Run a method whole, without each of its components, and without all; show what each one gives.

    Components are what the method's recipe declares. Runs that have a record are not repeated, so that an
    ablation that was stopped goes on where it was.
    """
    add_plugins(plugin)
    lengths, seeds = integers("--bits", bits, least=1), integers("--seed", seed, least=0)
    methods, datasets = _known(method, dataset)

    from hashbench import distributed

    chosen, execution = _execution(device, workers, resume, save_every, profile)
    variants = {name: [[*settings, *without] for without in _variants(name, components)] for name in methods}
    data = _load(datasets, protocol, data_root, lists, missing, data_settings, allow_overlap)
    planned = _plan(variants, data, lengths, seeds, chosen)
    _check_plan(planned, metric)
    runs = list(_runs(planned, results, force, execution))

    from hashbench.results.query import share_common
    from hashbench.results.stored_run import StoredRun

    stored, _ = share_common([StoredRun(done.record, done.folder) for done in runs])
    if distributed.is_first():
        write_ablations(stored, metric, form)


def _execution(
    device: str, workers: int | None, resume: bool, save_every: float, profile: int
) -> tuple[str, Execution]:
    """The device, and how runs are carried out; connects with the other processes, if there are any."""
    from hashbench import distributed
    from hashbench.runtime.device import resolve_device, resolve_workers
    from hashbench.training.trainer import Execution

    chosen = resolve_device(device)
    distributed.join(chosen)
    return chosen, Execution(resolve_workers(workers, chosen), resume, save_every, profile)


def _known(method: str, dataset: str) -> tuple[list[str], list[str]]:
    """The methods and datasets; a wrong name is said at once, before torch is imported."""
    from hashbench import registry

    methods, datasets = names("--method", method), names("--dataset", dataset)
    for name in methods:
        registry.find("method", name)
    for name in datasets:
        registry.find("dataset", name)
    return methods, datasets


def _load(
    names_: Sequence[str],
    protocol: str | None,
    data_root: Path | None,
    lists: Path | None,
    missing: str | None,
    data_settings: list[str],
    allow_overlap: bool,
) -> Iterator[Dataset]:
    from hashbench.data.load import load_dataset

    options = data_options(lists, missing, data_settings)
    for name in names_:
        data = load_dataset(name, protocol, data_root, **options)
        if not allow_overlap:
            data.require_disjoint_queries()
        say_warnings(data)
        yield data


def _plan(
    variants: Mapping[str, Sequence[Sequence[str]]],
    datasets: Iterable[Dataset],
    lengths: Sequence[int],
    seeds: Sequence[int],
    device: str,
) -> list[Planned]:
    """All runs of a grid, configured before hours of training end in a wrong key.

    Args:
        variants: By method, the settings of each of its variants.
        datasets: The loaded datasets.
        lengths: Code lengths.
        seeds: Seeds.
        device: "cpu" or "cuda".
    """
    from hashbench.experiment import run as experiment

    return [
        (experiment.configure(m, data, bits=b, seed=s, device=device, settings=settings), data)
        for data in datasets
        for m, several in variants.items()
        for b in lengths
        for settings in several
        for s in seeds
    ]


def _runs(planned: Sequence[Planned], results: Path, force: bool, execution: Execution) -> Iterator[Run]:
    from hashbench.experiment import run as experiment
    from hashbench.experiment.configure import changes
    from hashbench.experiment.resume import require_same_settings
    from hashbench.results.stored_run import label_of
    from hashbench.runtime.preemption import stoppable

    if execution.resume:
        require_same_settings(planned, results)
    said = set()
    for place, (config, data) in enumerate(planned, start=1):
        which = f"[{place}/{len(planned)}] " if len(planned) > 1 else ""
        what = f"{label_of(config.method, changes(config))} on {data.name}@{data.protocol}"
        where = config.device + (f", {config.processes} processes" if config.processes > 1 else "")
        say(f"{which}{what}, {config.bits} bits, seed {config.seed}, {where}")
        length = experiment.length_note(config, data)
        if length and length not in said:  # once for all bits and seeds
            say(length)
            said.add(length)
        try:
            with stoppable():
                done = experiment.run(config, data, results, force=force, execution=execution)
        except KeyboardInterrupt:
            say(
                f"stopped; {place - 1} of {len(planned)} runs are done, and the same command goes on there; "
                "with --resume, within the run that was stopped"
            )
            raise
        if done.existed:
            threads = experiment.threads_note(done.record)
            note = f"{threads}; " if threads else ""
            say(f"a record exists, nothing was trained; {note}--force runs it again")
        yield done


def _check_plan(planned: Sequence[Planned], metric: str) -> None:
    """Find out now what would spoil the table of an ablation after hours of training.

    Raises:
        UsageError: The metric will not be there, or two variants could not be told apart.
    """
    from hashbench.experiment.configure import changes

    seen = set()
    for config, data in planned:
        if metric not in config.evaluation.metrics:
            raise UsageError(
                f"no run will have {metric}; choose --metric from {', '.join(config.evaluation.metrics)}"
            )
        where = config.method, config.dataset, config.bits, config.seed
        variant = (*where, json.dumps(changes(config), sort_keys=True))
        if variant in seen:
            raise UsageError(
                f"two variants of {config.method} on {data.name} would be the same run, since --set or "
                "the recipe takes a component away already; leave it out by --components"
            )
        seen.add(variant)


def _variants(method: str, wanted: str | None) -> list[list[str]]:
    """Settings of the whole method, of it without each component, and without all of them.

    Raises:
        UsageError: It declares no components, or not these.
    """
    from hashbench.experiment.configure import components

    declared = components(method)
    if not declared:
        raise UsageError(
            f"the recipe of {method} declares no components; add `components: {{NAME: {{KEY: VALUE}}}}`, "
            "with the settings that take each away"
        )
    chosen = names("--components", wanted) if wanted is not None else list(declared)
    for name in chosen:
        if name not in declared:
            raise unknown_name(f"component of {method}", name, declared)
    without = [[f"{path}={json.dumps(value)}" for path, value in declared[name].items()] for name in chosen]
    every = [setting for settings in without for setting in settings]
    return [[], *without, *([every] if len(without) > 1 else [])]


def _counts_unanswerable(record: Record) -> bool:
    """Whether queries to which nothing is relevant count 0 in the means."""
    return record.queries_without_relevant > 0 and record.config["evaluation"]["no_relevant"] == "zero"


def _answerable(record: Record, name: str) -> str:
    """A mean over the queries to which something is relevant; the others count 0 in the usual one."""
    if name not in record.metrics or not _counts_unanswerable(record):
        return ""
    answerable = record.split.query - record.queries_without_relevant
    return f"{record.metrics[name].expected * record.split.query / answerable:.4f}" if answerable else ""


def _epoch(record: Record) -> str:
    """The epoch that was taken, and by what."""
    selected = record.selected
    return f"{selected.epoch}, {selected.name}" if selected else str(record.config["training"]["epochs"])


def _print_runs(runs: list[Run]) -> None:
    from rich.table import Table

    for start in range(0, len(runs), RUNS_ABREAST):
        shown = [run.record for run in runs[start : start + RUNS_ABREAST]]
        table = Table("", pad_edge=False)
        for record in shown:
            table.add_column(
                f"{record.method}\n{record.dataset}@{record.protocol}\n{record.bits} bits, seed {record.seed}"
            )
        for name in dict.fromkeys(name for record in shown for name in record.metrics):
            if name.startswith("R@") or name == "P@all":
                continue
            metrics = [record.metrics.get(name) for record in shown]
            table.add_row(name, *(f"{m.expected:.4f}" if m else "" for m in metrics))
            if name.startswith("mAP"):
                table.add_row(
                    "  any tie order", *(f"{m.lowest:.4f} to {m.highest:.4f}" if m else "" for m in metrics)
                )
                if any(map(_counts_unanswerable, shown)):
                    table.add_row("  answerable only", *(_answerable(record, name) for record in shown))
        table.add_row("codes", *("COLLAPSED" if record.health.collapsed else "healthy" for record in shown))
        if any(record.selected for record in shown):
            table.add_row("epoch", *(_epoch(record) for record in shown))
        timings = [timing_in_words(record.timing) for record in shown]
        for name in dict.fromkeys(name for timing in timings for name in timing):
            table.add_row(name, *(timing.get(name, "") for timing in timings))
        show(table)
    for run in runs:
        for reason in run.record.health.reasons:
            say(f"{run.record.run_id} COLLAPSED: {reason}")
        show(str(run.folder))
