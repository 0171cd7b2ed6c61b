"""Messages to the user, on standard error."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from io import TextIOWrapper

from hashbench.errors import printable


def is_main_process() -> bool:
    """Return True in the first process of torchrun or in a single process; it writes messages and files."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def info(line: str) -> None:
    """Write a message to standard error, from the main process only."""
    if is_main_process():
        write_line(f"hashbench: {line}")


def warn(line: str) -> None:
    """Write a warning to standard error, from the main process only."""
    info(f"warning: {line}")


def write_line(line: str) -> None:
    """Write a line to standard error; drop it if the stream is closed or full, which must not end a run."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def quiet_libraries() -> None:
    """Silence what libraries print beside the messages of a command; call it before they are imported.

    Retries of the Hugging Face hub and new caches of matplotlib need no action: what fails is an error.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module="huggingface_hub|matplotlib")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Otherwise torch warns about weights that do have a gradient.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


class _DroppingStream(TextIOWrapper):
    """A text stream that drops what it cannot write."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def protect_streams() -> None:
    """Make the standard streams writable, even if the caller closed them or their disk is full.

    Standard error drops what it cannot write. A closed stream is replaced by the null device, and so is its
    file descriptor: otherwise the next file that is opened would get its number, and messages of libraries
    would be written into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, TextIOWrapper):
        sys.stderr = _DroppingStream(
            sys.stderr.buffer, encoding=sys.stderr.encoding, errors="replace", line_buffering=True
        )
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may not support every character


def printable_lines(text: str) -> str:
    """Apply `printable` to each line of a text."""
    return "\n".join(map(printable, text.split("\n")))
