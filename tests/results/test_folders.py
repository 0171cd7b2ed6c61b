"""Folders of runs appear as a whole, and leftovers of killed processes are removed."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.fake_runs import make_run
from helpers.owning_process import other_process

from hashbench.errors import HashbenchError
from hashbench.results.folders import new_run_folder, temporary_folder, tidy
from hashbench.results.query import RunFilter, find, find_run
from hashbench.results.record import RECORD, STATES, read_record
from hashbench.runtime import files, locking
from hashbench.runtime.files import SILENT_S, atomic_write, put_back, set_aside, sync
from hashbench.runtime.locking import LOCK, owned


@pytest.fixture(params=["exchange", "renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Simulate a system that exchanges two folders in one step, and one that cannot."""
    if request.param == "renames":
        monkeypatch.setattr(files, "_renameat2", lambda: None)
    elif files._renameat2() is None:
        pytest.skip("this system cannot exchange folders")
    return str(request.param)


def test_a_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    final = tmp_path / "a" / "run"
    with new_run_folder(final) as partial:
        (partial / "x").write_text("1")
        assert not final.exists()
    assert (final / "x").read_text() == "1"
    with new_run_folder(final) as partial:
        (partial / "x").write_text("2")
    assert (final / "x").read_text() == "2"
    assert [path.name for path in final.parent.iterdir()] == ["run"]


def test_a_failure_leaves_the_old_run_and_the_new_log(tmp_path: Path) -> None:
    final = tmp_path / "run"
    with new_run_folder(final) as partial:
        (partial / "x").write_text("old")
    with pytest.raises(ZeroDivisionError), new_run_folder(final) as partial:
        (partial / "log.jsonl").write_text("so far")
        raise ZeroDivisionError
    assert (final / "x").read_text() == "old"
    assert (partial / "log.jsonl").read_text() == "so far"
    with new_run_folder(final) as again:
        assert [file.name for file in again.iterdir()] == [LOCK]


def test_what_was_left_long_ago_is_removed(tmp_path: Path) -> None:
    old, fresh, other = tmp_path / ".run.0", tmp_path / ".run.1", tmp_path / ".run2.0"
    busy = tmp_path / ".run.2"  # an old folder whose log still grows
    for folder in (old, fresh, other, busy):
        folder.mkdir()
    (busy / "log.jsonl").write_text("")
    for folder in (old, fresh, other, busy):
        if folder is not fresh:
            os.utime(folder, (0, 0))
    with new_run_folder(tmp_path / "run"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".run.1", ".run.2", ".run2.0"}


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(HashbenchError, match="No space left on device.*free some space"),
        new_run_folder(tmp_path / "run"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HashbenchError, match="cannot be written .*choose --results"),
        new_run_folder(tmp_path / "file" / "run"),
    ):
        pass


def make(final: Path, content: str) -> None:
    with new_run_folder(final) as partial:
        (partial / RECORD).write_text(content)


def test_an_old_run_is_replaced(tmp_path: Path, system: str) -> None:
    for content in ("old", "new"):
        make(tmp_path / "run", content)
    assert (tmp_path / "run" / RECORD).read_text() == "new"
    assert [path.name for path in tmp_path.rglob("*")] == ["run", RECORD]


@pytest.mark.parametrize("steps", range(8))
def test_a_kill_while_replacing_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, steps: int
) -> None:
    """Simulate a kill before one of the renames."""
    final = tmp_path / "run"
    make(final, "old")
    taken = []

    def killed(step: object) -> object:
        def take(*arguments: object) -> object:
            taken.append(step)
            if len(taken) > steps:
                raise KeyboardInterrupt
            return step(*arguments)  # type: ignore[operator]

        return take

    monkeypatch.setattr(Path, "rename", killed(Path.rename))
    monkeypatch.setattr(files, "_exchange", killed(files._exchange))
    with suppress(KeyboardInterrupt):
        make(final, "new")
    monkeypatch.undo()
    tidy(final)
    done = steps >= (2 if system == "exchange" else 5)
    assert (final / RECORD).read_text() == ("new" if done else "old")
    for path in tmp_path.iterdir():
        for changed in (*path.iterdir(), path):
            os.utime(changed, (0, 0))
    tidy(final)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_readers_always_find_a_record(tmp_path: Path, system: str) -> None:
    run = make_run(tmp_path)
    final, content = run.folder, (run.folder / RECORD).read_text()
    failures, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                read_record(final)
                runs, unfinished, notes = find(tmp_path, RunFilter())
                assert ([run.folder for run in runs], unfinished, notes) == ([final], [], [])
                assert find_run(tmp_path, final.name).folder == final
                assert system == "renames" or (final / RECORD).is_file()
            except (AssertionError, HashbenchError) as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        make(final, content)
    stop.set()
    reader.join()
    assert failures == []


