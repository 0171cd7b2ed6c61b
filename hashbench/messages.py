"""One line for the user, beside the results."""

from __future__ import annotations

import os
import sys


def speaks() -> bool:
    """Whether this process writes what concerns all: of several, as torchrun numbers them, the first does."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """A message on standard error; of several processes the first speaks for all."""
    if speaks():
        sys.stderr.write(f"hashbench: {line}\n")
        sys.stderr.flush()
