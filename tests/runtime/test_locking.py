"""One process at a time owns a file."""

from pathlib import Path

import pytest
from helpers.owning_process import other_process

from hashbench.runtime.locking import owned

fcntl = pytest.importorskip("fcntl")


def is_free(path: Path) -> bool:
    with owned(path) as free:
        return free


def test_a_file_is_owned_by_one_process_until_it_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with other_process(path) as process:
        assert not is_free(path)
        assert path.exists()  # whose it is not, does not remove it
        process.communicate("\n")
        assert process.returncode == 0
    assert not path.exists()
    assert is_free(path)
    assert not path.exists()


def test_a_killed_process_owns_nothing(tmp_path: Path) -> None:
    """Nor do those that it started, which may outlive it."""
    path = tmp_path / "lock"
    with other_process(path) as process:
        process.kill()
        process.wait()
        assert path.exists()
        assert is_free(path)


def test_a_failure_leaves_the_file_and_no_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ZeroDivisionError), owned(path) as free:
        assert free
        raise ZeroDivisionError
    assert path.exists()
    with other_process(path):
        assert not is_free(path)


def test_a_file_that_was_moved_or_removed_is_not_owned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that in the folder of a run which ends while another process looks at it."""
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
