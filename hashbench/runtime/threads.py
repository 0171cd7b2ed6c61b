"""The same for many items, by threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hashbench.runtime.progress import progress

CHUNK = 256  # results that wait in memory to be taken

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(task: str, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Apply a function to items by as many threads as there are cores, and show progress.

    Args:
        task: What the progress bar says.
        function: Applied to each; it should spend its time where Python lets other threads run.
        items: The items.

    Yields:
        The results, in order.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress(task, len(items)) as advance:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(function, items[start : start + CHUNK]):
                yield result
                advance(1)
