"""How fast a training goes, and where its time goes."""

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
    """What the steps of a training took so far, those before a stop included.

    Attributes:
        images: Images trained on, of all processes.
        seconds: Spent in steps, the waiting for their data included.
        waited: Of these, waiting for data.
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
        """The batches: the time until one comes is waiting, the time until the next is asked for its step."""
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
    """A profiler of a few steps, the first two apart, to be told of every step.

    Args:
        steps: How many to record.
        cuda: Also what runs on the GPU.
        trace: Written when they are done, for chrome://tracing or ui.perfetto.dev.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    return profile(
        activities=activities,
        schedule=schedule(wait=1, warmup=1, active=steps, repeat=1),
        on_trace_ready=lambda done: done.export_chrome_trace(str(trace)),
        record_shapes=True,
    )


def reset_peak_memory(device: str) -> None:
    """Forget the most that tensors on a GPU took so far."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> int:
    """The most bytes held at once: on a GPU by tensors since the last reset, on a CPU by this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # in bytes there, in KiB elsewhere
