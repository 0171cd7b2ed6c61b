"""Folders of runs: hidden until the run has a record, and cleaned up after killed processes."""

from __future__ import annotations

import glob
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from hashbench.errors import HashbenchError
from hashbench.results.record import STATES
from hashbench.runtime.files import original, put_back, put_in_place, set_aside, sync_tree
from hashbench.runtime.locking import LOCK, owned

_ABANDONED_S = 7 * 24 * 3600  # every run writes something within a week
_SETTLED_S = 60  # a process may not own a folder yet that it has just created


@contextmanager
def new_run_folder(final: Path, *, resume: bool = False) -> Iterator[Path]:
    """Yield a folder to write a run into, which is renamed to `final` when the block succeeds.

    Until then the folder is hidden, beside `final`. Whatever happens to the process, `final` is the complete
    old run or the complete new one. After a failure the folder remains, with its log and checkpoints, until
    the same run has a record, or starts again a week later.

    Args:
        final: The folder of the finished run.
        resume: Reuse the newest folder of the same run that has a checkpoint, if there is one.

    Raises:
        HashbenchError: A file cannot be written, or the run to resume is still running.
    """
    partial = final.with_name(f".{final.name}.{uuid4().hex[:8]}")
    try:
        with ExitStack() as stack:
            if resume and (stopped := _own_stopped(final, stack)):
                partial = stopped
            else:
                partial.mkdir(parents=True)
                stack.enter_context(owned(partial / LOCK, remove=False))
            tidy(final, partial)
            for leftover in _hidden(final):
                if leftover != partial:
                    _remove_unused(leftover, _ABANDONED_S)
            yield partial
            sync_tree(partial)
            # Before the rename: if another process replaces the folder, it must not look like a stopped run.
            shutil.rmtree(partial / STATES, ignore_errors=True)
            put_in_place(partial, final)
        tidy(final)
    except OSError as error:
        raise HashbenchError(
            f"{partial} cannot be written ({error}); free some space, or choose --results DIR"
        ) from error


def _own_stopped(final: Path, stack: ExitStack) -> Path | None:
    """Own the newest folder of a stopped run with a checkpoint, if there is one, and return it."""
    for folder in stopped_runs(final)[:1]:
        free = stack.enter_context(owned(folder / LOCK, remove=False))
        if has_checkpoint(folder):  # otherwise another process has just finished the run
            if not free:
                raise HashbenchError(f"{folder} is in use by another process; wait until it ends, or stop it")
            return folder
    return None


def stopped_runs(final: Path) -> list[Path]:
    """Return the folders of a stopped run that have a checkpoint, the newest first."""
    return sorted(filter(has_checkpoint, _hidden(final)), key=_last_change, reverse=True)


def has_checkpoint(folder: Path) -> bool:
    """Return True if a folder has a checkpoint from which its run can be resumed."""
    try:
        return next((folder / STATES).glob("*.pt"), None) is not None
    except FileNotFoundError:  # another process has just renamed or removed it
        return False


def tidy(final: Path, used: Path | None = None) -> None:
    """Remove what killed processes left behind of a finished run, and of the finished runs beside it.

    The hidden folders of other runs remain, because those runs may be resumed.

    Args:
        final: The folder of the finished run.
        used: A hidden folder of the run that is in use.
    """
    for folder in final.parent.glob(".*.*"):
        run = folder.with_name(folder.name[1:].rpartition(".")[0])
        if folder == set_aside(run):
            with suppress(OSError):  # it belongs to another user, or another process was faster
                put_back(run)
        elif folder != used and run.exists():
            _remove_unused(folder, _SETTLED_S)
    for finished in final.parent.glob("[!.]*"):
        shutil.rmtree(finished / STATES, ignore_errors=True)
        with suppress(OSError):
            (finished / LOCK).unlink()


def remove_run(final: Path) -> None:
    """Remove the folder of a finished run; at any moment it is complete or absent.

    Raises:
        HashbenchError: Another process repeats the run, or the folder cannot be removed.
    """
    if any(map(in_use, _hidden(final))):
        raise HashbenchError(f"{final.name} is in use by another process; wait until it ends, or stop it")
    try:
        final.rename(hidden := final.with_name(f".{final.name}.{uuid4().hex[:8]}"))
        shutil.rmtree(hidden)
    except OSError as error:
        raise HashbenchError(f"{final} cannot be removed ({error.strerror})") from error


def leftovers(results: Path) -> list[Path]:
    """Return the hidden folders that killed or failed processes left in a results folder."""
    found = [*results.glob("*@*/*/*bit/.*.*"), *results.glob(".import.*")]
    return sorted(folder for folder in found if original(folder) == folder and not in_use(folder))


def remove_leftover(folder: Path) -> bool:
    """Remove a folder of `leftovers`; return False if a process owns it now, or it cannot be removed."""
    _remove_unused(folder, -math.inf)
    return not folder.exists()


def in_use(folder: Path) -> bool:
    """Return True if a process owns a hidden folder, or may have just created it."""
    silent = time.time() - _last_change(folder)
    if not (folder / LOCK).exists():
        return silent < _SETTLED_S
    with owned(folder / LOCK, without_locks=silent > _ABANDONED_S, remove=False) as free:
        return not free


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a temporary folder, and remove those that killed processes left behind."""
    for leftover in parent.glob(f"{prefix}*"):
        _remove_unused(leftover, _SETTLED_S)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder, owned(Path(folder) / LOCK):
        yield Path(folder)


def _remove_unused(folder: Path, silent_s: float) -> None:
    """Remove a folder that no process owns and that has not changed for some seconds."""
    silent = time.time() - _last_change(folder)
    if silent > silent_s:
        with suppress(OSError), owned(folder / LOCK, without_locks=silent > _ABANDONED_S) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _hidden(final: Path) -> list[Path]:
    """Return the hidden folders into which a run was or is written."""
    return [*set(final.parent.glob(f".{glob.escape(final.name)}.*")) - {set_aside(final)}]


def _last_change(folder: Path) -> float:
    """Return the time of the last change in a folder; now, if another process has just moved it."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return time.time()
