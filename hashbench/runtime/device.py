"""The device, the precision and the number of worker processes of a run."""

from __future__ import annotations

import os

import torch

from hashbench.errors import UsageError


def resolve_device(device: str) -> str:
    """Return `cuda` for `auto` if there is a GPU, else `cpu`; return any other device unchanged.

    Raises:
        UsageError: The device is `cuda` and there is no GPU.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch sees no GPU; check `nvidia-smi` and torch's CUDA build, or use --device cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return `bfloat16` for `auto` on a GPU that supports it, else `float32`; return others unchanged.

    Raises:
        UsageError: The device does not support the precision.
    """
    if precision == "auto":
        on_gpu = device == "cuda" and torch.cuda.is_available()  # records of a GPU are also read on a CPU
        supported = on_gpu and torch.cuda.get_device_capability() >= (8, 0)  # Ampere or newer
        return "bfloat16" if supported else "float32"
    if precision == "float16" and device == "cpu":
        raise UsageError("precision=float16 needs a GPU; on a CPU choose float32 or bfloat16")
    return precision


def resolve_workers(workers: int | None, device: str) -> int:
    """Return the number of worker processes that load images for each training process.

    The default is up to 8 on a GPU. On a CPU it is 0, because training itself uses all cores.
    """
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, min(8, cores // local_world_size - 1)) if device == "cuda" else 0
