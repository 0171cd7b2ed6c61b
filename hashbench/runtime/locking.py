"""Locks that let one process at a time write into a folder or own a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hashbench.runtime.console import info

try:
    import fcntl
except ImportError:  # Windows, where no file is owned
    fcntl = None  # type: ignore[assignment]

LOCK = ".hashbench.lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # from file systems without locks


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for writing while the block runs; wait, with a message, if another process has locked it.

    The lock ends with the process, even if it is killed. Users who share the folder share the lock. On a file
    system without locks, the block runs without one.

    Raises:
        OSError: The folder or its lock file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, mode=0o666, fallback_to_soft=False)  # a soft lock would survive a kill
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            info(f"another process is writing into {folder}; waiting for it to finish")
            lock.acquire()
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


@contextmanager
def owned(
    path: Path, *, without_locks: bool = True, remove: bool = True, content: str = ""
) -> Iterator[bool]:
    """Own a file while the block runs, so that no other process does.

    Child processes do not own the file, so none of them outlives the ownership.

    Args:
        path: The file, which is created if it does not exist.
        without_locks: The value to yield if the system or the file system has no locks.
        remove: Remove the file at the end.
        content: Text to write into the file. The owner must not open the file again, since closing it
            would end the ownership.

    Yields:
        True if the file is owned; False if another process owns it, or has renamed or removed its folder.

    Raises:
        OSError: The file cannot be created.
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
        if free and content:
            os.ftruncate(file, 0)
            os.write(file, content.encode())
        try:
            yield free
        finally:
            if free and remove:
                path.unlink(missing_ok=True)
    finally:
        os.close(file)
