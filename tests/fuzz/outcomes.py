"""Accepted outcomes of calls with damaged or unusual input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hashbench import HashbenchError


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Call a function; return True if it raised an error for the user, with lines that are not too long."""
    try:
        call(*arguments, **named)
    except HashbenchError as error:
        message = str(error)
    else:
        return False
    assert all(line.isprintable() for line in message.split("\n"))  # several, if data is missing
    assert len(message) < 2000
    return True
