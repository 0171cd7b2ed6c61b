"""Walking through folders, and the files that are skipped everywhere."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trees import TREES, photo

from hashbench import load_dataset
from hashbench.errors import HashbenchError
from hashbench.runtime.walking import is_system_folder, skipped_warning, walk

SYSTEM = (
    *("@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    *(".Trash-1000", "$Recycle.Bin", "@EADIR", "__MACOSX"),
)
USERS = ("cat", "recycle", "lost", "found", "eaDir", "System", "@cat", "Trash-1000", ".git")


def test_the_folders_of_operating_systems() -> None:
    assert [name for name in SYSTEM if not is_system_folder(name)] == []
    assert [name for name in USERS if is_system_folder(name)] == []


def add_system_files(folder: Path, image: Path) -> str:
    """Write files of a network drive, Windows, Linux and macOS; return the expected warning."""
    for name in ("@eaDir", "$RECYCLE.BIN", ".Trash-1000", "lost+found", "System Volume Information"):
        (folder / name).mkdir()
        (folder / name / image.name).write_bytes(image.read_bytes())
    for name in (f"._{image.name}", "._other.txt"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    return (
        "files and folders of the operating system are skipped: 1 $RECYCLE.BIN, 1 .Trash-1000, 2 ._*, "
        "1 @eaDir, 1 System Volume Information, 1 lost+found"
    )


def test_what_is_skipped_is_counted(tmp_path: Path) -> None:
    for name in ("1.jpg", "b/2.jpg", "b/@eaDir/2.jpg", "@eaDir/b/2.jpg", "b/._2.jpg", ".git/x", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    skipped: list[str] = []
    assert [*walk(tmp_path, skipped)] == [(str(tmp_path), ["1.jpg"]), (str(tmp_path / "b"), ["2.jpg"])]
    assert {*skipped} == {str(tmp_path / name) for name in ("@eaDir", "b/@eaDir", "b/._2.jpg")}
    assert skipped_warning(skipped) == [
        "files and folders of the operating system are skipped: 1 ._*, 2 @eaDir"
    ]
    assert skipped_warning([]) == []


def test_a_folder_that_cannot_be_read_stops_only_if_it_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat/1.jpg", "lost+found/1.jpg"):
        photo(tmp_path / name, 0, 0)
    scandir = os.scandir
    locked = {str(tmp_path / "lost+found")}

    def guarded(folder: Any) -> Any:
        if os.fspath(folder) in locked:
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    assert [names for _, names in walk(tmp_path)] == [[], ["1.jpg"]]
    locked.add(str(tmp_path / "cat"))
    with pytest.raises(HashbenchError, match=r"cat cannot be read: Permission denied"):
        [*walk(tmp_path)]


def test_folders_too_deep_within_each_other(tmp_path: Path) -> None:
    (tmp_path / Path(*["a"] * 300)).mkdir(parents=True)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        found = str(len([*walk(tmp_path)]))  # Python 3.12 has no such limit
    except HashbenchError as error:
        found = str(error)
    finally:
        sys.setrecursionlimit(limit)
    assert found in ("301", f"{tmp_path} contains too many nested folders; move them away")


@pytest.mark.parametrize("protocol", ["split", "folders"])
def test_class_folders(tmp_path: Path, protocol: str) -> None:
    parts = {"split": [""], "folders": ["train/", "query/", "database/"]}[protocol]
    for number, name in enumerate(
        f"{part}{kind}/{n}.jpg" for part in parts for kind in ("cat", "dog") for n in "12"
    ):
        photo(tmp_path / name, 0, number)
    before = load_dataset("folder", protocol, tmp_path)
    warning = add_system_files(tmp_path / parts[0], tmp_path / parts[0] / "cat/1.jpg")
    dataset = load_dataset("folder", protocol, tmp_path)
    assert dataset.fingerprint == before.fingerprint
    assert dataset.warnings == (*before.warnings, warning)
    (tmp_path / parts[0] / "dog/@eaDir").mkdir()
    (tmp_path / parts[0] / "dog/@eaDir/1.jpg").touch()
    assert load_dataset("folder", protocol, tmp_path).warnings[-1] == warning.replace("1 @eaDir", "2 @eaDir")


@pytest.mark.parametrize("name", ["nuswide", "coco", "flickr25k", "imagenet100"])
def test_published_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    TREES[name](tmp_path, monkeypatch)
    before = load_dataset(name, None, tmp_path)
    image = Path(before.database.images.paths[0])  # type: ignore[attr-defined]
    warning = add_system_files(image.parent, image)
    dataset = load_dataset(name, None, tmp_path)
    assert dataset.fingerprint == before.fingerprint
    assert warning in dataset.warnings


def test_a_split_of_macos_beside_list_files(tmp_path: Path) -> None:
    for number in range(4):
        photo(tmp_path / f"{number}.jpg", number % 2, number)
    (tmp_path / "allannots.txt").write_text("".join(f"{n}.jpg {n % 2} {1 - n % 2}\n" for n in range(4)))
    (tmp_path / "split.json").write_text('{"train": [0, 1], "query": [2], "database": [0, 1, 3]}')
    for name in ("._split.json", "._allannots.txt", "._train.txt", "._0.jpg"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    dataset = load_dataset("folder", "lists", tmp_path)
    assert dataset.query.images.ids == ("2.jpg",)
    assert dataset.warnings == ("files and folders of the operating system are skipped: 4 ._*",)


def test_shards(tmp_path: Path, cli: Callable[..., Any]) -> None:
    codes, ids = np.random.RandomState(0).choice([-1, 1], (30, 16)), np.arange(30) % 3
    np.savez("queries.npz", query_codes=codes[:3], query_labels=ids[:3])
    Path("shards").mkdir()
    np.save("shards/a.codes.npy", codes)
    np.save("shards/a.labels.npy", ids)
    before = cli("evaluate", "queries.npz", "--database", "shards", "--json")
    for name in ("._a.codes.npy", "._a.labels.npy", "._b.codes.npy"):
        Path("shards", name).write_bytes(b"\0\5\x16\7")
    done = cli("evaluate", "queries.npz", "--database", "shards", "--json")
    assert (before.code, done.code, done.out) == (0, 0, before.out)
    assert "warning: 3 files ._* of the operating system in shards are skipped" in done.err
    assert "skipped" not in before.err
