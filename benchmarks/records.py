"""Time the commands that read records, with 1,000 records.

The records are made from a real one, with other methods, code lengths and seeds, in a temporary folder:

    python benchmarks/records.py
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from tabulate import tabulate

from hashbench.cli.app import app
from hashbench.results.record import QUERIES, RECORD, run_folder

REAL = Path(__file__).parents[1] / "tests" / "records" / "v2"
METHODS, LENGTHS = 10, (16, 32, 64, 128)
COMMANDS = (("results", "list"), ("results", "list", "--method", "m3", "--seed", "0"), ("table",))


def write(results: Path, count: int) -> None:
    """Write records and the AP of their queries, copied from a real record."""
    (path,) = REAL.glob(f"*/*/*/*/{RECORD}")
    record, queries = json.loads(path.read_text(encoding="utf-8")), path.with_name(QUERIES).read_bytes()
    for number in range(count):
        seed, kind = divmod(number, METHODS * len(LENGTHS))
        method, bits = f"m{kind % METHODS}", LENGTHS[kind // METHODS]
        asked = {"method": method, "bits": bits, "seed": seed}
        run_id = f"{method}-{record['dataset']}-{bits}bit-seed{seed}-0000000000"
        changed = record | asked | {"run_id": run_id, "config": record["config"] | asked}
        folder = run_folder(results, record["dataset"], record["protocol"], method, bits, run_id)
        folder.mkdir(parents=True)
        (folder / RECORD).write_text(json.dumps(changed, indent=2), encoding="utf-8")
        (folder / QUERIES).write_bytes(queries)


def seconds_here(command: list[str]) -> float:
    """Time a command in this process, which has imported everything."""
    start = time.perf_counter()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        app(command, standalone_mode=False)
    return time.perf_counter() - start


def seconds_whole(command: list[str]) -> float:
    """Time a process that only runs the command, including imports."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "hashbench", *command], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Time each command and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="calls of each command; the best is reported")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), chosen.records)
        table = []
        for command in COMMANDS:
            arguments = [*command, "--results", folder]
            seconds_here(arguments)  # import everything
            here = min(seconds_here(arguments) for _ in range(chosen.repeats))
            whole = min(seconds_whole(arguments) for _ in range(chosen.repeats))
            table.append([" ".join(command), here, whole])
    print(f"{chosen.records:,} records")
    print(tabulate(table, headers=["command", "seconds after imports", "whole process"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
