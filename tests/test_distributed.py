"""Several processes: the same training as one process with the whole batch, the same codes, one record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from helpers import two_processes
from helpers.forked import run_python
from safetensors.torch import load_file
from torch import nn

from hashbench import distributed, gather, read_record
from hashbench.experiment.weights import build_method


class Launched(NamedTuple):
    """Folders with the results of one process and of two; what the two printed, and their messages."""

    one: Path
    two: Path
    shown: str
    said: str


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    """Return the results of two_processes.py."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    done = run_python("-m", "helpers.two_processes", two, cwd=two, timeout=300)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for method in (*two_processes.METHODS, *two_processes.FITTED):
        two_processes.run(method, one / method)
    two_processes.run("spq", one / "half", precision="bfloat16", epochs=1)
    torch.set_num_threads(threads)
    return Launched(one, two, done.stdout, done.stderr)


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", two_processes.METHODS)
def test_two_processes_train_as_one(launched: Launched, method: str) -> None:
    one, two = (folder / method for folder in launched[:2])
    losses = [torch.tensor([line["loss"] for line in log(folder)]) for folder in (one, two)]
    assert len(losses[0]) == 9
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    before = build_method(two_processes.config(method)).state_dict()
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, two))
    assert ours.keys() == theirs.keys() == before.keys()
    for name, weights in ours.items():
        torch.testing.assert_close(theirs[name], weights, rtol=1e-5, atol=1e-5, msg=name)
    assert any((ours[name].float() - before[name].float()).abs().max() > 1e-4 for name in ours)


def test_two_processes_train_in_half_precision(launched: Launched) -> None:
    losses = [[line["loss"] for line in log(folder / "half")] for folder in launched[:2]]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("method", [*two_processes.METHODS, *two_processes.FITTED])
def test_two_processes_measure_as_one(launched: Launched, method: str) -> None:
    """Weights are equal to rounding, or equal; here no sign differs by it, so that figures are equal."""
    one, two = (json.loads((folder / method / "figures.json").read_text()) for folder in launched[:2])
    assert one == two


def test_one_record_of_two_processes(launched: Launched) -> None:
    assert launched.shown.count("│mAP@all") == 1
    (path,) = (launched.two / "record").rglob("record.json")
    record = read_record(path.parent)
    assert record.config["processes"] == 2
    assert {file.name for file in path.parent.iterdir()} == {"record.json", *(record.files or {})}
    assert [entry.name for entry in path.parent.parent.iterdir()] == [path.parent.name]


def test_a_process_that_fails_ends_the_run(launched: Launched) -> None:
    """The launcher ends the other, which waits for its share; a time-out would if it did not."""
    ends = json.loads((launched.two / "ends.json").read_text())
    assert (ends["run_all"], ends["record"], ends["fail"]) == (True, True, False)
    assert "hashbench: error: the second process has had enough" in launched.said
    assert not [*(launched.two / "failing").rglob("record.json")]


def test_two_commands_of_two_processes_share_a_grid(launched: Launched) -> None:
    assert json.loads((launched.two / "ends.json").read_text())["share"] == [True, True]
    assert launched.said.count("a record exists, nothing was trained") == 2
    assert launched.shown.count("mAP@all, expectation over all orders") == 2  # the table of either command
    assert len([*(launched.two / "shared").glob("*@*/*/*/*/record.json")]) == 2


def test_a_single_process_gathers_nothing() -> None:
    rows = torch.rand(3, 2)
    assert gather(rows) is rows
    assert distributed.all_gather_object("x") == ["x"]
    assert distributed.shard(10) == slice(0, 10)
    module = nn.BatchNorm1d(2)
    assert distributed.synchronize_batch_norm(module, "cpu") is module
    assert "forward" not in vars(module)


@pytest.mark.parametrize(("total", "unit", "workers"), [(10, 1, 3), (3, 1, 4), (300, 128, 2), (1000, 128, 3)])
def test_shares_are_whole_units_in_order(
    monkeypatch: pytest.MonkeyPatch, total: int, unit: int, workers: int
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: workers)
    shares = []
    for rank in range(workers):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.shard(total, unit))
    assert [place for share in shares for place in range(share.start, share.stop)] == [*range(total)]
    assert all(share.start % unit == 0 for share in shares if share.start < share.stop)
    sizes = [-(-(share.stop - share.start) // unit) for share in shares]
    assert max(sizes) - min(sizes) <= 1
