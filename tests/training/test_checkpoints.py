"""Tests of checkpoints: damaged ones are skipped, and the last two are kept."""

import errno
import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkpoints import flip, saved

from hashbench.errors import HashbenchError
from hashbench.runtime.files import sha256_of
from hashbench.training.checkpoints import (
    find_checkpoint,
    last_step,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)

STATE: dict[str, Any] = {
    "epoch": 3,
    "seconds": 1.5,
    "text": "of a log",
    "none": None,
    "tuple": (1, (2.5, None), [True]),
    "weights": {"fc.weight": torch.arange(6.0).view(2, 3), "n": torch.tensor(7), "h": torch.ones(2).half()},
    "optimizer": {"state": {0: {"step": torch.tensor(4.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    "random": [{"torch": torch.get_rng_state()}],
}  # fmt: skip


def newest(folder: Path) -> dict[str, Any] | None:
    found = find_checkpoint(folder)
    return load_checkpoint(found) if found is not None else None


def step_of(state: dict[str, Any] | None) -> int | None:
    return None if state is None else state["step"]


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict | list | tuple):
        assert type(one) is type(other)
        assert len(one) == len(other)
        pairs = [(one[k], other[k]) for k in one] if isinstance(one, dict) else zip(one, other, strict=True)
        for a, b in pairs:
            assert_same(a, b)
    else:
        assert (type(one), one) == (type(other), other)


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "states", 12, STATE)
    found = newest(tmp_path / "states")
    assert found is not None
    assert list(found) == list(STATE)
    assert_same(STATE, found)
    assert last_step(tmp_path / "states") == 12


def test_a_folder_without_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "identity.json").write_text("{}")
    (tmp_path / "partial").write_bytes(b"of a process that was killed")
    for folder in (tmp_path, tmp_path / "missing"):
        assert newest(folder) is None
        assert last_step(folder) is None
    assert capsys.readouterr().err == ""
    assert len(saved(tmp_path, 1)) == 2  # the identity and the checkpoint, which replaced the partial one


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text("{}")
    files = saved(tmp_path, 8, 9, 10, 100)
    assert [path.name.split("-")[0] for path in files] == ["identity.json", "step000000010", "step000000100"]
    assert step_of(newest(tmp_path)) == 100


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, truncate, empty])
def test_a_damaged_checkpoint_is_reported_and_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    old, new = saved(tmp_path, 1, 2)
    damage(new)
    assert step_of(newest(tmp_path)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hashbench: warning: {new} is damaged; ")
    damage(old)
    assert newest(tmp_path) is None


def test_checkpoints_after_damaged_ones_are_kept(tmp_path: Path) -> None:
    """Save steps that are lower than those of damaged checkpoints, as a restarted run does."""
    for path in saved(tmp_path, 50, 60):
        flip(path)
    assert newest(tmp_path) is None
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"step": step})
        assert step_of(newest(tmp_path)) == step
    assert step_of(newest(tmp_path)) == 3


class Intruder:
    """An object whose unpickling calls a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))]
)
def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    folder = tmp_path / "states"
    saved(folder, 1)
    path = tmp_path / "intruder"
    save({"step": 2, "weights": Intruder(tmp_path / "executed")}, path)
    path.rename(folder / f"step000000002-{sha256_of(path)[:16]}.pt")
    with pytest.raises(HashbenchError, match=r"step000000002-.* cannot be read"):
        newest(folder)
    assert not (tmp_path / "executed").exists()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Limit the size of files in bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 1000, 50_000])
def test_a_checkpoint_that_does_not_fit_is_not_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    before = saved(tmp_path, 1, 2)
    with file_size_limit(size):
        save_checkpoint(tmp_path, 3, {"step": 3, "weights": torch.zeros(100_000)})
    (line,) = capsys.readouterr().err.splitlines()
    expected = f"the checkpoint of step 3 cannot be saved in {tmp_path} (File too large); the run continues"
    assert line == f"hashbench: warning: {expected}"
    assert sorted(tmp_path.iterdir()) == before
    assert step_of(newest(tmp_path)) == 2


@pytest.mark.parametrize("name", ["write", "fsync", "rename"])
def test_a_failed_write_keeps_earlier_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = saved(tmp_path, 1, 2)
    target = {"write": (torch, "save"), "fsync": (os, "fsync"), "rename": (Path, "rename")}[name]
    monkeypatch.setattr(*target, fail)
    save_checkpoint(tmp_path, 3, {"step": 3})
    assert "of step 3 cannot be saved" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.undo()
    save_checkpoint(tmp_path, 4, {"step": 4})
    assert step_of(newest(tmp_path)) == 4


def test_a_folder_that_cannot_be_created_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "states").write_text("")
    save_checkpoint(tmp_path / "states", 1, {})
    assert "of step 1 cannot be saved" in capsys.readouterr().err


def draws() -> list[float]:
    numpy = [np.random.rand(), np.random.randn()]  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), *numpy, *torch.rand(2).tolist(), *torch.randn(3).tolist()]


def test_random_generators_are_restored(tmp_path: Path) -> None:
    draws()  # an odd number of Gaussians, so that one is buffered
    save_checkpoint(tmp_path, 1, {"random": rng_state(cuda=False)})
    expected = draws()
    draws()
    state = newest(tmp_path)
    assert state is not None
    set_rng_state(state["random"])
    assert draws() == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_random_generator_of_a_gpu_is_restored(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"random": rng_state(cuda=True)})
    expected = torch.rand(3, device="cuda")
    state = newest(tmp_path)
    assert state is not None
    set_rng_state(state["random"])
    assert torch.equal(torch.rand(3, device="cuda"), expected)
