"""A run that is killed at any moment and resumed gives the same results as an uninterrupted one."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.forked import call, few_digits, run_forked, start, wait
from safetensors.numpy import load_file

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")

COMMAND = [
    *("run", "--dataset", "digits", "--bits", "16", "--resume", "--save-every", "0", "--set", "epochs=3"),
    *("--set", "backbone=test_vit", "--set", "backbone.options={proj_drop_rate: 0.2}"),
    *("--set", "views.affine=null", "--set", "pretrained=false", "--set", "images.size=16"),
    *("--set", "batch_size=25"),
]  # fmt: skip


def arrays(folder: Path) -> dict[str, Any]:
    """Return the codes, weights and losses of a run."""
    with np.load(folder / "codes.npz", allow_pickle=False) as file:
        found = {f"codes {name}": file[name] for name in file.files}
    found |= {f"weight {name}": weight for name, weight in load_file(folder / "model.safetensors").items()}
    entries = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]
    return {**found, "log": losses}


def kill_and_go_on(folder: Path, method: str, moments: int) -> None:
    """Kill and resume runs at many random moments; compare each finished run with an uninterrupted one."""
    few_digits(300)
    draw = random.Random(0)
    command = [*COMMAND, "--method", method, "--results"]
    call([*command, str(folder / "first"), "--set", "epochs=1"])  # warms up
    began = time.monotonic()
    assert wait(start([*command, str(folder / "whole")], folder / "whole.txt")) == 0
    lasts = time.monotonic() - began
    (whole,) = folder.glob("whole/*/*/*/[!.]*")
    expected, killed, runs = arrays(whole), 0, 0
    while killed < moments or not runs:
        runs += 1
        results, said = folder / f"stopped{runs}", folder / "stopped.txt"
        while True:
            process = start([*command, str(results)], said)
            time.sleep(draw.uniform(0, lasts) if killed < moments else 0)
            if killed < moments:
                os.kill(process, signal.SIGKILL)
            code = wait(process)
            text = said.read_text(encoding="utf-8")
            assert code in (0, -signal.SIGKILL), text
            assert not any(word in text for word in ("Traceback", "damaged", "error")), text
            killed += code != 0
            if code == 0:
                break
        (stopped,) = results.glob("*/*/*/[!.]*")
        found = arrays(stopped)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert {path.name for path in stopped.iterdir()} == {path.name for path in whole.iterdir()}
    sys.stdout.write(f"{method}: killed {killed} times in {runs} runs\n")


@pytest.mark.parametrize("method", ["wch", "spq"])
def test_killed_at_any_moment(tmp_path: Path, method: str, tries: Callable[[int, int], int]) -> None:
    if not (moments := tries({"wch": 0, "spq": 1}[method], 50)):
        pytest.skip("test_resume.py kills this one")
    run_forked(kill_and_go_on, tmp_path, method, moments)
