"""Folders of runs: hidden while a run goes on, in place once it has a record; what killed processes left."""

from __future__ import annotations

import glob
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from hashbench.errors import HashbenchError
from hashbench.results.record import STATES
from hashbench.runtime.files import put_back, put_in_place, set_aside, sync_tree
from hashbench.runtime.locking import LOCK, owned

_ABANDONED_S = 7 * 24 * 3600  # no run is silent for so long
_SETTLED_S = 60  # a process that has just made a folder may not own it yet


@contextmanager
def new_run_folder(final: Path, *, resume: bool = False) -> Iterator[Path]:
    """Yield a folder to write a run into, which becomes `final` when the block ends well.

    Until then it is hidden, beside `final`; whatever happens to the process, `final` is the old run or the
    new one, and all of it is on the disk. After a failure the folder stays, for its log and states, until the
    same run has a record, or starts again a week later.

    Args:
        final: Where the run belongs.
        resume: Take the newest folder of the same run that was stopped and has a state, if there is one.

    Raises:
        HashbenchError: Something could not be written, or the run to resume still goes on.
    """
    partial = final.with_name(f".{final.name}.{uuid4().hex[:8]}")
    try:
        with ExitStack() as stack:
            if resume and (stopped := _own_stopped(final, stack)):
                partial = stopped
            else:
                partial.mkdir(parents=True)
                stack.enter_context(owned(partial / LOCK))
            tidy(final, partial)
            for left in _hidden(final):
                if left != partial:
                    _remove_unused(left, _ABANDONED_S)
            yield partial
            sync_tree(partial)
            # Before it is in place: if another process replaces it, it must not look like a stopped run.
            shutil.rmtree(partial / STATES, ignore_errors=True)
            put_in_place(partial, final)
        tidy(final)
    except OSError as error:
        raise HashbenchError(
            f"{partial} cannot be written ({error}); make room, or choose --results DIR"
        ) from error


def _own_stopped(final: Path, stack: ExitStack) -> Path | None:
    """Own the newest folder of a run that was stopped and has a state, if there is one."""
    for folder in stopped_runs(final)[:1]:
        free = stack.enter_context(owned(folder / LOCK))
        if has_state(folder):  # else another process has just ended the run
            if not free:
                raise HashbenchError(f"{folder} is written by another process; let it end, or stop it")
            return folder
    return None


def stopped_runs(final: Path) -> list[Path]:
    """Return the folders of a run that have not ended and have a state, the newest first."""
    return sorted(filter(has_state, _hidden(final)), key=_last_change, reverse=True)


def has_state(folder: Path) -> bool:
    """Return True for the folder of a run that can be resumed."""
    try:
        return next((folder / STATES).glob("*.pt"), None) is not None
    except FileNotFoundError:  # another process has just renamed or removed it
        return False


def tidy(final: Path, used: Path | None = None) -> None:
    """Remove what killed processes left of a run that is in place, and of the runs beside it.

    A run that is not in place may be resumed, and so its hidden folders stay.

    Args:
        final: Where the run belongs.
        used: A hidden folder of the run that stays.
    """
    for folder in final.parent.glob(".*.*"):
        run = folder.with_name(folder.name[1:].rpartition(".")[0])
        if folder == set_aside(run):
            with suppress(OSError):  # another user's, or another process was faster
                put_back(run)
        elif folder != used and run.exists():
            _remove_unused(folder, _SETTLED_S)
    for done in final.parent.glob("[!.]*"):
        shutil.rmtree(done / STATES, ignore_errors=True)
        with suppress(OSError):
            (done / LOCK).unlink()


@contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield a new folder that is removed in the end, and remove those that killed processes left."""
    for left in parent.glob(f"{prefix}*"):
        _remove_unused(left, _SETTLED_S)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as folder, owned(Path(folder) / LOCK):
        yield Path(folder)


def _remove_unused(folder: Path, silent_s: float) -> None:
    """Remove a folder that no process owns, and in which nothing has changed for some seconds."""
    silent = time.time() - _last_change(folder)
    if silent > silent_s:
        with suppress(OSError), owned(folder / LOCK, without_locks=silent > _ABANDONED_S) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)


def _hidden(final: Path) -> list[Path]:
    """Return the folders that a run was, or is, written into."""
    return [*set(final.parent.glob(f".{glob.escape(final.name)}.*")) - {set_aside(final)}]


def _last_change(folder: Path) -> float:
    """Return when something in a folder changed last; of one that another process has just moved, now."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return time.time()
