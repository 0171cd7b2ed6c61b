"""The options of the commands that train, and the grid of runs that they describe."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.datasets import DataOptions, data_options
from hashbench.cli.options import (
    RESULTS,
    Device,
    PluginFiles,
    Results,
    Settings,
    add_plugins,
    integers,
    names,
    with_options,
)
from hashbench.cli.output import warn_about
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.config import RunConfig
    from hashbench.data.dataset import Dataset
    from hashbench.experiment.run import Run
    from hashbench.training.options import RunOptions

Planned = tuple["RunConfig", "Dataset"]


@dataclass(frozen=True)
class Grid:
    """A grid of runs, as the command line describes it."""

    methods: list[str]
    datasets: list[str]
    bits: list[int]
    seeds: list[int]
    data: DataOptions
    settings: list[str]
    results: Path
    device: str
    workers: int | None
    force: bool
    resume: bool
    save_every: float
    profile: int
    allow_overlap: bool

    def init(self) -> tuple[str, "RunOptions"]:
        """Join the other processes of a distributed run, if any, and return the device and run options."""
        from hashbench import distributed
        from hashbench.runtime.device import resolve_device, resolve_workers
        from hashbench.training.options import RunOptions

        device = resolve_device(self.device)
        distributed.init_process_group(device)
        workers = resolve_workers(self.workers, device)
        return device, RunOptions(workers, self.resume, self.save_every, self.profile)

    def load(self) -> Iterator["Dataset"]:
        """Load the datasets one by one."""
        from hashbench.data.load import load_dataset

        for name in self.datasets:
            data = load_dataset(name, self.data.protocol, self.data.root, **self.data.options)
            if not self.allow_overlap:
                data.require_disjoint_queries()
            warn_about(data)
            yield data

    def plan(self, variants: Mapping[str, Sequence[Sequence[str]]], device: str) -> list[Planned]:
        """Configure all runs, so that a wrong key fails before hours of training."""
        from hashbench.experiment.configure import configure

        return [
            (configure(m, data, bits=b, seed=s, device=device, settings=settings), data)
            for data in self.load()
            for m, several in variants.items()
            for b in self.bits
            for settings in several
            for s in self.seeds
        ]


@with_options("data", data_options)
def grid(
    method: Annotated[str, typer.Option("--method", help="One or more methods, separated by commas.")],
    dataset: Annotated[str, typer.Option("--dataset", help="One or more datasets, separated by commas.")],
    bits: Annotated[str, typer.Option("--bits", help="One or more code lengths, e.g. 16,32,64.")] = "32",
    seed: Annotated[str, typer.Option("--seed", help="One or more seeds, e.g. 0,1,2.")] = "0",
    settings: Settings = [],  # noqa: B006 (typer copies it)
    *,
    data: DataOptions,
    results: Results = RESULTS,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=0, help="Processes that load images (default: up to 8 with a GPU, else 0)."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Repeat runs that have a record, and replace the record.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted command from its last checkpoint; start runs that have none.",
        ),
    ] = False,
    save_every: Annotated[
        float,
        typer.Option(
            "--save-every", metavar="SECONDS", min=0, help="Time between the checkpoints that --resume needs."
        ),
    ] = 300.0,
    profile: Annotated[
        int,
        typer.Option(
            "--profile",
            metavar="STEPS",
            min=0,
            help="Trace this many steps, to trace.json.gz in the run's folder; 0 traces none.",
        ),
    ] = 0,
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
    return Grid(
        methods, datasets, lengths, seeds, data, settings, results, device, workers, force, resume,
        save_every, profile, allow_overlap,
    )  # fmt: skip


def run_all(planned: Sequence[Planned], results: Path, force: bool, options: "RunOptions") -> Iterator["Run"]:
    """Execute runs one after another, and yield each when it is done or has a record already."""
    from hashbench.experiment import run as experiment
    from hashbench.experiment.configure import changes, length_note
    from hashbench.experiment.resume import require_same_settings
    from hashbench.results.stored_run import label_of
    from hashbench.runtime.preemption import stoppable

    if options.resume:
        require_same_settings(planned, results)
    shown_notes = set()
    for number, (config, data) in enumerate(planned, start=1):
        which = f"[{number}/{len(planned)}] " if len(planned) > 1 else ""
        what = f"{label_of(config.method, changes(config))} on {data.name}@{data.protocol}"
        where = config.device + (f", {config.processes} processes" if config.processes > 1 else "")
        info(f"{which}{what}, {config.bits} bits, seed {config.seed}, {where}")
        note = length_note(config, data)
        if note and note not in shown_notes:  # once for all code lengths and seeds
            info(note)
            shown_notes.add(note)
        try:
            with stoppable():
                run = experiment.run(config, data, results, force=force, execution=options)
        except KeyboardInterrupt:
            info(
                f"stopped; {number - 1} of {len(planned)} runs are done; repeat the command to start with "
                "the next one, or add --resume to continue within the interrupted run"
            )
            raise
        if run.existed:
            threads = experiment.threads_note(run.record)
            info(
                f"a record exists, nothing was trained; {f'{threads}; ' if threads else ''}"
                "--force runs it again"
            )
        yield run
