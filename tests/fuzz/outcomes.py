"""What a call with damaged or odd input may end in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hashbench import HashbenchError


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Call a function; return whether it ended in an error for a user, of one line that is not too long."""
    try:
        call(*arguments, **named)
    except HashbenchError as error:
        message = str(error)
    else:
        return False
    assert message.isprintable()
    assert len(message) < 1000
    return True
