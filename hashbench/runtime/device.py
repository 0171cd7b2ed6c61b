"""The device, the precision and the number of worker processes of a run."""

from __future__ import annotations

import os
import re

import torch

from hashbench.errors import UsageError, quoted


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda": for "auto", "cuda" if there is a GPU; "cuda:N" makes GPU N torch's current one.

    Raises:
        UsageError: The device is unknown, there is no such GPU, or each process has a GPU of its own.
    """
    found = re.fullmatch(r"auto|cpu|cuda(:(\d{1,3}))?", device)
    if found is None:
        raise UsageError(f"--device: expected auto, cpu, cuda or cuda:N, got {quoted(device)}")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if not torch.cuda.is_available():
        raise UsageError(
            f"--device {device}: torch sees no GPU; check `nvidia-smi` and torch's CUDA build, or use "
            "--device cpu"
        )
    if found[2]:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise UsageError(f"--device {device}: each process has a GPU of its own; use --device cuda")
        count = torch.cuda.device_count()
        if int(found[2]) >= count:
            raise UsageError(f"--device {device}: torch sees {count} GPUs, from cuda:0 to cuda:{count - 1}")
        torch.cuda.set_device(int(found[2]))
    return "cuda"


def resolve_precision(precision: str, device: str, setting: str = "precision") -> str:
    """Return `bfloat16` for `auto` on a GPU that supports it, else `float32`; return others unchanged.

    Args:
        precision: The precision.
        device: "cpu" or "cuda".
        setting: Name of the setting, for the error.

    Raises:
        UsageError: The device does not support the precision.
    """
    if precision == "auto":
        on_gpu = device == "cuda" and torch.cuda.is_available()  # records of a GPU are also read on a CPU
        supported = on_gpu and torch.cuda.get_device_capability() >= (8, 0)  # Ampere or newer
        return "bfloat16" if supported else "float32"
    if precision in ("float16", "tf32") and device == "cpu":
        raise UsageError(f"{setting}={precision} needs a GPU; on a CPU choose float32 or bfloat16")
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
