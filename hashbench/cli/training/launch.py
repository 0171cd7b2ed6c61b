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
) -> "Launch":
    """Return the values of these options.

    Raises:
        UsageError: An option belongs to a launcher that is not used.
    """
    for option, value in (("--jobs", jobs), ("--gpus", gpus)):
        if value is not None and launcher != "local":
            raise UsageError(f"{option} needs --launcher local")
    from hashbench.launchers.grid import Launch

    return Launch(launcher, jobs, None if gpus is None else integers("--gpus", gpus, least=0))
