"""One process at a time owns a file or writes into a folder."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest
from helpers.owning_process import LOCKED, other_process

from hashbench.runtime.locking import LOCK, locked, owned

fcntl = pytest.importorskip("fcntl")


def is_free(path: Path) -> bool:
    with owned(path) as free:
        return free


def test_a_file_is_owned_by_one_process_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other_process(path) as process:
        assert not is_free(path)
        assert path.exists()  # only the owner removes it
        process.communicate("\n")
        assert process.returncode == 0
    assert not path.exists()
    assert is_free(path)
    assert not path.exists()


def test_a_killed_process_owns_nothing(tmp_path: Path) -> None:
    """Its child processes, which may outlive it, do not own the file either."""
    path = tmp_path / "lock"
    with other_process(path) as process:
        process.kill()
        process.wait()
        assert path.exists()
        assert is_free(path)


@pytest.mark.parametrize("remove", [True, False])
def test_a_failure_leaves_no_owner(tmp_path: Path, remove: bool) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), owned(path, remove=remove) as free:
        assert free
        raise ZeroDivisionError
    assert path.exists() != remove
    with other_process(path):
        assert not is_free(path)


def test_a_file_that_was_moved_or_removed_is_not_owned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, the file in the folder of a run that finishes while another process checks it."""
    path = tmp_path / "run" / "lock"
    assert not is_free(path)
    path.parent.mkdir()
    lockf = fcntl.lockf

    def moved(*arguments: int) -> None:
        path.parent.rename(tmp_path / "ended")
        lockf(*arguments)

    monkeypatch.setattr(fcntl, "lockf", moved)
    assert not is_free(path)


def test_what_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError), owned(tmp_path / "file" / "lock"):
        pass


# folders

WAITS = "hashbench: another process is writing into {}; waiting for it to finish\n"


def test_a_folder_is_locked_by_one_process_and_the_others_wait_and_say_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, entered = tmp_path / "a" / "folder", threading.Event()

    def enter() -> None:
        with locked(folder):
            entered.set()

    with other_process(folder, LOCKED) as process:
        waiting = threading.Thread(target=enter)
        waiting.start()
        assert not entered.wait(0.5)
        process.communicate("\n")
        waiting.join(30)
    assert entered.is_set()
    assert capsys.readouterr().err == WAITS.format(folder)
    with locked(folder):
        pass
    assert capsys.readouterr().err == ""


def test_a_killed_process_locks_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with other_process(tmp_path, LOCKED) as process:
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass
    assert capsys.readouterr().err == ""


def test_a_folder_that_users_share_is_locked_by_all_of_them(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with locked(tmp_path):
            assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o666
    finally:
        os.umask(before)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, recwarn: pytest.WarningsRecorder
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):  # nothing is left that would lock the folder
        with locked(tmp_path):
            (tmp_path / "file").touch()
    assert not recwarn.list


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file" / "folder"):
        pass
    (tmp_path / LOCK).mkdir()
    with pytest.raises(OSError, match="directory"), locked(tmp_path):
        pass


def test_a_failure_unlocks_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with other_process(tmp_path, LOCKED):
        pass
