"""The arguments of the functions that carry out runs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trees import photo

import hashbench
from hashbench.data.load import create_dataset
from hashbench.experiment.definition import read_experiment
from hashbench.experiment.plan import runs_of
from hashbench.launchers.grid import Execution, Grid
from hashbench.recipe import parse_pairs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plugins": "mine.py"}, "the experiment, plugins: expected a list, got 'mine.py'"),
        ({"plugins": Path("mine.py")}, "the experiment, plugins: expected a list, got "),
        ({"settings": "epochs=1"}, "settings: expected a mapping, or a list of texts KEY=VALUE, got"),
        ({"settings": {"epoch": np.int64(1)}}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"results": ""}, "results is empty; pass a path"),
        ({"bits": [16]}, "the experiment, bits.0: input should be a valid integer"),
        ({"workers": -1}, "option workers=-1: input should be greater than or equal to 0"),
        ({"worker": 1}, "unknown option 'worker'; did you mean 'workers'"),
    ],
)
def test_invalid_arguments_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hashbench.UsageError) as refused:
        hashbench.run("lsh", "digits", **arguments)
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_single_plugin_is_not_a_list(tmp_path: Path) -> None:
    with pytest.raises(hashbench.UsageError, match=r"plugins: expected list or tuple, got 'mine\.py'"):
        hashbench.load(tmp_path, plugins="mine.py")


def test_queries_may_be_in_the_database(tmp_path: Path) -> None:
    lines = [f"{number}.png {number % 2} {1 - number % 2}\n" for number in range(8)]
    for number in range(8):
        photo(tmp_path / f"{number}.png", number, number)
    for name in ("train", "test", "database"):
        (tmp_path / f"{name}.txt").write_text("".join(lines[:4] if name == "test" else lines))
    settings = {"backbone": "test_resnet", "pretrained": False, "images.size": 16}
    arguments: dict[str, Any] = {"protocol": "lists", "data_root": tmp_path, "settings": settings}
    arguments |= {"bits": 4, "results": tmp_path / "runs"}
    with pytest.raises(hashbench.HashbenchError, match="--allow-overlap"):
        hashbench.run("lsh", "folder", **arguments)
    run = hashbench.run("lsh", "folder", **arguments, allow_overlap=True)
    assert run.record.split.overlaps.query_database == 4


@pytest.mark.parametrize("lists", ["2024", "my  lists", Path("2024"), Path("ä: b")])
def test_the_command_of_a_run_keeps_the_names_of_folders(lists: str | Path) -> None:
    dataset = {"name": "folder", "options": {"lists": lists, "seed": 3}}
    experiment = read_experiment({"methods": ["lsh"], "datasets": [dataset]})
    (run,) = runs_of(experiment)
    words = Grid(experiment, Path("runs"), Execution()).command(run)
    given = parse_pairs("--data", [after for word, after in itertools.pairwise(words) if word == "--data"])
    options: Any = create_dataset("folder", **given).options
    assert (options.lists, options.seed) == (Path(lists), 3)
