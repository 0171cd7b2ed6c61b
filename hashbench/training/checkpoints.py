"""The state of a training on disk: whole, checked, the last two kept."""

from __future__ import annotations

import random
import re
from contextlib import suppress
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


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Save a state beside earlier ones, of which the last stays; a name has the hash of its file.

    A disk that is full costs the state and not the run: it is said, and earlier states stay.

    Args:
        folder: Of the states; made if it is missing.
        step: How many steps lie behind.
        state: Of tensors, numbers, texts, None, and lists, tuples and dicts of them.
    """
    partial = folder / "partial"
    try:
        folder.mkdir(exist_ok=True)
        with partial.open("wb") as file:
            torch.save(state, file)
        sync(partial)
        partial.rename(folder / f"step{step:09d}-{sha256_of(partial)[:16]}.pt")
        sync(folder)  # before an old state goes
        for old in _states(folder)[KEPT:]:
            old.unlink()
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            partial.unlink()
        # Torch's writer raises an error of its own while it handles the one of the disk.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else error
        warn(f"the state of step {step} cannot be saved in {folder} ({reason}); the run goes on")


def find_checkpoint(folder: Path) -> Path | None:
    """The file of the newest state that is whole, if there is one; what is damaged is said and removed."""
    for path in _states(folder):
        found = _NAME.fullmatch(path.name)
        if found and sha256_of(path).startswith(found[2]):
            return path
        warn(f"{path} is damaged; going back to the state before it, if there is one")
        path.unlink(missing_ok=True)  # else it would stay among the last two
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A state, its tensors on the CPU.

    Raises:
        HashbenchError: It cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except (OSError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise HashbenchError(
            f"{path} cannot be read ({reason}); every process needs the folder of the results"
        ) from error


def last_step(folder: Path) -> int | None:
    """The step of the newest state, looking at its name alone."""
    names = [_NAME.fullmatch(path.name) for path in _states(folder)[:1]]
    return next((int(name[1]) for name in names if name), None)


def rng_state(cuda: bool) -> dict[str, Any]:
    """The states of all global random generators of this process."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if cuda else None,
    }


def set_rng_state(states: dict[str, Any]) -> None:
    """Put back what `rng_state` gave."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002 - whoever draws from it should draw the same
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])


def _states(folder: Path) -> list[Path]:
    """The files of the states, the newest first."""
    return sorted((path for path in folder.glob("step*.pt") if _NAME.fullmatch(path.name)), reverse=True)
