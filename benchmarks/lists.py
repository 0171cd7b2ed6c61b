"""Measure time and memory to load list files of the size of NUS-WIDE.

The benchmark creates 270,000 empty files, and lists of the sizes of published splits, in a temporary folder:

    python benchmarks/lists.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

FILES, FOLDERS = 270_000, 700
SETS = {21: (10_500, 2_100, 193_734), 81: (10_000, 5_000, 218_491)}  # training images, queries, database


def write(folder: str, classes: int) -> None:
    """Write the files and the lists; the training images are in the database."""
    root = Path(folder)
    names = [f"images{row % FOLDERS}/{row:06d}.jpg" for row in range(FILES)]
    for folder in range(FOLDERS):
        (root / f"nuswide/images{folder}").mkdir(parents=True)
    for name in names:
        (root / "nuswide" / name).touch()
    train, query, database = SETS[classes]
    labels = (np.random.default_rng(0).random((FILES, classes)) < 2 / classes).astype(int).tolist()
    lines = [f"{name} {' '.join(map(str, row))}\n" for name, row in zip(names, labels, strict=True)]
    stored = lines[query : query + database]
    for part, rows in (("train", stored[:train]), ("test", lines[:query]), ("database", stored)):
        (root / f"nuswide/{part}.txt").write_text("".join(rows))


def load(root: str) -> None:
    """Load the lists, and print seconds and peak memory in MB."""
    from hashbench import load_dataset

    started = time.perf_counter()
    load_dataset("nuswide", "lists", root)
    seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Time each set of lists three times, in separate processes, and print a table."""
    if sys.argv[1:]:
        task, root, classes = sys.argv[1:]
        load(root) if task == "load" else write(root, int(classes))
        return

    def run(task: str, root: str, classes: int) -> list[float]:
        # A separate process, because peak memory would otherwise include that of this one.
        command = [sys.executable, __file__, task, root, str(classes)]
        return [*map(float, subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split())]

    table = []
    for classes, sizes in SETS.items():
        with tempfile.TemporaryDirectory() as root:
            run("write", root, classes)
            figures = [run("load", root, classes) for _ in range(3)]
        best = (f"{min(column):.1f}" for column in zip(*figures, strict=True))
        table.append([classes, f"{sum(sizes):,}", *best])
    print(tabulate(table, headers=["labels", "lines", "seconds", "MB"]))


if __name__ == "__main__":
    main()
