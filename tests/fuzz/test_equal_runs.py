"""Equal runs at once: each ends well, and one sound record is left."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import few_digits, start, wait

from hashbench.report.selection import Selection, find
from hashbench.report.verifying import check_files

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")

COMMAND = [
    *("run", "--method", "lsh", "--dataset", "digits", "--bits", "16", "--set", "backbone=test_resnet"),
    *("--set", "pretrained=false", "--set", "images.size=16"),
]  # fmt: skip
AT_ONCE = 3


def stress(folder: Path, rounds: int) -> None:
    """Start equal runs at once, some of which replace a record that is there, as often as was asked."""
    few_digits(250)
    draw = random.Random(0)
    for round_ in range(rounds):
        if round_ % 2 == 0:  # of two rounds, the second meets the record of the first
            results = folder / f"results{round_}"
        more = [["--force"] if draw.random() < 0.5 else [] for _ in range(AT_ONCE)]
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
        ((run,), unfinished, notes) = find(results, Selection())
        assert (unfinished, notes, check_files(run).problems) == ([], [], [])
        assert [path.name for path in run.folder.parent.iterdir()] == [run.folder.name]


def test_equal_runs_at_once(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    command = [sys.executable, __file__, str(tmp_path), str(tries(3, 900))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    stress(Path(sys.argv[1]), int(sys.argv[2]))
