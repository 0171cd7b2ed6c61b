"""Compare `hashbench run --launcher local` with the ideal packing of its runs.

Each run is first timed alone, in a process of its own with one thread. The ideal time of N jobs is the sum of
these times divided by N, or the longest of them. Then the launcher carries out the same runs:

    python benchmarks/launcher.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hashbench_methods


def hashbench(arguments: list[str], features: Path) -> tuple[float, str]:
    """Run the program with one thread and a cache of features; return its time and output."""
    variables = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "HASHBENCH_CACHE": str(features)}
    command = [sys.executable, "-m", "hashbench", *arguments]
    start = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, env={**os.environ, **variables}
    )
    return time.perf_counter() - start, done.stdout


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default=",".join([*hashbench_methods.METHODS][:8]))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    grid = [
        *("run", "--method", options.methods, "--seed", options.seeds, "--dataset", "digits"),
        *("--device", "cpu", "--set", f"epochs={options.epochs}", "--results"),
    ]
    with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as together:
        _, plan = hashbench([*grid, alone, "--dry-run", "--json"], Path(alone, "features"))
        times = []
        for run in json.loads(plan):
            times.append(hashbench(run["command"][1:], Path(alone, "features"))[0])
            print(f"{run['method']}, seed {run['seed']}: {times[-1]:.1f} s", flush=True)
        launcher = ["--launcher", "local", "--jobs", str(options.jobs)]
        taken, _ = hashbench([*grid, together, *launcher], Path(together, "features"))
    ideal = max(sum(times) / options.jobs, *times)
    print(f"sequence {sum(times):.1f} s, ideal {ideal:.1f} s, launcher {taken:.1f} s")
    print(f"launcher / ideal: {taken / ideal:.2f}")


if __name__ == "__main__":
    main()
