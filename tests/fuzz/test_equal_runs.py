"""Equal runs at the same time all succeed and leave one valid record."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from helpers.forked import call, few_digits, run_forked, start, wait

from hashbench.errors import HashbenchError
from hashbench.results.folders import new_run_folder
from hashbench.results.query import RunFilter, find
from hashbench.results.record import RECORD, STATES
from hashbench.results.verify import check_files
from hashbench.runtime import files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")

COMMAND = [
    *("run", "--method", "lsh", "--dataset", "digits", "--bits", "16", "--set", "backbone=test_resnet"),
    *("--set", "pretrained=false", "--set", "images.size=16"),
]  # fmt: skip
AT_ONCE = 3


def write_runs(folder: Path, rounds: int, number: int, together: Barrier) -> None:
    """Write the folder of the same run many times, at the same time as other processes, and report errors."""
    draw = random.Random(number)
    for round_ in range(rounds):
        together.wait(60)
        try:
            time.sleep(draw.uniform(0, 0.004))
            with new_run_folder(folder / str(round_ // 2) / "run", resume=draw.random() < 0.5) as partial:
                (partial / STATES).mkdir(exist_ok=True)
                (partial / STATES / "1.pt").touch()
                time.sleep(draw.uniform(0, 0.004))
                (partial / RECORD).write_text("{}", encoding="utf-8")
        except HashbenchError as error:
            if "is in use by another process" not in str(error):  # as a resumed run may be
                with (folder / "wrong.txt").open("a", encoding="utf-8") as file:
                    file.write(f"round {round_}: {error}\n")


@pytest.mark.parametrize("system", ["exchange", "renames"])
def test_equal_folders_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tries: Callable[[int, int], int], system: str
) -> None:
    """Only the critical moments of runs are tested, many times."""
    if system == "renames":
        monkeypatch.setattr(files, "_renameat2", lambda: None)
    rounds, fork = tries(40, 900), multiprocessing.get_context("fork")
    together = fork.Barrier(4)
    processes = [fork.Process(target=write_runs, args=(tmp_path, rounds, n, together)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    (tmp_path / "wrong.txt").touch()
    assert (tmp_path / "wrong.txt").read_text(encoding="utf-8") == ""
    assert [process.exitcode for process in processes] == [0] * 4
    assert {path.name for path in tmp_path.glob("*/**/*")} == {"run", RECORD}
    assert len([*tmp_path.glob(f"*/run/{RECORD}")]) == rounds // 2


def stress(folder: Path, rounds: int) -> None:
    """Start equal runs at the same time; some of them replace an existing record, and some resume."""
    few_digits(250)
    assert call([*COMMAND, "--results", str(folder / "first")]) == 0
    draw = random.Random(0)
    for round_ in range(rounds):
        if round_ % 2 == 0:  # of two rounds, the second meets the record of the first
            results = folder / f"results{round_}"
        more = [draw.choice([[], ["--resume"], ["--force"], ["--force"]]) for _ in range(AT_ONCE)]
        outputs = [folder / f"{n}.txt" for n in range(AT_ONCE)]
        arguments = [*COMMAND, "--results", str(results)]
        processes = [start([*arguments, *m], said) for m, said in zip(more, outputs, strict=True)]
        codes = [wait(process) for process in processes]
        texts = [said.read_text(encoding="utf-8") for said in outputs]
        assert codes == [0] * AT_ONCE, (round_, texts)
        lines = [line for text in texts for line in text.splitlines()]
        wrong = [
            line for line in lines if re.search("error|warning(?!: digits@default: .* images, not)", line)
        ]
        assert wrong == [], round_
        ((run,), unfinished, notes) = find(results, RunFilter())
        assert (unfinished, notes, check_files(run).problems) == ([], [], [])
        assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]


def test_equal_runs_at_once(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    run_forked(stress, tmp_path, tries(2, 900))
