"""SIGTERM, by which clusters take a machine back: the run saves its state, and goes on another time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hashbench.errors import HashbenchError


class PreemptionError(HashbenchError):
    """The run was asked to stop, and can be resumed (exit code 75, "try again later" in sysexits.h)."""

    exit_code = 75


MESSAGE = "stopped by SIGTERM; the same command with --resume goes on from the last state, if there is one"


class _Stop:
    requested = False  # by SIGTERM
    waits = False  # for whoever asks `requested`


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, SIGTERM raises `PreemptionError`, or is kept for `requested` within `at_a_step`.

    Raises:
        PreemptionError: SIGTERM came.
    """
    replaced: list[Any] = []

    def stop(_signal: int, _frame: FrameType | None) -> None:
        _Stop.requested = True
        if hasattr(signal, "SIGCHLD") and not replaced:
            # A cluster's signal goes to all processes. That those that load images end by it, torch says by
            # an error wherever Python happens to be, be it within a step or while the state is saved.
            replaced.append(signal.signal(signal.SIGCHLD, lambda *_: None))
        check()

    if threading.current_thread() is not threading.main_thread():  # where Python lets no one set handlers
        yield
        return
    before: Any = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for handler in replaced:
            signal.signal(signal.SIGCHLD, handler)
        _Stop.requested = False


@contextmanager
def at_a_step() -> Iterator[None]:
    """While the block runs, SIGTERM waits until `requested` is asked."""
    _Stop.waits = True
    try:
        yield
    finally:
        _Stop.waits = False
    check()


def check() -> None:
    """Raise what SIGTERM could not: it waited, or Python was where no error is heard, as in `__del__`.

    Raises:
        PreemptionError: SIGTERM came.
    """
    if _Stop.requested and not _Stop.waits:
        raise PreemptionError(MESSAGE)


def requested() -> bool:
    """Whether SIGTERM came."""
    return _Stop.requested
