"""Loading of image batches in worker processes."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from hashbench.config import RunConfig
from hashbench.runtime.console import warn


class BatchLoader:
    """A loader that uses worker processes, or this process if they cannot pass on their batches.

    Workers pass batches on in /dev/shm, which has 64 MB in a container by default: less than one batch of 128
    images of 224 pixels. The content of a batch does not depend on the process that loads it.
    """

    def __init__(self, items: Dataset[Any], config: RunConfig, workers: int, *, persistent: bool) -> None:
        """Create the loader without starting a process."""
        self._batches: list[list[int]] = []
        self._create = functools.partial(
            DataLoader[Any],
            items,
            batch_sampler=self._batches,
            pin_memory=config.device == "cuda",
            generator=torch.Generator(),  # the default one would change later random numbers
        )
        if workers:  # Python 3.14 starts them on Linux from a server process, which imports torch for all
            multiprocessing.set_forkserver_preload(["__main__", type(items).__module__])
        self._loader = self._create(num_workers=workers, persistent_workers=persistent and workers > 0)

    def load(self, batches: list[list[int]]) -> Iterator[Any]:
        """Yield batches in order, on the CPU."""
        self._batches[:] = batches
        if self._loader.num_workers:
            try:
                multiprocessing.Lock()  # fails if /dev/shm is full
            except OSError as error:
                self._load_without_workers(str(error.strerror))
        done = 0
        try:
            for batch in self._loader:
                yield batch
                done += 1
            return
        except RuntimeError as error:
            if "</torch_" not in str(error):  # the name of a file in /dev/shm
                raise
            self._load_without_workers(str(error).rpartition(">: ")[2])
            error.__traceback__ = None  # its frames would keep the workers alive
        self._batches[:] = batches[done:]
        yield from self._loader

    def load_in_order(self, count: int, batch_size: int) -> Iterator[Any]:
        """Yield the first `count` items once, in batches, the last of which may be smaller."""
        starts = range(0, count, batch_size)
        yield from self.load([[*range(start, min(start + batch_size, count))] for start in starts])

    def _load_without_workers(self, reason: str) -> None:
        _warn(reason.strip())
        self._loader = self._create()


@functools.cache
def _warn(reason: str) -> None:
    """Warn once that worker processes are not used."""
    warn(
        f"worker processes cannot pass images on in /dev/shm ({reason}); images are loaded without them, "
        "which is slower; increase the size of /dev/shm (docker run --shm-size=8g), or lower --workers"
    )
