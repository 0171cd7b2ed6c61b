"""The device that counts pairs."""

from __future__ import annotations

import ctypes
import sys

_PAIRS = 10**10  # two cores count as many in 2 s; importing torch takes 1.4 s before a GPU can start


def counting_device(device: str, pairs: int) -> str:
    """Return "cpu" or "cuda": for "auto", "cuda" if there is a GPU and there are at least 10 billion pairs.

    torch is imported only for so many pairs, and only if there may be a GPU.
    """
    if device != "auto":
        return device
    if pairs < _PAIRS or not _has_nvidia_driver():
        return "cpu"
    from hashbench.runtime.device import resolve_device

    return resolve_device(device)


def _has_nvidia_driver() -> bool:
    """Return True if the library that comes with the driver of NVIDIA's GPUs is installed."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
