"""Tests of the commands that list and remove cached features."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result

from hashbench.encoding.feature_cache import FeatureMetadata, store, stored

KEY = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
FACTS = FeatureMetadata(
    backbone="net", image_size=32, images=5, dimensions=3, device="cpu", versions={"torch": "2"}
)
ROWS = np.random.RandomState(1).randn(5, 3).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the cache, which is created when it is needed."""
    monkeypatch.setenv("HASHBENCH_CACHE", str(tmp_path / "features"))
    return tmp_path / "features"


@pytest.fixture
def two(folder: Path) -> Path:
    """Return the folder with features used just now and features used 40 days ago."""
    store(folder, KEY, FACTS, iter([ROWS]))
    store(folder, OTHER, FACTS.model_copy(update={"backbone": "old"}), iter([ROWS]))
    long_ago = time.time() - 40 * 86_400
    os.utime(folder / f"{OTHER}.json", (long_ago, long_ago))
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def keys(folder: Path) -> set[str]:
    return {name.split(".")[0].split("-")[0] for name in names(folder)}


def test_list_has_a_row_per_cache_entry(two: Path, cli: Callable[..., Result]) -> None:
    for command in (("cache",), ("cache", "list")):
        lines = cli(*command).out.splitlines()
        rows = [line for line in lines if KEY[:10] in line or OTHER[:10] in line]
        assert [("net" in row, "old" in row) for row in rows] == [(True, False), (False, True)]
        assert lines[-1].endswith(str(two))


def test_list_as_json(two: Path, cli: Callable[..., Result]) -> None:
    (two / f"{OTHER}.json").write_text("{")
    listed = json.loads(cli("cache", "list", "--json").out)
    assert listed["folder"] == str(two)
    rows = {row["key"]: row for row in listed["features"]}
    assert {name: rows[KEY][name] for name in FACTS.model_fields_set} == FACTS.model_dump()
    assert rows[OTHER]["backbone"] is None  # damaged
    assert rows[KEY]["bytes"] == sum(path.stat().st_size for path in two.glob(f"{KEY}*"))


def test_list_of_an_empty_cache_and_of_a_disabled_one(
    cli: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("cache").out == f"{folder} contains no features\n"
    assert cli("cache", "clear", "--all").out == f"removed 0 of 0 sets of features, 0.0 MB, from {folder}\n"
    assert not folder.exists()
    monkeypatch.setenv("HASHBENCH_CACHE", "off")
    result = cli("cache")
    assert (result.code, "is off" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        ((KEY[:4],), {OTHER}),
        ((KEY[:4], OTHER[:4]), set()),
        ((KEY[:4], KEY), {OTHER}),
        (("--all",), set()),
        (("--older-than", "30"), {KEY}),
        (("--all", "--older-than", "41"), {KEY, OTHER}),
        ((KEY[:4], "--older-than", "30"), {KEY, OTHER}),
    ],
)
def test_clear_removes_the_selected_entries(
    arguments: tuple[str, ...], left: set[str], two: Path, cli: Callable[..., Result]
) -> None:
    result = cli("cache", "clear", *arguments)
    assert result.code == 0
    assert keys(two) == left
    removed = 2 - len(left)
    *lines, last = result.out.splitlines()
    assert len(lines) == removed
    assert last.startswith(f"removed {removed} of 2 sets of features")


def test_clear_keeps_files_that_are_not_of_the_cache(two: Path, cli: Callable[..., Result]) -> None:
    others = ["notes.txt", "features.npy", f"{KEY}.npy", f"{KEY}-0123.npy", f"x{KEY}.json", f"{KEY}.json.bak"]
    for name in others:
        (two / name).write_text("mine")
    (two / "folder").mkdir()
    orphan = two / f"{'0' * 32}-{'0' * 16}.npy"
    orphan.write_bytes(bytes(1_000_000))
    result = cli("cache", "clear", "--all")
    assert names(two) == {*others, "folder"}
    assert "removed 0000000000: left over, 1.0 MB" in result.out


def test_usage_errors_of_clear_are_one_line(two: Path, cli: Callable[..., Result]) -> None:
    store(two, KEY[:-1] + "0", FACTS, iter([ROWS]))
    for arguments, message in (
        ((), "pass keys"),
        ((KEY, "--all"), "not both"),
        (("zzz",), "no key begins with 'zzz'"),
        ((KEY[:5],), "2 keys begin with"),
    ):
        result = cli("cache", "clear", *arguments)
        assert result.code == 2
        assert message in result.err
        assert result.err.count("\n") == 1
    assert len(stored(two)) == 3
