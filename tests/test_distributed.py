"""Several processes: the same training as one process with the whole batch, the same codes, one record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from helpers import two_processes
from safetensors.torch import load_file
from torch import nn

from hashbench import distributed, gather, read_record
from hashbench.experiment.weights import build_method

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
FAST = [
    "--set", "backbone=test_resnet", "--set", "pretrained=false", "--set", "images.size=16",
    "--set", "epochs=1", "--set", "batch_size=255", "--set", "views={}",
]  # fmt: skip

# Its second process fails in the third step.
FAILING = '''
from hashbench import HashbenchError, HashMethod, distributed

class Failing(HashMethod):
    """Fails."""

    step = 0

    def training_losses(self, *views):
        self.step += 1
        if self.step == 3 and distributed.rank() == 1:
            raise HashbenchError("the second process has had enough")
        return {"loss": self.backbone.pooled(distributed.gather(views[0])).square().mean()}

    def encode(self, images):
        return self.backbone.pooled(images)[:, : self.bits]

METHODS = {"failing": Failing}
'''


def together(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script or module as two processes with a thread each."""
    command: Sequence[str] = [*TORCHRUN, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process and what two leave of the same runs."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    done = together(two_processes.__file__, two, folder=two)
    assert done.returncode == 0, done.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for method in (*two_processes.METHODS, *two_processes.FITTED):
        two_processes.run(method, one / method)
    two_processes.run("spq", one / "half", precision="bfloat16", epochs=1)
    torch.set_num_threads(threads)
    return one, two


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", two_processes.METHODS)
def test_two_processes_train_as_one(folders: tuple[Path, Path], method: str) -> None:
    one, two = (folder / method for folder in folders)
    losses = [torch.tensor([line["loss"] for line in log(folder)]) for folder in (one, two)]
    assert len(losses[0]) == 21
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    before = build_method(two_processes.config(method)).state_dict()
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in (one, two))
    assert ours.keys() == theirs.keys() == before.keys()
    for name, weights in ours.items():
        torch.testing.assert_close(theirs[name], weights, rtol=1e-5, atol=1e-5, msg=name)
    assert any((ours[name].float() - before[name].float()).abs().max() > 1e-4 for name in ours)


def test_two_processes_train_in_half_precision(folders: tuple[Path, Path]) -> None:
    losses = [[line["loss"] for line in log(folder / "half")] for folder in folders]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("method", [*two_processes.METHODS, *two_processes.FITTED])
def test_two_processes_measure_as_one(folders: tuple[Path, Path], method: str) -> None:
    """Weights are equal to rounding, or equal; here no sign differs by it, so that figures are equal."""
    one, two = (json.loads((folder / method / "figures.json").read_text()) for folder in folders)
    assert one == two


def test_one_record_of_two_processes(tmp_path: Path) -> None:
    command = ["-m", "hashbench", "run", "--method", "bihalf", "--dataset", "digits", "--bits", "16", *FAST]
    done = together(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mAP@1000") == 1
    (path,) = tmp_path.rglob("record.json")
    record = read_record(path.parent)
    assert record.config["processes"] == 2
    assert {file.name for file in path.parent.iterdir()} == {"record.json", *(record.files or {})}
    assert [entry.name for entry in path.parent.parent.iterdir()] == [path.parent.name]


def test_a_process_that_fails_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    command = ["-m", "hashbench", "run", "--plugin", "failing.py", "--method", "failing", *FAST]
    start = time.monotonic()
    done = together(*command, "--dataset", "digits", folder=tmp_path)
    assert done.returncode != 0
    assert "hashbench: error: the second process has had enough" in done.stderr
    assert not [*tmp_path.rglob("record.json")]
    assert time.monotonic() - start < 60


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
