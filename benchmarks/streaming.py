"""Time `hashbench evaluate --database` on shards that are read from disk, and measure its memory.

The shards are written into a temporary folder and dropped from the page cache. Then the command evaluates a
tenth of them and all of them, in separate processes:

    python benchmarks/streaming.py

The time is compared with that of counting the same number of pairs in memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.evaluation import Labels, count_pairs

BITS = 64
CLASSES = 100
IN_MEMORY = 2_000_000  # number of items


@dataclass(frozen=True)
class Streamed:
    """Time and memory of the command."""

    items: int
    seconds: float
    megabytes: float


def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw random packed codes [n, bits / 8] and class ids [n]."""
    codes = rng.integers(0, 256, (n, BITS // 8), np.uint8)
    return codes, rng.integers(0, CLASSES, n, np.uint8)


def save(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a file, and drop it from the page cache if the system supports this."""
    with path.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write(folder: Path, queries: int, items: int, shards: int) -> None:
    """Write queries and shards of equal size."""
    rng = np.random.default_rng(0)
    codes, labels = draw(rng, queries)
    np.savez(folder / "queries.npz", query_codes=codes, query_labels=labels, bits=BITS)
    for shard in range(shards):
        codes, labels = draw(rng, items // shards)
        save(folder / f"{shard:03d}.codes.npy", codes)
        save(folder / f"{shard:03d}.labels.npy", labels)


def stream(folder: Path, items: int, device: str) -> Streamed:
    """Run the command, from the start of Python to the table."""
    command = [sys.executable, "-m", "hashbench", "evaluate", str(folder / "queries.npz")]
    start = time.perf_counter()
    subprocess.run(
        [*command, "--database", str(folder), "--device", device], check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - start
    # The peak of the largest child so far, in KiB on Linux. The memory of the command does not shrink between
    # calls, and this process is smaller because it has not counted anything yet.
    return Streamed(items, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def pairs_per_second(queries: int, items: int, device: str, repeats: int) -> float:
    """Return the rate of counting in memory, the best of several runs."""
    rng = np.random.default_rng(1)
    (query, query_ids), (database, ids) = draw(rng, queries), draw(rng, items)
    codes = [BinaryCodes(part.view(np.uint64), BITS) for part in (query, database)]
    labels = [Labels.from_array(part) for part in (query_ids, ids)]
    count_pairs(codes[0], codes[1][:1000], labels[0], Labels(labels[1].packed[:1000], None), device)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        count_pairs(*codes, *labels, device)
        times.append(time.perf_counter() - start)
    return queries * items / min(times)


def main() -> None:
    """Write the shards, run the command, and print time and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=100_000_000)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5, help="runs in memory; the best is reported")
    parser.add_argument(
        "--folder", type=Path, help="temporary folder with enough space (default: that of the system)"
    )
    sizes = parser.parse_args()

    results = []
    for items, shards in ((sizes.items // 10, 1), (sizes.items, sizes.shards)):
        with tempfile.TemporaryDirectory(dir=sizes.folder) as temporary:
            write(Path(temporary), sizes.queries, items, shards)
            results.append(stream(Path(temporary), items, sizes.device))
    rate = pairs_per_second(sizes.queries, min(IN_MEMORY, sizes.items), sizes.device, sizes.repeats)

    print(f"{sizes.queries:,} queries, {BITS} bits, {CLASSES} classes, {sizes.device}")
    print(f"in memory, {min(IN_MEMORY, sizes.items):,} items: {rate / 1e9:.2f} billion pairs per second")
    print("      items   seconds   billion pairs/s   times in memory   peak memory, MB")
    for result in results:
        pairs = sizes.queries * result.items
        print(
            f"{result.items:11,} {result.seconds:9.2f} {pairs / result.seconds / 1e9:17.2f} "
            f"{result.seconds * rate / pairs:17.2f} {result.megabytes:20.0f}"
        )


if __name__ == "__main__":
    main()
