"""Checks of the arguments of public functions."""

from __future__ import annotations

import errno
import operator
import os
from pathlib import Path
from typing import Any

import numpy as np

from hashbench.errors import UsageError, quoted


def as_count(value: object, name: str, expected: str, least: int, most: int = 10**100 - 1) -> int:
    """Return a whole number as an int; accepts integers of NumPy and other libraries.

    Args:
        value: The number.
        name: Name of the value in error messages.
        expected: Description of the expected value in error messages, such as "a number of bits, 1 or more".
        least: The smallest valid number.
        most: The largest valid number.

    Raises:
        UsageError: The value is not a whole number, is too small or too large.
    """
    try:
        number = least - 1 if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = least - 1
    if not least <= number <= most:
        raise UsageError(f"{name}: expected {expected}, got {quoted(value)}")
    return number


def as_path(value: str | os.PathLike[str], name: str) -> Path:
    """Return a path after checking that it is valid; it need not exist.

    Args:
        value: The path.
        name: Name of the value in error messages.

    Raises:
        UsageError: It is empty, or no file system could have such a path.
    """
    if isinstance(value, str) and not value.strip():
        raise UsageError(f"{name} is empty; pass a path")
    try:
        path = Path(value)
        path.stat()
    except (TypeError, ValueError):
        raise UsageError(f"{name}: expected a path, got {quoted(value)}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{name}: expected a shorter path, got {quoted(value)}") from None
    return path


def check_type(name: str, value: object, *types: type[Any]) -> None:
    """Raise a UsageError if a value has none of the types."""
    if not isinstance(value, types):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
        raise UsageError(f"{name}: expected {expected}, got {quoted(value)}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a UsageError if a value is not one of the choices."""
    if not isinstance(value, str) or value not in choices:
        *others, last = map(repr, choices)
        raise UsageError(f"{name}: expected {', '.join(others)} or {last}, got {quoted(value)}")
