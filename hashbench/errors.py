"""Errors that a user sees as one line, with their exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 12  # existing names in a message, if none is similar
LONGEST = 150  # characters of a value in a message


class HashbenchError(Exception):
    """Error with a message of one line that says what failed and what to do (exit code 1).

    Only an error for missing data has further lines: the expected layout and what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *further_lines: str) -> None:
        # The error of a worker process has its whole traceback as the message.
        if message.startswith("Caught "):
            message = message.strip().partition(f"{type(self).__module__}.{type(self).__name__}: ")[2]
        first_line = " ".join(message.split())  # messages of libraries may have several lines
        super().__init__("\n".join(map(printable, (first_line, *further_lines))))


class MissingDataError(HashbenchError):
    """Error for a dataset whose files, or all of whose images, are missing."""


class TooFewImagesError(HashbenchError):
    """Error for a protocol that draws more images than there are."""


class UsageError(HashbenchError, ValueError):
    """Error for an invalid name, key or value from the user (exit code 2)."""

    exit_code = 2


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that does not exist, which suggests the most similar one."""
    known = sorted(known)
    lower = {one.lower(): one for one in known}
    nearest = difflib.get_close_matches(name.lower() if isinstance(name, str) else "", lower, n=1, cutoff=0.5)
    some = ", ".join(known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
    hint = f"did you mean {lower[nearest[0]]!r}?" if nearest else f"known: {some or 'none'}"
    return UsageError(f"unknown {kind} {quoted(name)}; {hint}")


def printable(text: str) -> str:
    """Escape characters that control a terminal or cannot be shown, as names of files may contain them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """Return the `repr` of a value, shortened if it is long."""
    try:
        text = repr(value)
    except Exception:  # from an integer that is too long for Python, or a class of the user
        text = f"a value of the type {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def reason(error: Exception) -> str:
    """Return the message of an error of a library, shortened because it may quote a whole file."""
    return str(error)[:LONGEST] or type(error).__name__
