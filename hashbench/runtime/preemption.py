"""SIGTERM and SIGHUP, which end a run from outside: it saves its state, and goes on another time.

By SIGTERM clusters take a machine back; SIGHUP comes when an SSH session ends.
"""

from __future__ import annotations

import os
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


SIGNALS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class _Stop:
    by: signal.Signals | None = None
    waits = False  # for whoever asks `requested`


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, a signal raises `PreemptionError`, or is kept for `requested` within `at_a_step`.

    Signals that are ignored, as SIGHUP is under nohup, stay so.

    Raises:
        PreemptionError: A signal came.
    """
    replaced: list[Any] = []
    process = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGTERM and os.getpid() != process:
            return  # the end of a session reaches processes that load images, too; they end with this one
        _Stop.by = signal.Signals(number)
        if hasattr(signal, "SIGCHLD") and not replaced:
            # A cluster's signal goes to all processes. That those that load images end by it, torch says by
            # an error wherever Python happens to be, be it within a step or while the state is saved.
            replaced.append(signal.signal(signal.SIGCHLD, lambda *_: None))
        check()

    if threading.current_thread() is not threading.main_thread():  # where Python lets no one set handlers
        yield
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before: list[Any] = [signal.signal(number, stop) for number in heard]
    try:
        yield
    finally:
        for number, handler in zip(heard, before, strict=True):
            signal.signal(number, handler)
        for handler in replaced:
            signal.signal(signal.SIGCHLD, handler)
        _Stop.by = None


@contextmanager
def at_a_step() -> Iterator[None]:
    """While the block runs, signals wait until `requested` is asked."""
    _Stop.waits = True
    try:
        yield
    finally:
        _Stop.waits = False
    check()


def check() -> None:
    """Raise what a signal could not: it waited, or Python was where no error is heard, as in `__del__`.

    Raises:
        PreemptionError: A signal came.
    """
    if _Stop.by and not _Stop.waits:
        raise stopped()


def requested() -> bool:
    """Return True if a signal came."""
    return _Stop.by is not None


def stopped(after_step: int | None = None) -> PreemptionError:
    """Return the error that says which signal came.

    Args:
        after_step: The step whose state is saved; None: there may be no state.
    """
    name = (_Stop.by or signal.SIGTERM).name
    when, unless = ("", ", if there is one") if after_step is None else (f" after step {after_step}", "")
    return PreemptionError(
        f"stopped by {name}{when}; the same command with --resume goes on from the last state{unless}"
    )
