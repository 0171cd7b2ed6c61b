"""The program `hashbench`, which is also `python -m hashbench`."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn

from hashbench.cli.app import main


def program() -> NoReturn:
    """Run a command and end the process when its results are written.

    Without this, Python would free the objects of torch one by one, which takes half a second.
    """
    code: int | str = 1  # of an unexpected error

    def leave() -> None:
        with suppress(OSError):  # which Python reports when it flushes the streams itself
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)

    atexit.register(leave)  # first, so that it is called last
    try:
        main()
    except SystemExit as error:
        code = error.code or 0
        raise


if __name__ == "__main__":
    program()
