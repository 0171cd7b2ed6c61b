"""Accepted outcomes of calls with damaged or unusual input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hashbench import HashbenchError


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Call a function; return True if it raised an error for the user, with one line that is not too long."""
    try:
        call(*arguments, **named)
    except HashbenchError as error:
        message = str(error)
    else:
        return False
    assert message.isprintable()
    assert len(message) < 1000
    return True
