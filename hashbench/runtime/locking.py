"""One process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hashbench.runtime.console import info

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


@contextmanager
def owned(path: Path, *, without_locks: bool = True) -> Iterator[bool]:
    """Own a file while the block runs, so that no other process does; a block that ends well removes it.

    The processes that this one starts do not own it, so that none of them outlives the ownership.

    Args:
        path: The file; made if it is missing.
        without_locks: What to yield where the system, or the file system, has no locks.

    Yields:
        Whether it is owned: not if another process has it, or has renamed or removed its folder.

    Raises:
        OSError: The file cannot be made.
    """
    if fcntl is None:
        yield without_locks
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(os.fstat(file), path.stat())
        except (BlockingIOError, PermissionError, FileNotFoundError):
            free = False
        except OSError:  # a file system without locks
            free = without_locks
        yield free
        if free:
            path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _wait_for(lock: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        info(f"another process writes into {folder}; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # a file system without locks; what is written is still whole or not there
        return
