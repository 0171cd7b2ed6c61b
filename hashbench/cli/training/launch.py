"""The options of launchers, and the command that carries out one run of a grid."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hashbench.cli.options import integers
from hashbench.cli.training.grid import Grid
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.experiment.plan import PlannedRun
    from hashbench.training.options import RunOptions


@dataclass(frozen=True)
class LaunchOptions:
    """Where the runs of a grid are carried out; None: in this process, one after another."""

    launcher: Literal["local"] | None
    jobs: int | None
    gpus: list[int] | None


def launch_options(
    launcher: Annotated[
        Literal["local"] | None,
        typer.Option(
            "--launcher", help="local: carry out several runs at once, each in a process of its own."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            min=1,
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
) -> LaunchOptions:
    """Return the values of these options.

    Raises:
        UsageError: An option belongs to a launcher that is not used.
    """
    for option, value in (("--jobs", jobs), ("--gpus", gpus)):
        if value is not None and launcher != "local":
            raise UsageError(f"{option} needs --launcher local")
    return LaunchOptions(launcher, jobs, None if gpus is None else integers("--gpus", gpus, least=0))


def check_launcher(launch: LaunchOptions, device: str) -> None:
    """Check that a launcher fits how this command was started.

    Raises:
        UsageError: The command was started by torchrun, or its device is a single GPU.
    """
    from hashbench import distributed

    if launch.launcher and distributed.started() > 1:
        raise UsageError(
            "--launcher starts the runs itself; leave it out, or start the command without torchrun"
        )
    if launch.launcher and device.startswith("cuda:"):
        raise UsageError(f"--launcher chooses the GPU of each run; use --device cuda instead of {device}")


def command_of(run: "PlannedRun", wanted: Grid, options: "RunOptions", force: bool) -> list[str]:
    """Return the words of the command that carries out one run of the grid."""
    flags = {"--resume": options.resume, "--accept-stale": options.accept_stale, "--force": force}
    values = {"--workers": options.workers, "--save-every": options.save_every, "--profile": options.profile}
    return [
        *(sys.executable, "-m", *wanted.command(run)),
        *(flag for flag, given in flags.items() if given),
        *(word for option, value in values.items() for word in (option, str(value))),
    ]
