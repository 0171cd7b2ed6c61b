"""The options of how runs are carried out."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

import math
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import Device, names
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.launchers.grid import Execution


def execution_options(
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
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first run that fails or cannot run.")
    ] = False,
    accept_stale: Annotated[
        bool,
        typer.Option(
            "--accept-stale", help="Keep records that another version of the code made with these settings."
        ),
    ] = False,
    track: Annotated[
        list[str],
        typer.Option(
            "--track",
            metavar="NAME",
            help="Log the training to wandb, tensorboard, mlflow, trackio or another experiment tracker of "
            "accelerate; repeatable.",
        ),
    ] = [],  # noqa: B006 (typer copies it)
) -> "Execution":
    """Return the values of these options.

    Raises:
        UsageError: A value is not finite, or --track is empty.
    """
    from hashbench.launchers.grid import Execution

    if not math.isfinite(save_every):
        raise UsageError(f"--save-every: expected a finite number of seconds, got {save_every}")
    trackers = tuple(names("--track", ",".join(track))) if track else ()
    return Execution(
        device=device, workers=workers, force=force, resume=resume, save_every=save_every, profile=profile,
        fail_fast=fail_fast, accept_stale=accept_stale, track=trackers,
    )  # fmt: skip
