"""Compiling loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function on its first call; it releases the interpreter's lock.

    The machine code is kept on disk. Where there is no place to write, as in a container without a home
    folder, which is an error to Numba, it is compiled in every process.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
