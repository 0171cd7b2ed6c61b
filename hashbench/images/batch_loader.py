"""Load batches of images by worker processes."""

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
    """Loads batches by worker processes, and by this process where they cannot hand them over.

    Workers put batches into /dev/shm, which has 64 MB in a container by default: less than one batch of 128
    images of 224 pixels. The content of a batch does not depend on which process loads it.
    """

    def __init__(self, items: Dataset[Any], config: RunConfig, workers: int, *, persistent: bool) -> None:
        """Start no process yet.

        Args:
            items: What batches are collated from.
            config: The run.
            workers: Number of processes that load.
            persistent: Keep the processes from one call of `load` to the next.
        """
        self._batches: list[list[int]] = []
        self._create = functools.partial(
            DataLoader[Any],
            items,
            batch_sampler=self._batches,
            pin_memory=config.device == "cuda",
            generator=torch.Generator(),  # else it draws from torch's, and so changes what is drawn later
        )
        self._loader = self._create(num_workers=workers, persistent_workers=persistent and workers > 0)

    def load(self, batches: list[list[int]]) -> Iterator[Any]:
        """Load batches in order, on the CPU.

        Args:
            batches: The positions of the items of each.
        """
        self._batches[:] = batches
        if self._loader.num_workers:
            try:
                multiprocessing.Lock()  # a full /dev/shm has no room even for that
            except OSError as error:
                self._go_on_alone(str(error.strerror))
        done = 0
        try:
            for batch in self._loader:
                yield batch
                done += 1
            return
        except RuntimeError as error:
            if "</torch_" not in str(error):  # the name of a file in /dev/shm
                raise
            self._go_on_alone(str(error).rpartition(">: ")[2])
            error.__traceback__ = None  # a frame in it refers to the error, which would keep the workers
        self._batches[:] = batches[done:]
        yield from self._loader

    def _go_on_alone(self, reason: str) -> None:
        _warn(reason.strip())
        self._loader = self._create()


@functools.cache
def _warn(reason: str) -> None:
    """Say once why worker processes are not used."""
    warn(
        f"worker processes cannot hand over images in /dev/shm ({reason}); this process loads them "
        "itself, which is slower; give /dev/shm more room (docker run --shm-size=8g), or lower --workers"
    )
