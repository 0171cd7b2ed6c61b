"""Throughput, profile and peak memory of a training."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile, schedule

Value = TypeVar("Value")


@dataclass
class Meter:
    """Duration of the steps of a training, including those before an interruption.

    Attributes:
        images: Number of images in the steps of all processes.
        seconds: Duration of the steps, including the loading of their batches.
        waited: Seconds in which steps waited for a batch.
    """

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        vars(self).update(state)

    def steps(self, batches: Iterable[Value]) -> Iterator[Value]:
        """Yield batches, and add the time to load each one and the time of its step."""
        batches = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self.waited += time.perf_counter() - asked
            yield batch
            self.seconds += time.perf_counter() - asked


def profiler(steps: int, cuda: bool, trace: Path) -> profile:
    """Create a profiler that skips two steps and records the next; call its `step` after each step.

    Args:
        steps: Number of recorded steps.
        cuda: Record GPU kernels, too.
        trace: Output file, for chrome://tracing or ui.perfetto.dev.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    return profile(
        activities=activities,
        schedule=schedule(wait=1, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(str(trace)),
        record_shapes=True,
    )


def reset_peak_memory(device: str) -> None:
    """Reset the peak memory of tensors on a GPU."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> int:
    """Return the peak memory in bytes: of tensors on a GPU since the last reset, or else of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # macOS counts bytes, Linux KiB
