"""The errors that a user sees as one line, and their exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 12  # of the names that exist, when none is near
LONGEST = 150  # characters of a value that is quoted


class HashbenchError(Exception):
    """Something failed; the message is one line that names what and says what to do (exit code 1)."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        # A loader's worker process hands on its error with the whole traceback as the message.
        if message.startswith("Caught "):
            message = message.strip().partition(f"{type(self).__module__}.{type(self).__name__}: ")[2]
        super().__init__(printable(" ".join(message.split())))  # other libraries' messages have several lines


class MissingDataError(HashbenchError):
    """The data of a dataset is not there, or none of its images is."""


class UsageError(HashbenchError, ValueError):
    """Something was asked for that cannot be: a wrong name, key or value (exit code 2)."""

    exit_code = 2


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the nearest one that does.

    Args:
        kind: What the name stands for, as in "method" or "key".
        name: What was asked for.
        known: The names that exist.
    """
    known = sorted(known)
    nearest = difflib.get_close_matches(name if isinstance(name, str) else "", known, n=1, cutoff=0.5)
    some = ", ".join(known[:SHOWN]) + (", …" if len(known) > SHOWN else "")
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {some or 'none'}"
    return UsageError(f"unknown {kind} {quoted(name)}; {hint}")


def printable(text: str) -> str:
    """Escape what a terminal would obey, or cannot show, as in names of files and records."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(value: object) -> str:
    """Return the `repr` of what a user gave, without its end if it is long."""
    try:
        text = repr(value)
    except Exception:  # of an integer of more digits than Python writes, or of a class of the user's own
        text = f"a value of the type {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def reason(error: Exception) -> str:
    """Return what an error of a library says, without its end if it is long: it may quote a whole file."""
    return str(error)[:LONGEST] or type(error).__name__
