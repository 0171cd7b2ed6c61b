"""Tests of `hashbench results remove`, `prune` and `stale`, and of `hashbench run --accept-stale`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_runs import make_run
from helpers.owning_process import other_process

from hashbench import read_record
from hashbench.experiment.identity import source_of
from hashbench.results import folders
from hashbench.results.record import checksum
from hashbench.results.stored_run import StoredRun
from hashbench.runtime.locking import LOCK

Cli = Callable[..., Any]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results" / "runs"


def hidden(run: StoredRun, *, locked: bool = True, checkpoint: bool = False) -> Path:
    """Create the folder of an unfinished run, with 2 MB in it, as a killed process leaves it."""
    folder = run.folder.with_name(f".{run.folder.name}.0123abcd")
    folder.mkdir()
    (folder / "log.jsonl").write_bytes(bytes(2_000_000))
    if locked:
        (folder / LOCK).touch()
    if checkpoint:
        (folder / "states").mkdir()
        (folder / "states" / "step-1.pt").write_bytes(b"")
    return folder


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_remove_asks_first(cli: Cli, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (make_run(results, seed=seed) for seed in (0, 1, 2))
    for text in ("n\n", ""):  # no, and the end of the input
        answer(monkeypatch, text)
        refused = cli("results", "remove", first.record.run_id)
        assert refused.code == 1
        assert refused.err.endswith("hashbench: error: nothing was removed; answer y, or add --yes\n")
    assert first.folder.is_dir()
    answer(monkeypatch, "y\n")
    done = cli("results", "remove", first.record.run_id, second.folder, second.record.run_id)
    assert done.code == 0, done.err
    size = sum(file.stat().st_size for file in third.folder.iterdir()) / 1e6
    assert done.out.splitlines()[0] == f"{first.folder}: {size:.1f} MB"
    assert done.out.splitlines()[-1].strip().startswith("removed 2 folders of runs, ")
    assert [path.name for path in third.folder.parent.iterdir()] == [third.folder.name]


def test_remove_takes_damaged_records_and_only_runs(cli: Cli, results: Path) -> None:
    run = make_run(results)
    (run.folder / "record.json").write_text("{")
    assert cli("results", "remove", "--yes", "nothing").code == 2
    assert cli("results", "remove").code == 2
    assert cli("results", "remove", "--yes", run.record.run_id).code == 0
    assert not run.folder.exists()


def test_a_run_that_is_repeated_is_not_removed(cli: Cli, results: Path) -> None:
    run = make_run(results)
    folder = hidden(run)
    with other_process(folder / LOCK):
        done = cli("results", "remove", "--yes", run.record.run_id)
        assert done.code == 1
        line = f"hashbench: error: {run.record.run_id} is in use by another process; wait until it ends, "
        assert done.err == f"{line}or stop it\n"
    assert run.folder.is_dir()
    assert cli("results", "remove", "--yes", run.record.run_id).code == 0
    assert not run.folder.exists()


def test_prune_removes_what_no_process_owns(cli: Cli, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, dead, stopped, running, starting = (make_run(results, seed=seed) for seed in range(5))
    leftovers = [hidden(dead), hidden(stopped, checkpoint=True)]
    used = [hidden(running), hidden(starting, locked=False)]
    archive = results / ".import.x"
    archive.mkdir()
    (archive / LOCK).touch()
    relative = [path.relative_to(Path.cwd()) for path in (archive, *leftovers)]
    with other_process(used[0] / LOCK):
        for _ in range(2):  # looking changes nothing
            shown = cli("results", "prune", "--dry-run")
            assert shown.out.splitlines() == [
                f"{relative[0]}: 0.0 MB",
                f"{relative[1]}: 2.0 MB",
                f"{relative[2]}: 2.0 MB, has a checkpoint",
                "3 folders of runs, 4.0 MB can be removed",
            ]
        answer(monkeypatch, "n\n")
        assert cli("results", "prune").code == 1
        assert all(folder.is_dir() for folder in leftovers)
        done = cli("results", "prune", "--yes")
        assert (done.code, done.out.splitlines()[-1]) == (0, "removed 3 folders of runs, 4.0 MB")
    assert not any(folder.exists() for folder in (*leftovers, archive))
    assert all(folder.is_dir() for folder in used)
    assert kept.folder.is_dir()
    monkeypatch.setattr(folders, "_SETTLED_S", -1)  # as if the last one were older
    assert cli("results", "prune", "--yes").out.splitlines()[-1] == "removed 2 folders of runs, 4.0 MB"
    assert cli("results", "prune").out == "0 folders of runs, 0.0 MB can be removed\n"
    assert cli("results", "prune", "--results", "nowhere").code == 2


def as_of_other_code(folder: Path, source: str = "0123456789ab") -> Path:
    """Let a run have been made by other source code, and return its folder."""
    record = json.loads((folder / "record.json").read_text())
    other = folder.with_name(f"{folder.name.rpartition('-')[0]}-{source[:10]}")
    record["environment"] |= {"source": source, "hashbench": "0.0.1"}
    record["run_id"] = other.name
    record["sha256"] = checksum(record)
    folder.rename(other)
    (other / "record.json").write_text(json.dumps(record))
    return other


def test_stale_lists_runs_of_other_code(cli: Cli, results: Path) -> None:
    unknown = make_run(results, "gone")
    assert json.loads(cli("results", "stale", "--json").out) == [
        {
            "run_id": unknown.record.run_id,
            "folder": str(unknown.folder.relative_to(Path.cwd())),
            "recorded": unknown.record.environment["source"],
            "installed": None,
        }
    ]


@pytest.mark.usefixtures("small_digits")
def test_accept_stale_keeps_records_of_other_code(cli: Cli, results: Path) -> None:
    command = ["run", "--method", "itq", "--dataset", "digits", "--bits", "8", "--set=backbone=test_resnet"]
    command += ["--set=pretrained=false", "--set=images.size=32", "--json"]
    (made,) = json.loads(cli(*command).out)
    assert cli("results", "stale").out == "0 of 1 runs are of another version of the source code\n"
    other = as_of_other_code(Path(made["folder"]))
    (row,) = json.loads(cli("results", "stale", "--json").out)
    assert (row["recorded"], row["installed"]) == ("0123456789ab", source_of(read_record(other)))
    assert row["run_id"] in cli("results", "stale").out

    kept = cli(*command, "--accept-stale")
    assert kept.code == 0, kept.err
    assert json.loads(kept.out)[0]["run_id"] == other.name
    assert "a record of another version of the code exists, nothing was trained" in kept.err
    assert [folder.name for folder in other.parent.iterdir()] == [other.name]
    (trained,) = json.loads(cli(*command, "--accept-stale", "--seed", "1").out)
    assert trained["seed"] == 1
    (again,) = json.loads(cli(*command).out)
    assert again["run_id"] == made["run_id"]
    assert "hashbench: a record exists" in cli(*command, "--accept-stale").err
