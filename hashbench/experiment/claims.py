"""Claims of runs: each is carried out by one process at a time, on all machines that share the results.

A claim is a file `.claims/RUN_ID` in the results folder. It is free when the process that owns it ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from hashbench import distributed
from hashbench.errors import HashbenchError
from hashbench.runtime.console import is_main_process
from hashbench.runtime.locking import owned

CLAIMS = ".claims"


class ClaimedError(HashbenchError):
    """Another process carries out the run."""


@contextmanager
def claimed(results: Path, run_id: str) -> Iterator[str | None]:
    """Claim a run while the block runs; the main process claims it for all.

    On a file system without locks, and in a results folder that cannot be written, there are no claims.

    Yields:
        None if the run is claimed; else the process that has claimed it.
    """
    path = results / CLAIMS / run_id
    with ExitStack() as stack:
        free = True
        if is_main_process():
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                free = stack.enter_context(owned(path, content=this_process()))
        yield distributed.broadcast_object(None if free else _content(path))


def holder(results: Path, run_id: str) -> str | None:
    """Return the process that has claimed a run; None if no process has."""
    path = results / CLAIMS / run_id
    if not path.exists():
        return None
    with suppress(OSError), owned(path) as free:
        return None if free else _content(path)
    return None


def process_name(process: int) -> str:
    """Describe a process of this machine, given its id."""
    return f"process {process} on {socket.gethostname()} "


def this_process() -> str:
    """Describe this process for others, with the time."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"{process_name(os.getpid())}since {since}"


def _content(path: Path) -> str:
    """Read who owns a claim, if the file still exists."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200] or "another process"
    except OSError:
        return "another process"
