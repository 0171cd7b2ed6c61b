"""Processes that start the same grid at once share its runs."""

from __future__ import annotations

import json
import os
import random
import re
import signal
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
    *("run", "--dataset", "digits", "--bits", "8", "--set", "pretrained=false", "--set", "images.size=16"),
    *("--set", "backbone=test_resnet"),
]  # fmt: skip
SHALLOW = [*COMMAND, "--method", "lsh", "--seed", "0,1", "--limit", "20"]
TRAINED = [
    *COMMAND,
    *("--method", "wch,cibhash", "--seed", "0,1", "--resume", "--save-every", "0"),
    *("--set", "epochs=3", "--set", "batch_size=25", "--set", "views.affine=null"),
]  # fmt: skip
KILLS = 5


def share(folder: Path, rounds: int) -> None:
    """Start the same grid in two processes at once, and check that each run was carried out once."""
    few_digits(250)
    assert call([*SHALLOW, "--results", str(folder / "first")]) == 0
    for round_ in range(rounds):
        results = folder / f"results{round_}"
        said = [folder / f"{round_}-{number}.txt" for number in range(2)]
        processes = [start([*SHALLOW, "--results", str(results)], path) for path in said]
        codes = [wait(process) for process in processes]
        texts = [path.read_text(encoding="utf-8") for path in said]
        assert codes == [0, 0], texts
        done = sum(len(re.findall(r"^hashbench: mAP.* s of training, ", text, re.M)) for text in texts)
        existed = sum(text.count("nothing was trained") for text in texts)
        assert (done, existed) == (4, 2), texts
        assert not any(re.search("error|Traceback", text) for text in texts), texts
        assert len([*results.glob("digits@*/*/8bit/*")]) == 2
        assert [*results.glob(".claims/*")] == []


def test_two_processes_share_a_grid(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    run_forked(share, tmp_path, tries(1, 50))


def results_of(folder: Path) -> dict[str, Any]:
    """Return what may not differ between equal runs: codes, weights and metrics, by run."""
    found: dict[str, Any] = {}
    for path in folder.glob("*@*/*/*/[!.]*"):
        record = json.loads((path / "record.json").read_text(encoding="utf-8"))
        found[f"{path.name} metrics"] = np.array(json.dumps(record["metrics"], sort_keys=True))
        with np.load(path / "codes.npz", allow_pickle=False) as file:
            found |= {f"{path.name} codes {name}": file[name] for name in file.files}
        weights = load_file(path / "model.safetensors")
        found |= {f"{path.name} weight {name}": weight for name, weight in weights.items()}
    return found


def kill_two(folder: Path, kills: int) -> None:
    """Kill one of two processes that share a grid again and again; compare the runs with undisturbed ones."""
    few_digits(300)
    draw = random.Random(0)
    began = time.monotonic()
    assert call([*TRAINED, "--results", str(folder / "whole")]) == 0
    lasts = time.monotonic() - began
    command, texts = [*TRAINED, "--results", str(folder / "killed")], []
    said = [folder / "0.txt", folder / "1.txt"]
    processes = [start(command, path) for path in said]
    for _ in range(kills):
        time.sleep(draw.uniform(0, lasts / kills))
        number = draw.randrange(2)
        os.kill(processes[number], signal.SIGKILL)
        assert wait(processes[number]) in (0, -signal.SIGKILL)
        texts.append(said[number].read_text(encoding="utf-8"))
        processes[number] = start(command, said[number])
    codes = [wait(process) for process in processes]
    texts += [path.read_text(encoding="utf-8") for path in said]
    assert codes == [0, 0], texts
    assert not any(word in text for text in texts for word in ("Traceback", "damaged", "error")), texts
    expected, found = (results_of(folder / name) for name in ("whole", "killed"))
    assert len([*folder.glob("killed/*@*/*/*/*/record.json")]) == 4
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_grid_on_two_processes_that_are_killed(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    if not (rounds := tries(0, 10)):
        pytest.skip("takes minutes")
    for round_ in range(rounds):
        (folder := tmp_path / str(round_)).mkdir()
        run_forked(kill_two, folder, KILLS)