def test_a_folder_is_owned_until_it_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    """A process loses the ownership of a file when it closes any of its descriptors."""
    pytest.importorskip("fcntl")
    renamed = []

    def checked(rename: Callable[..., object]) -> Callable[..., object]:
        def check(one: Path, other: Path) -> object:
            if (one / LOCK).exists():
                renamed.append(one)
                assert not in_other_process(one / LOCK)
            return rename(one, other)

        return check

    monkeypatch.setattr(Path, "rename", checked(Path.rename))
    monkeypatch.setattr(files, "_exchange", checked(files._exchange))
    for content in ("old", "new"):
        make(tmp_path / "run", content)
    assert len(renamed) > 2


def in_other_process(path: Path) -> bool:
    """Return True if a process could own a file."""
    process = os.fork()
    if process == 0:
        with owned(path) as free:
            os._exit(bool(free))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 1


def test_a_folder_set_aside_meanwhile_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process replaces a run while another one removes the leftovers of a third one."""
    final, rmtree = tmp_path / "run", shutil.rmtree
    make(final, "old")
    set_aside(final).mkdir()

    def interrupted(path: Path, **options: object) -> None:
        if final.exists():
            final.rename(set_aside(final))
        rmtree(path, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", interrupted)
        put_back(final)
    put_back(final)
    assert (final / RECORD).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_a_killed_process_left_of_a_run_with_a_record_is_removed(tmp_path: Path) -> None:
    final, left, fresh = tmp_path / "run", tmp_path / ".run.0", tmp_path / ".run.1"
    make(final, "done")
    for folder in (final / STATES, left, fresh, set_aside(final)):
        folder.mkdir()
    os.utime(left, (0, 0))
    tidy(final)
    assert {path.name for path in tmp_path.rglob("*")} == {"run", RECORD, ".run.1"}  # which may be in use


def test_a_run_that_ends_removes_what_killed_processes_left_beside_it(tmp_path: Path) -> None:
    final, done, ended = tmp_path / "run", tmp_path / "done", tmp_path / "ended"
    for folder in (done, ended):
        make(folder, "done")
        (folder / STATES).mkdir()
        (folder / LOCK).touch()
    ended.rename(set_aside(ended))
    hidden = [tmp_path / name for name in (".run.0", ".done.0", ".other.0")]
    for folder in hidden:
        folder.mkdir()
        os.utime(folder, (time.time() - 3600,) * 2)
    make(final, "done")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    runs = {name for run in ("run", "done", "ended") for name in (run, f"{run}/{RECORD}")}
    assert left == {*runs, ".other.0"}  # which may be resumed


def test_where_nothing_is_locked_a_folder_stays_for_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "fcntl", None)
    final, silent, abandoned = tmp_path / "run", tmp_path / ".run.0", tmp_path / ".run.1"
    make(final, "done")
    for folder, age in ((silent, 3600), (abandoned, 8 * 24 * 3600)):
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    tidy(final)
    assert (silent.exists(), abandoned.exists()) == (True, False)


def test_a_folder_in_use_stays(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")

    final, used = tmp_path / "run", tmp_path / ".run.0"
    make(final, "done")
    used.mkdir()
    with other_process(used / LOCK):
        for path in (*used.iterdir(), used):
            os.utime(path, (0, 0))
        tidy(final)
        assert used.exists()
    tidy(final)


def test_a_run_that_was_set_aside_is_put_back(tmp_path: Path) -> None:
    final = tmp_path / "run"
    make(final, "old")
    final.rename(set_aside(final))
    tidy(final)
    assert (final / RECORD).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_that_is_set_aside_is_read_there(tmp_path: Path) -> None:
    final = make_run(tmp_path).folder
    final.rename(set_aside(final))
    ((run,), unfinished, notes) = find(tmp_path, RunFilter())
    assert (run.record.run_id, run.folder, unfinished, notes) == (final.name, final, [], [])


def test_what_a_killed_import_left_is_removed(tmp_path: Path) -> None:
    left, fresh = tmp_path / ".import.left", tmp_path / ".import.fresh"
    for folder in (left, fresh):
        folder.mkdir()
    os.utime(left, (0, 0))
    with temporary_folder(tmp_path, ".import.") as mine:
        assert mine.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {".import.fresh"}


def test_all_is_on_the_disk_before_a_run_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, rename = [], Path.rename
    monkeypatch.setattr(files, "sync", synced.append)

    def renamed(self: Path, target: Path) -> Path:
        if self != set_aside(target):
            assert {path.name for path in synced} == {"codes.npz", "log.jsonl", self.name}
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    with new_run_folder(tmp_path / "run") as partial:
        for name in ("codes.npz", "log.jsonl"):
            (partial / name).write_text("all of it")
    assert synced[-1] == tmp_path


def test_a_file_is_replaced_as_a_whole_and_what_was_left_is_removed(tmp_path: Path) -> None:
    path, left, fresh = tmp_path / "a.csv", tmp_path / ".a.csv.0123abcd", tmp_path / ".a.csv.01234567"
    for file in (path, left, fresh):
        file.write_text("old")
    os.utime(left, (time.time() - 2 * SILENT_S,) * 2)
    with pytest.raises(ZeroDivisionError), atomic_write(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    with atomic_write(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert {file.name for file in tmp_path.iterdir()} == {"a.csv", fresh.name}


def test_a_file_system_may_sync_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()

    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    sync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path / "file")
