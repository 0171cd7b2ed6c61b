"""One process at a time."""

from __future__ import annotations

import os
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
    path = folder / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # of another user, who shares the folder
        lock = os.open(path, os.O_RDONLY)
    try:
        _wait_for(lock, folder)
        yield
    finally:
        os.close(lock)


def _wait_for(lock: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write(f"hashbench: another process writes into {folder}; waiting for it\n")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # a file system without locks; what is written is still whole or not there
        return
