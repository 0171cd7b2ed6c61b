"""Stopping a run by SIGTERM or SIGHUP: it saves a checkpoint and can be resumed.

Clusters send SIGTERM when they need a machine back; SIGHUP is sent when an SSH session ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from hashbench.errors import HashbenchError


class PreemptionError(HashbenchError):
    """The run was stopped by a signal and can be resumed (exit code 75, EX_TEMPFAIL in sysexits.h)."""

    exit_code = 75


SIGNALS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass
class _StopRequest:
    """The stop that was requested of this process.

    Attributes:
        received: The signal that was received.
        deferred: Signals are not raised as errors, but wait until `requested` is called.
    """

    received: signal.Signals | None = None
    deferred: bool = False


_stop = _StopRequest()


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `PreemptionError` when a signal arrives during the block; defer it within `at_a_step`.

    Signals that are ignored, such as SIGHUP under nohup, stay ignored.

    Raises:
        PreemptionError: A signal was received.
    """
    replaced: list[Any] = []
    process = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGTERM and os.getpid() != process:
            return  # SIGHUP also reaches the processes that load images, which end with this one
        _stop.received = signal.Signals(number)
        if hasattr(signal, "SIGCHLD") and not replaced:
            # A cluster sends the signal to all processes. When those that load images end, torch would raise
            # an error at any point of this process, such as within a step or while a checkpoint is saved.
            replaced.append(signal.signal(signal.SIGCHLD, lambda *_: None))
        check()

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python allows handlers in the main thread only
        yield
        return
    handled = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before: list[Any] = [signal.signal(number, stop) for number in handled]
    try:
        yield
    finally:
        for number, handler in zip(handled, before, strict=True):
            signal.signal(number, handler)
        for handler in replaced:
            signal.signal(signal.SIGCHLD, handler)
        _stop.received = None


@contextmanager
def at_a_step() -> Iterator[None]:
    """Defer signals during the block; code in it asks `requested`."""
    _stop.deferred = True
    try:
        yield
    finally:
        _stop.deferred = False
    check()


def check() -> None:
    """Raise the error of a signal that was deferred, or arrived where errors are swallowed, as in `__del__`.

    Raises:
        PreemptionError: A signal was received.
    """
    if _stop.received and not _stop.deferred:
        raise stopped()


def requested() -> bool:
    """Return True if a signal was received."""
    return _stop.received is not None


def stopped(after_step: int | None = None) -> PreemptionError:
    """Return the error that names the signal.

    Args:
        after_step: The step of the saved checkpoint; None: there may be none.
    """
    name = (_stop.received or signal.SIGTERM).name
    when, unless = ("", ", if there is one") if after_step is None else (f" after step {after_step}", "")
    return PreemptionError(
        f"stopped by {name}{when}; the same command with --resume continues from the last checkpoint{unless}"
    )
