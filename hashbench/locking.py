"""One process at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".hashbench.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder; others wait for it, and say so.

    A process that is killed leaves no lock behind.

    Args:
        folder: The folder; made if it is missing.

    Raises:
        OSError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                sys.stderr.write(f"hashbench: another process writes into {folder}; waiting for it\n")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
