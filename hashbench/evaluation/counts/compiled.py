"""Compiling loops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function on its first call; it releases the interpreter's lock.

    The machine code is kept on disk. Where there is no place to write, which is an error to Numba, or no home
    folder, as in a container, for which it would make a folder named ~, it is compiled in every process.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        if not numba.config.CACHE_DIR:  # type: ignore[attr-defined]
            Path.home()
        loop = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        loop = numba.njit(**options)(function)
    return cast("_Function", loop)
