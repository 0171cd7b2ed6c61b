"""Checkpoints of a training: written atomically, verified when loaded, the last two kept."""

from __future__ import annotations

import random
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from hashbench.errors import HashbenchError
from hashbench.runtime.console import warn
from hashbench.runtime.files import sha256_of, sync

KEPT = 2
_NAME = re.compile(r"step(\d+)-([0-9a-f]{16})\.pt")


@dataclass
class TrainerState:
    """Progress of a training, as a checkpoint contains it.

    Attributes:
        epoch: Number of finished epochs.
        batch: Number of finished batches of the current epoch.
        step: Number of finished batches of all epochs.
        validation_due: True from the end of an epoch until its validation.
        resumed: How often the training was resumed.
        seconds: Duration until the last checkpoint.
        log_bytes: Length of the log at the last checkpoint.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    validation_due: bool = False
    resumed: int = 0
    seconds: float = 0.0
    log_bytes: int = 0


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Save a checkpoint in a file named after its hash, and remove all but the last two.

    If it cannot be written, for example because the disk is full, a warning is shown and the run continues.

    Args:
        folder: Folder of the checkpoints; created if it is missing.
        step: Number of finished steps.
        state: Tensors, numbers, strings and None, in lists, tuples and dicts.
    """
    partial = folder / "partial"
    try:
        folder.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
        sync(partial)
        partial.rename(folder / f"step{step:09d}-{sha256_of(partial)[:16]}.pt")
        sync(folder)  # before an old checkpoint is removed
        for old, *_ in _checkpoints(folder)[KEPT:]:
            old.unlink()
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            partial.unlink()
        # Torch raises its own error while it handles the OSError.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else error
        warn(f"the checkpoint of step {step} cannot be saved in {folder} ({reason}); the run continues")


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest intact checkpoint, or None; warn about damaged ones and remove them."""
    for path, _, sha256 in _checkpoints(folder):
        if sha256_of(path).startswith(sha256):
            return path
        warn(f"{path} is damaged; the run resumes from an earlier checkpoint or from the start")
        path.unlink(missing_ok=True)  # else it would count as one of the last two
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint, with tensors on the CPU.

    Raises:
        HashbenchError: The file cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except (OSError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise HashbenchError(
            f"{path} cannot be read ({reason}); all processes need access to the folder of results"
        ) from error


def last_step(folder: Path) -> int | None:
    """Return the step in the file name of the newest checkpoint, or None."""
    return next((step for _, step, _ in _checkpoints(folder)), None)


def rng_state(cuda: bool) -> dict[str, Any]:
    """Return the states of all global random generators of this process."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if cuda else None,
    }


def set_rng_state(states: dict[str, Any]) -> None:
    """Restore the random generators from `rng_state`."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002 - plugins may use it
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])


def _checkpoints(folder: Path) -> list[tuple[Path, int, str]]:
    """Return the path, the step and the beginning of the SHA-256 of each checkpoint, the newest first."""
    names = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("step*.pt")]
    return sorted(((path, int(name[1]), name[2]) for path, name in names if name), reverse=True)
