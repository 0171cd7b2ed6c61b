"""The program `hashbench`, which is also `python -m hashbench`."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn


def program() -> NoReturn:
    """Run a command and end the process when its results are written.

    Without this, Python would free the objects of torch one by one, which takes half a second. Unexpected
    errors and signals are left to Python. What was registered with `atexit` before this call is not called.
    """
    code: int | None = None

    def leave() -> None:
        if code is not None:
            with suppress(OSError, ValueError):  # which Python reports when it flushes the streams itself
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    atexit.register(leave)
    from hashbench.cli.app import main  # after `leave` is registered, so that it is called last

    try:
        main()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            code = error.code or 0
        raise


if __name__ == "__main__":
    program()
