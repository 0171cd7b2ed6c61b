"""Threads in the place of the processes of a distributed training."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor

from hashbench import distributed

Result = TypeVar("Result")


class _Processes:
    """The functions of `torch.distributed` that `hashbench.distributed` calls, for threads."""

    def __init__(self, count: int) -> None:
        self._tensors: list[Tensor] = [torch.empty(0)] * count
        self._rank = threading.local()
        self._barrier = threading.Barrier(count)

    def run(self, rank: int, work: Callable[[], Result]) -> Result:
        """Call a function as the process of a rank; if it fails, those that wait for it fail, too."""
        self._rank.value = rank
        try:
            return work()
        except BaseException:
            self._barrier.abort()
            raise

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return hasattr(self._rank, "value")  # of other threads, there is one process each

    def get_world_size(self) -> int:
        return len(self._tensors)

    def get_rank(self) -> int:
        rank: int = self._rank.value
        return rank

    def all_gather(self, parts: list[Tensor], tensor: Tensor) -> None:
        for part, other in zip(parts, self._exchange(tensor), strict=True):
            part.copy_(other)

    def all_reduce(self, tensor: Tensor) -> None:
        tensor.copy_(torch.stack(self._exchange(tensor)).sum(0))

    def _exchange(self, tensor: Tensor) -> list[Tensor]:
        self._tensors[self.get_rank()] = tensor.clone()
        self._barrier.wait()
        tensors = list(self._tensors)
        self._barrier.wait()
        return tensors


def run_as_processes(work: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call functions at the same time, each in a thread that takes itself for a process of its own.

    Raises:
        Exception: What the first of them raises that fails by itself.
    """
    processes: Any = _Processes(len(work))
    with mock.patch.object(distributed, "dist", processes), ThreadPoolExecutor(len(work)) as pool:
        futures = [pool.submit(processes.run, rank, function) for rank, function in enumerate(work)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]
