"""Check and time on a GPU what the other benchmarks time on a CPU, in minutes, and print one table.

    python benchmarks/on_gpu.py

Each step is a process with a limit of its own, so that a failure is a row of the table and not its end.
Images and weights are random: they cost as much as real ones. `--try` runs small versions on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
EPOCHS = 2  # of the 50 of the published settings
IMAGES = 60_000

Rows = list[tuple[str, str]]


def run(command: list[str], limit: int, **variables: str) -> tuple[str, float]:
    """Run Python with arguments in the checkout, and return what it printed and its seconds.

    Raises:
        RuntimeError: It failed or took longer than the limit, in seconds; the message is its last line.
    """
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, **variables},
            timeout=limit,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"longer than {limit} s") from None
    if done.returncode:
        raise RuntimeError((done.stdout.strip().splitlines() or ["failed"])[-1])
    return done.stdout, time.perf_counter() - start


def tests(device: str, folder: Path) -> Rows:
    """Run the tests of what a GPU does differently."""
    files = ["evaluation/test_gpu_kernel.py", "evaluation/test_gpu_counts.py"]
    if device == "cuda":
        files += ["images/test_gpu_transforms.py", "encoding/test_encode.py", "training"]
    output, _ = run(["-m", "pytest", "-q", *(f"tests/{file}" for file in files)], 90)
    return [("tests", output.strip().splitlines()[-1])]


def steps(device: str, folder: Path) -> Rows:
    """Time the step of WCH against the published one."""
    sizes = "--batch 32,128" if device == "cuda" else "--batch 4 --backbone vit_tiny_patch16_224"
    output, _ = run(["benchmarks/training.py", "--device", device, "--method", "wch", *sizes.split()], 90)
    found = re.findall(r"^\| wch (.*)\|$", output, re.MULTILINE)
    titles = ("network", "px", "batch", "precision", "published", "hashbench", "gain")
    rows = [zip(titles, (part.strip() for part in row.strip(" |").split("|")), strict=True) for row in found]
    return [("WCH step", ", ".join(f"{title} {part}" for title, part in row)) for row in rows]


def counts(device: str, folder: Path) -> Rows:
    """Time the counting of pairs, in billions per second, on the CPU and on the GPU."""
    sizes = [] if device == "cuda" else ["--queries", "20", "--items", "2000"]
    output, _ = run(["benchmarks/evaluation.py", "--only-counts", *sizes], 60)
    _, devices, *lines = (re.split(r"\s{2,}", line.strip()) for line in output.splitlines())
    return [
        (line[0], "; ".join(f"{name}: {rate}" for name, rate in zip(devices, line[1:], strict=True)))
        for line in lines
    ]


def streaming(device: str, folder: Path) -> Rows:
    """Time the evaluation of a database on disk."""
    sizes = [] if device == "cuda" else ["--queries", "10", "--items", "10000"]
    output, _ = run(["benchmarks/streaming.py", "--device", device, "--folder", str(folder), *sizes], 60)
    items, seconds, rate, _, memory = output.splitlines()[-1].split()
    return [(f"streaming, {items} items", f"{seconds} s, {rate} billion pairs/s, {memory} MB")]


def first_result(device: str, folder: Path) -> Rows:
    """Time README's main command, with nothing compiled before."""
    caches = {name: str(folder / name) for name in ("TRITON_CACHE_DIR", "NUMBA_CACHE_DIR", "HASHBENCH_CACHE")}
    fewer = [] if device == "cuda" else ["--set", "epochs=1"]
    command = ["-m", "hashbench", "run", "--method", "wch", "--dataset", "digits", "--device", device, *fewer]
    _, seconds = run([*command, "--results", str(folder / "digits")], 90, **caches)
    return [("digits, from command to record", f"{seconds:.1f} s; {split(folder / 'digits')}")]


def paper_row(device: str, folder: Path) -> Rows:
    """Time WCH on as many images as CIFAR-10 has: as on a CPU, and with views and encoding for a GPU."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / "images" / f"class{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path, compress_level=1)
    parts = ["--data", "query_ratio=0.0167", "--data", "train_ratio=0.0848"]  # 1,000 and 5,000 images
    results = []
    for where, on_device, precision in (("CPU", "false", "float32"), (device, "true", "bfloat16")):
        command = ["-m", "hashbench", "run", "--method", "wch", "--dataset", "folder"]
        command += ["--data-root", str(folder / "images"), *parts]
        command += ["--device", device, "--results", str(folder / where)]
        command += ["--set", "backbone.pretrained=false", "--set", f"views.on_device={on_device}"]
        command += ["--set", f"precision_encode={precision}", "--set", f"epochs={EPOCHS}"]
        _, seconds = run(command, 120)
        title = f"{IMAGES:,} images, {EPOCHS} of 50 epochs, views on {where}, encoding in {precision}"
        results.append((title, f"{seconds:.1f} s; {split(folder / where)}"))
    return results


def split(results: Path) -> str:
    """Describe where the time of the run in a folder went."""
    timing = json.loads(next(results.rglob("record.json")).read_text(encoding="utf-8"))["timing"]
    return (
        f"training {timing['train']} s ({timing['images_per_second']} images/s, waiting "
        f"{timing['waiting']:.0%}), encoding {timing['encode']} s, evaluation {timing['evaluate']} s"
    )


ALL: list[Callable[[str, Path], Rows]] = [tests, counts, steps, streaming, first_result, paper_row]


def main() -> None:
    """Carry out all steps, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--try", action="store_true", dest="on_cpu", help="small versions on a CPU")
    device = "cpu" if parser.parse_args().on_cpu else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU; --try runs small versions on a CPU")
    table = []
    for step in ALL if device == "cuda" else ALL[:-1]:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                table += step(device, Path(folder))
            except RuntimeError as error:
                table.append((step.__name__, f"failed: {error}"))
        print(f"{step.__name__}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(torch.cuda.get_device_name() if device == "cuda" else "CPU", f"torch {torch.__version__}", sep=", ")
    print(tabulate(table, ["work", "result"], tablefmt="github"))


if __name__ == "__main__":
    main()
