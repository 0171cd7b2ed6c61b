"""Durable files and folders: hashed, synced to disk, and replaced as a whole."""

from __future__ import annotations

import ctypes
import errno
import glob
import hashlib
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
"""Seconds without a write after which the process that writes a temporary file is considered dead."""

_CHUNK = 1 << 20  # bytes
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # constants of Linux
_ASIDE = ".replaced"


def folder_name(dataset: str) -> str:
    """Return the name of a dataset for paths: Windows allows no `:` there, and no name has a `~`."""
    return dataset.replace(":", "~")


def dataset_of(folder: str) -> str:
    """Return the name of the dataset that `folder_name` changed."""
    return folder.replace("~", ":")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return update_hash(hashlib.sha256(), path)


def update_hash(digest: hashlib._Hash, path: Path) -> str:
    """Update a hash object with the content of a file, and return the hexadecimal digest."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces `path` when the block succeeds.

    At any moment, `path` is the complete old file or the complete new one, which is synced to disk. If the
    block fails, the temporary file is removed; if the process is killed, a later call removes it.
    """
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > SILENT_S:
                leftover.unlink()
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that the user asked for; an existing file is replaced as a whole.

    Raises:
        UsageError: The folder does not exist.
        HashbenchError: The file cannot be written; an existing file is unchanged.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: the folder {path.parent} does not exist")
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise HashbenchError(f"{path} cannot be written ({error.strerror}); choose another path") from error


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    file = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if not (path.is_dir() and error.errno == errno.EINVAL):  # some file systems sync no folders
            raise
    finally:
        os.close(file)


def sync_tree(folder: Path) -> None:
    """Sync a folder and its content to disk, except for hidden files: closing a lock file releases it."""
    for path in (*folder.rglob("[!.]*"), folder):
        sync(path)


def put_in_place(new: Path, folder: Path) -> None:
    """Rename a finished folder, replacing another one if it exists, on the same disk.

    If the system can exchange two folders in one step, as Linux can on most file systems, the path exists at
    any moment. Otherwise the old folder is renamed to `set_aside` first, from where `put_back` restores it.

    Raises:
        OSError: The folder cannot be renamed; the old one still exists.
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
    """Return the path of a folder while another one replaces it."""
    return folder.with_name(f".{folder.name}{_ASIDE}")


def original(folder: Path) -> Path:
    """Return the original path of a folder that was set aside, and any other path unchanged."""
    is_aside = folder.name.startswith(".") and folder.name.endswith(_ASIDE)
    return folder.with_name(folder.name[1 : -len(_ASIDE)]) if is_aside else folder


def where(folder: Path) -> Path:
    """Return the path from which a folder can be read: its own, or that of `set_aside`."""
    return folder if folder.exists() or not set_aside(folder).exists() else set_aside(folder)


def put_back(folder: Path) -> None:
    """Restore a folder that a killed process has set aside, or remove it if there is a new one.

    Raises:
        OSError: The folder cannot be renamed.
    """
    waiting, moved = set_aside(folder), folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # there is none, or another process was faster
        if not _rename_to_free(waiting, folder):
            waiting.rename(moved)  # from now on, another process may set its own folder aside
            if not _rename_to_free(moved, folder):
                shutil.rmtree(moved, ignore_errors=True)


def _rename_to_free(one: Path, other: Path) -> bool:
    """Rename a folder; return False if the new name belongs to a folder that is not empty."""
    try:
        one.rename(other)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False if the system or the file system cannot."""
    call = _renameat2()
    paths = os.fsencode(one), os.fsencode(other)
    return call is not None and call(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0


@cache
def _renameat2() -> Any:
    try:
        return ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system or an older C library
        return None
