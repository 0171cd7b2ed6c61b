"""Files and folders that are on the disk whole, or not there: written through, and put in place at once."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from hashbench.errors import HashbenchError, UsageError

SILENT_S = 3600.0
"""A process that has not written to its file for as long is taken for dead."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux
_ASIDE = ".replaced"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new name beside a file, where a block writes; what is there then becomes the file.

    Whatever happens, the file is the old one or the new one, and nothing else is left: what a process that
    was killed could not remove is removed the next time.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > SILENT_S:
                left.unlink()
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, in place of one that may be there.

    Raises:
        UsageError: There is no such folder.
        HashbenchError: It cannot be written; what was there is as it was.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written, since there is no folder {path.parent}")
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise HashbenchError(f"{path} cannot be written ({error.strerror}); choose another place") from error


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, through to the disk."""
    if path.is_dir() and os.name == "nt":  # which opens no folders
        return
    file = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # of file systems that sync no folders
            raise
    finally:
        os.close(file)


def sync_tree(folder: Path) -> None:
    """Write all that is in a folder through to the disk, but for hidden files: closing a lock releases it."""
    for path in (*folder.rglob("[!.]*"), folder):
        sync(path)


def put_in_place(new: Path, folder: Path) -> None:
    """Let a finished folder become another one, in place of what may be there, on the same disk.

    Where the system can exchange two folders at once, as Linux can on most file systems, the place is never
    empty. Else what was there waits as `set_aside` says, from where `put_back` restores it.

    Raises:
        OSError: It cannot be done; what was there is there.
    """
    sync_tree(new)
    while not _rename_to_free(new, folder):
        if _exchange(new, folder):
            shutil.rmtree(new, ignore_errors=True)
            break
        put_back(folder)
        with suppress(FileNotFoundError):  # another process was faster
            _rename_to_free(folder, set_aside(folder))
    sync(folder.parent)
    put_back(folder)


def set_aside(folder: Path) -> Path:
    """Return where a folder waits while another one takes its place."""
    return folder.with_name(f".{folder.name}{_ASIDE}")


def original(folder: Path) -> Path:
    """Return the place of a folder that was set aside; of any other folder, the folder itself."""
    waits = folder.name.startswith(".") and folder.name.endswith(_ASIDE)
    return folder.with_name(folder.name[1 : -len(_ASIDE)]) if waits else folder


def where(folder: Path) -> Path:
    """Return where a folder can be read: in its place, or where it waits."""
    return folder if folder.exists() or not set_aside(folder).exists() else set_aside(folder)


def put_back(folder: Path) -> None:
    """Restore a folder that was set aside by a process that was killed; remove it if its place was taken.

    Raises:
        OSError: It cannot be renamed.
    """
    waiting, moved = set_aside(folder), folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # nothing waits, or another process was faster
        if not _rename_to_free(waiting, folder):
            waiting.rename(moved)  # what is removed must not be what another process sets aside from here on
            if not _rename_to_free(moved, folder):
                shutil.rmtree(moved, ignore_errors=True)


def _rename_to_free(one: Path, other: Path) -> bool:
    """Rename a folder; return False if there is another one of that name, which is not empty."""
    try:
        one.rename(other)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders at once; return False if the system, or the file system, cannot."""
    call = _renameat2()
    paths = os.fsencode(one), os.fsencode(other)
    return call is not None and call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0


@cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system, or an older C library
        return None
