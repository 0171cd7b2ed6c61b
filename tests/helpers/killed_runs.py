"""A run that is stopped and resumed many times, and an uninterrupted one, for test_resume.py.

`stop_and_go(folder)` leaves them in the folders stopped and whole, and in ends.json how each of their
processes ended. All are forked from the calling process, so that torch is imported once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from helpers.forked import call, few_digits, start, wait

from hashbench.training.checkpoints import last_step

COMMAND = [
    *("run", "--method", "wch", "--dataset", "digits", "--bits", "16", "--resume"),
    *("--save-every", "0"),
    *("--set", "backbone=test_vit", "--set", "backbone.options={proj_drop_rate: 0.2, drop_path_rate: 0.2}"),
    *("--set", "views.affine=null", "--set", "views.horizontal_flip=0.5", "--set", "pretrained=false"),
    *("--set", "images.size=16", "--set", "epochs=6", "--set", "batch_size=25"),
]  # fmt: skip
IMAGES = 300  # of the digits, 100 of them to train on: 24 steps
STEPS = ("KILL", "TERM", "KILL")  # signals that come while it trains


def begin(results: Path) -> int:
    """Start the run in a process, with its output in a file beside its results."""
    return start([*COMMAND, "--results", str(results)], results.with_suffix(".txt"))


def end(process: int, results: Path, name: str = "") -> dict[str, Any]:
    """Send a signal, if one is given; wait for the process, and describe how it ended."""
    step = newest(results)
    if name:
        os.kill(process, signal.Signals[f"SIG{name}"])
    code = wait(process)
    said = results.with_suffix(".txt").read_text(encoding="utf-8")
    return {"signal": name, "step": step, "code": code, "said": said}


def stop(results: Path, name: str, due: Callable[[], bool], at_most: float = 0.05) -> dict[str, Any]:
    """Start the run, and stop it a random time after a condition holds, at most `at_most` seconds."""
    process = begin(results)
    waited = time.monotonic() + 60
    while not due():
        if os.waitpid(process, os.WNOHANG)[0] or time.monotonic() > waited:
            sys.exit(
                f"it ended before it was stopped: {results.with_suffix('.txt').read_text(encoding='utf-8')}"
            )
        time.sleep(0.001)
    time.sleep(random.uniform(0, at_most))
    return end(process, results, name)


def newest(results: Path) -> int | None:
    """Return the step of the newest checkpoint of the unfinished run, if there is one."""
    steps = [last_step(folder) for folder in results.glob("*/*/*/.*/states")]
    return max((step for step in steps if step is not None), default=None)


def _is_at(results: Path, step: int) -> bool:
    return (newest(results) or 0) >= step


def _encodes(results: Path) -> bool:
    return "queries: " in results.with_suffix(".txt").read_text(encoding="utf-8")


def stop_and_go(folder: Path) -> None:
    """Stop and resume one run, and leave another one alone."""
    few_digits(IMAGES)
    random.seed(0)
    call([*COMMAND, "--set", "epochs=1", "--results", str(folder / "first")])  # warms up
    whole, stopped = folder / "whole", folder / "stopped"
    undisturbed = begin(whole)
    ends = [stop(stopped, "KILL", lambda: any(stopped.glob("*/*/*/.*/states")))]
    for name in STEPS:
        wanted = (newest(stopped) or 0) + random.randint(1, 5)
        ends.append(stop(stopped, name, partial(_is_at, stopped, wanted)))
    ends.append(stop(stopped, "KILL", partial(_encodes, stopped), at_most=0.01))
    ends.append(end(begin(stopped), stopped))
    ends.append(end(undisturbed, whole))
    (folder / "ends.json").write_text(json.dumps(ends), encoding="utf-8")
