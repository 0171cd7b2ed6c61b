"""The options of the commands that train, and the grid of runs that they describe."""

# Annotations must be objects here, since `with_options` hands them to typer out of this module.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hashbench.cli.options import (
    RESULTS,
    DataRoot,
    DataSettings,
    Lists,
    Missing,
    PluginFiles,
    ProtocolName,
    Results,
    Settings,
    add_plugins,
    data_options,
    integers,
    names,
)
from hashbench.cli.output import say_warnings
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.config import RunConfig
    from hashbench.data.dataset import Dataset
    from hashbench.experiment.run import Run
    from hashbench.training.trainer import RunOptions

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


@dataclass(frozen=True)
class Grid:
    """A grid of runs, as the command line describes it."""

    methods: list[str]
    datasets: list[str]
    bits: list[int]
    seeds: list[int]
    protocol: str | None
    settings: list[str]
    data_root: Path | None
    lists: Path | None
    missing: str | None
    data_settings: list[str]
    results: Path
    device: str
    workers: int | None
    force: bool
    resume: bool
    save_every: float
    profile: int
    allow_overlap: bool

    def execution(self) -> tuple[str, "RunOptions"]:
        """Return the device and how runs are carried out, and join the other processes, if any."""
        from hashbench import distributed
        from hashbench.runtime.device import resolve_device, resolve_workers
        from hashbench.training.trainer import RunOptions

        device = resolve_device(self.device)
        distributed.init_process_group(device)
        workers = resolve_workers(self.workers, device)
        return device, RunOptions(workers, self.resume, self.save_every, self.profile)

    def load(self) -> Iterator["Dataset"]:
        """Load the datasets one by one."""
        from hashbench.data.load import load_dataset

        options = data_options(self.lists, self.missing, self.data_settings)
        for name in self.datasets:
            data = load_dataset(name, self.protocol, self.data_root, **options)
            if not self.allow_overlap:
                data.require_disjoint_queries()
            say_warnings(data)
            yield data

    def plan(self, variants: Mapping[str, Sequence[Sequence[str]]], device: str) -> list[Planned]:
        """Configure all runs, before hours of training end in a wrong key.

        Args:
            variants: By method, the settings of each of its variants.
            device: "cpu" or "cuda".
        """
        from hashbench.experiment import run as experiment

        return [
            (experiment.configure(m, data, bits=b, seed=s, device=device, settings=settings), data)
            for data in self.load()
            for m, several in variants.items()
            for b in self.bits
            for settings in several
            for s in self.seeds
        ]


def grid(
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
) -> Grid:
    """Return the grid that these options describe; a wrong name is said before torch is imported."""
    from hashbench import registry

    add_plugins(plugin)
    lengths, seeds = integers("--bits", bits, least=1), integers("--seed", seed, least=0)
    methods, datasets = names("--method", method), names("--dataset", dataset)
    for name in methods:
        registry.find("method", name)
    for name in datasets:
        registry.find("dataset", name)
    return Grid(
        methods,
        datasets,
        lengths,
        seeds,
        protocol,
        settings,
        data_root,
        lists,
        missing,
        data_settings,
        results,
        device,
        workers,
        force,
        resume,
        save_every,
        profile,
        allow_overlap,
    )


def carry_out(
    planned: Sequence[Planned], results: Path, force: bool, execution: "RunOptions"
) -> Iterator["Run"]:
    """Do the runs one after another, and yield each when it is done or found to have a record."""
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
        info(f"{which}{what}, {config.bits} bits, seed {config.seed}, {where}")
        length = experiment.length_note(config, data)
        if length and length not in said:  # once for all bits and seeds
            info(length)
            said.add(length)
        try:
            with stoppable():
                done = experiment.run(config, data, results, force=force, execution=execution)
        except KeyboardInterrupt:
            info(
                f"stopped; {place - 1} of {len(planned)} runs are done, and the same command goes on there; "
                "with --resume, within the run that was stopped"
            )
            raise
        if done.existed:
            threads = experiment.threads_note(done.record)
            note = f"{threads}; " if threads else ""
            info(f"a record exists, nothing was trained; {note}--force runs it again")
        yield done
