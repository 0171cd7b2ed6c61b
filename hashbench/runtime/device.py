"""What of the machine a run uses: a GPU, its precision, processes that load images."""

from __future__ import annotations

import os

import torch

from hashbench.errors import UsageError


def resolve_device(device: str) -> str:
    """`auto` -> `cuda` where there is a GPU, else `cpu`.

    Raises:
        UsageError: A GPU was asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch sees no GPU; check `nvidia-smi` and torch's CUDA build, or use --device cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` -> `bfloat16` on a GPU that computes in it, else `float32`.

    Raises:
        UsageError: The device has no such precision.
    """
    if precision == "auto":
        on_gpu = device == "cuda" and torch.cuda.is_available()  # a record of a GPU is read anywhere
        computes = on_gpu and torch.cuda.get_device_capability() >= (8, 0)  # from Ampere on
        return "bfloat16" if computes else "float32"
    if precision == "float16" and device == "cpu":
        raise UsageError("precision=float16 needs a GPU; on a CPU choose float32 or bfloat16")
    return precision


def resolve_workers(workers: int | None, device: str) -> int:
    """Processes that load images beside each one that trains; by default up to 8 for a GPU.

    On a CPU training itself uses all cores, and more processes only take turns.
    """
    if workers is not None:
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    abreast = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # what torchrun started on this machine
    return max(0, min(8, cores // abreast - 1)) if device == "cuda" else 0
