"""Checks of the arguments of public functions."""

from __future__ import annotations

import errno
import operator
import os
from pathlib import Path
from typing import Any

import numpy as np

from hashbench.errors import UsageError, quoted


def as_count(value: object, name: str, expected: str, least: int) -> int:
    """Return a whole number, of whatever library it is.

    Args:
        value: The number.
        name: What an error message calls `value`.
        expected: What the error message says of it, as in "a number of bits, 1 or more".
        least: The smallest number that is accepted.

    Raises:
        UsageError: It is no whole number, smaller, or of more than 100 digits.
    """
    try:
        number = least - 1 if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = least - 1
    if not least <= number < 10**100:
        raise UsageError(f"{name}: expected {expected}, found {quoted(value)}")
    return number


def as_path(value: str | os.PathLike[str], name: str) -> Path:
    """Return a path, which need not exist.

    Args:
        value: The path.
        name: What an error message calls `value`.

    Raises:
        UsageError: It is none that a file system could have.
    """
    try:
        path = Path(value)
        path.stat()
    except (TypeError, ValueError):
        raise UsageError(f"{name}: expected a path, found {quoted(value)}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{name}: expected a shorter path, found {quoted(value)}") from None
    return path


def check_type(name: str, value: object, *types: type[Any]) -> None:
    """Raise UsageError unless a value is of one of the types."""
    if not isinstance(value, types):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)
        raise UsageError(f"{name}: expected {expected}, found {quoted(value)}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError unless a value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        *others, last = map(repr, choices)
        raise UsageError(f"{name}: expected {', '.join(others)} or {last}, found {quoted(value)}")
