"""The options of launchers."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hashbench.cli.options import integers
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.launchers.grid import Launch


def launch_options(
    launcher: Annotated[
        Literal["local", "slurm"] | None,
        typer.Option(
            "--launcher",
            help="local: carry out several runs at once, each in a process of its own; slurm: submit each "
            "run as a job, and return at once.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
            max=10_000,
            help="Runs at once with --launcher local (default: one per GPU; 1 on a CPU, where N runs share "
            "the cores).",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            metavar="NUMBERS",
            help="GPUs of --launcher local, e.g. 0,1,2,3 (default: all); with more --jobs, runs share a GPU.",
        ),
    ] = None,
    slurm: Annotated[
        list[str],
        typer.Option(
            "--slurm",
            metavar="KEY=VALUE,…",
            help="Options of sbatch for --launcher slurm, e.g. partition=gpu,gres=gpu:1,time=240 (minutes; "
            "default 60, after which a run is requeued and resumed); repeatable.",
        ),
    ] = [],  # noqa: B006 (typer copies it)
    max_parallel: Annotated[
        int | None,
        typer.Option("--max-parallel", metavar="N", min=1, help="Jobs of --launcher slurm that run at once."),
    ] = None,
) -> "Launch":
    """Return the values of these options.

    Raises:
        UsageError: An option belongs to a launcher that is not used.
    """
    from hashbench.launchers.grid import Launch

    local, cluster = {"--jobs": jobs, "--gpus": gpus}, {"--slurm": slurm, "--max-parallel": max_parallel}
    for name, options in (("local", local), ("slurm", cluster)):
        for option, value in options.items():
            if value and launcher != name:
                raise UsageError(f"{option} needs --launcher {name}")
    numbers = None if gpus is None else integers("--gpus", gpus, least=0)
    return Launch(launcher, jobs, numbers, slurm, max_parallel)
