"""Tests of the command that makes a run: it gives the same run id."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_plugin import toy_plugin

from hashbench.results.command import command_of
from hashbench.results.record import read_record


@pytest.mark.parametrize(
    "arguments",
    [
        "--method lsh --dataset digits --limit 30 --bits 8 --seed 3 --data seed=4 --set images.size=16",
        "--method tiny --dataset toy --bits 8 --set epochs=1 --set selection=best-val",
    ],
)
def test_a_command_makes_the_same_run(cli: Callable[..., Any], tmp_path: Path, arguments: str) -> None:
    with toy_plugin(tmp_path) as plugin:
        assert cli("run", *arguments.split(), "--device", "cpu", "--plugin", plugin).code == 0
        (folder,) = (path.parent for path in tmp_path.glob("results/runs/*/*/*/*/record.json"))
        record = read_record(folder)
        words = shlex.split(command_of(record))
        assert words[:2] == ["hashbench", "run"]
        again = cli(*words[1:], "--plugin", plugin, "--dry-run")
        assert (again.code, "exists" in again.out + again.err) == (0, True), again
        assert record.run_id in cli(*words[1:], "--plugin", plugin).out


def test_without_a_recipe_a_command_names_all_that_is_no_default(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    with toy_plugin(tmp_path) as plugin:
        plugin.with_suffix(".yaml").unlink()
        sets = ["backbone.name=test_resnet", "pretrained=false", "images.size=16", "epochs=1", "batch_size=8"]
        given = [word for one in [*sets, "freeze_backbone=true"] for word in ("--set", one)]
        own = ("--plugin", plugin)
        done = cli(
            "run", "--method", "tiny", "--dataset", "toy", "--bits", 8, "--device", "cpu", *given, *own
        )
        assert done.code == 0, done.err
        (folder,) = (path.parent for path in tmp_path.glob("results/runs/*/*/*/*/record.json"))
        words = shlex.split(command_of(read_record(folder)))
        assert folder.name in cli(*words[1:], *own).out
        assert len(list(folder.parent.iterdir())) == 1


def test_a_command_is_quoted_and_names_data_and_processes() -> None:
    (folder,) = Path(__file__).parents[2].glob("results/reference/records/digits@default/wch/32bit/*seed0*")
    record = read_record(folder)
    start = "hashbench run --method wch --dataset digits --protocol default --bits 32 --seed 0 --device cpu"
    assert command_of(record) == start
    config = {**record.config, "processes": 2, "data": {"seed": 1, "name": "my set", "files": "0"}}
    changed = record.model_copy(update={"config": config, "changes": {"images.mean": [0.5, 0.5, 0.5]}})
    assert command_of(changed) == (
        f"torchrun --nproc-per-node 2 -m {start} --data seed=1 --data 'name=my set' "
        "--set 'images.mean=[0.5, 0.5, 0.5]'"
    )
    assert command_of(record.model_copy(update={"changes": None})).endswith("are not recorded")
    foreign = command_of(record.model_copy(update={"foreign": "0"}))
    assert foreign == "hashbench evaluate CODES --record --method wch --dataset digits@default"
