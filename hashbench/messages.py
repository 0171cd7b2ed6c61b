"""One line for the user, beside the results."""

from __future__ import annotations

import os
import sys


def say(line: str) -> None:
    """A message on standard error; of several processes the first speaks for all."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"hashbench: {line}\n")
        sys.stderr.flush()
