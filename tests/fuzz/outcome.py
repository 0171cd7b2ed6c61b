"""What a call may end in, whatever it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hashbench.errors import HashbenchError

LONGEST = 1000  # characters of a message


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Return True if a call ends in a short error of one line, False if it ends in none."""
    message = ""
    try:
        call(*arguments, **named)
    except HashbenchError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < LONGEST
    return bool(message)
