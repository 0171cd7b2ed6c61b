"""IDX files, and the two datasets in this format."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision
from helpers.trees import expect_idx, fashion_mnist, idx_files, mnist_, write_idx

from hashbench import load_dataset
from hashbench.data import download
from hashbench.data.dataset import Dataset, DatasetPlugin
from hashbench.data.idx import parse_idx
from hashbench.errors import HashbenchError
from hashbench_datasets import fashionmnist, mnist

RAW = {"fashionmnist": fashionmnist.RAW, "mnist": mnist.RAW}
FILES = {"fashionmnist": idx_files(30, 20), "mnist": idx_files(50, 20)}


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.query.images), len(dataset.train), len(dataset.database.images)


@pytest.fixture(params=["fashionmnist", "mnist"])
def small(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a dataset, whose plugin expects the files of a small copy."""
    writer = {"fashionmnist": fashion_mnist, "mnist": mnist_}[request.param]
    writer(tmp_path / "unused", monkeypatch)
    return str(request.param)


# the format


def test_idx_files_are_parsed_strictly() -> None:
    content = struct.pack(">III", 0x802, 2, 3) + bytes(range(6))
    assert parse_idx(content).tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in (
        b"",
        b"\0\0",
        b"\0\0\x0d" + content[3:],
        content[:-1],
        content + b"\0",
        content[:7],
        content[:8],
    ):
        with pytest.raises(ValueError, match=r".+"):
            parse_idx(wrong)


@pytest.mark.parametrize(
    ("module", "plugin", "theirs"),
    [
        (mnist, mnist.MNIST, torchvision.datasets.MNIST),
        (fashionmnist, fashionmnist.FashionMNIST, torchvision.datasets.FashionMNIST),
    ],
)
def test_the_files_are_those_of_torchvision(
    module: object, plugin: type[DatasetPlugin], theirs: type[torchvision.datasets.MNIST]
) -> None:
    assert {(Path(archive.path).name, archive.md5) for archive in plugin.downloads} == set(theirs.resources)
    assert {archive.url.rpartition("/")[0] + "/" for archive in plugin.downloads} <= set(theirs.mirrors)
    assert [Path(archive.path).name for archive in plugin.downloads] == [f"{name}.gz" for name in module.MD5]
    assert {str(Path(archive.path).parent) for archive in plugin.downloads} == {f"{theirs.__name__}/raw"}


# where the files are


@pytest.mark.parametrize("folder", ["raw", "own", "root", "deeper"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_found(tmp_path: Path, small: str, folder: str, suffix: str) -> None:
    root = tmp_path / "data"
    deeper = root / RAW[small].partition("/")[0] / RAW[small]
    folders = {"raw": root / RAW[small], "own": root / small, "root": root, "deeper": deeper}
    write_idx(folders[folder], FILES[small], suffix)
    dataset = load_dataset(small, "official", root)
    assert counts(dataset) == {"fashionmnist": (20, 20, 30), "mnist": (20, 20, 50)}[small]
    assert dataset.query.images.ids == tuple(f"test/{number:05d}" for number in range(20))
    assert dataset.database.images.ids[-1] == f"train/{len(dataset.database.images) - 1:05d}"
    assert dataset.query.labels.tolist() == [*range(10)] * 2
    raw = FILES[small]["t10k-images-idx3-ubyte"][16 + 784 * 13 :][:784]
    shown = np.asarray(dataset.query.images[13])
    for channel in range(3):
        np.testing.assert_array_equal(shown[..., channel].ravel(), np.frombuffer(raw, np.uint8))


def test_fashionmnist_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_idx(monkeypatch, fashionmnist, FILES["fashionmnist"])
    monkeypatch.setattr(fashionmnist, "SYSTEM_FOLDER", tmp_path / "system")
    write_idx(tmp_path / "system", FILES["fashionmnist"])
    assert counts(load_dataset("fashionmnist", "official", tmp_path / "data")) == (20, 20, 30)
    assert not (tmp_path / "data").exists()


def test_both_may_be_below_one_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion_mnist(tmp_path, monkeypatch)
    mnist_(tmp_path, monkeypatch)
    assert counts(load_dataset("fashionmnist", "official", tmp_path)) == (20, 20, 30)
    assert counts(load_dataset("mnist", "official", tmp_path)) == (20, 20, 50)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    ("suffix", "harm", "reason"),
    [
        (".gz", lambda content: content[:-3], "Compressed file ended before"),
        (".gz", lambda content: b"<html>", "Not a gzipped file"),
        (
            ".gz",
            lambda content: gzip.compress(b"other"),
            "its content has another MD5 than the published file",
        ),
        ("", lambda content: content[:-3], "its content has another MD5 than the published file"),
        ("", lambda content: b"\1" + content[1:], "its content has another MD5"),
        ("", lambda content: b"", "its content has another MD5"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, small: str, name: str, suffix: str, harm: Callable[[bytes], bytes], reason: str
) -> None:
    write_idx(tmp_path, FILES[small], suffix)
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(harm(path.read_bytes()))
    message = (
        rf"^{re.escape(str(path))} is damaged or belongs to another dataset \({reason}.*\); move or delete it"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset(small, "official", tmp_path)


def test_what_is_absent_is_downloaded(tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []

    def fetch(url: str, path: Path, md5: str) -> None:
        fetched.append(url.rpartition("/")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(FILES[small][path.stem]))

    monkeypatch.setattr(download, "fetch", fetch)
    root = tmp_path / "data"
    write_idx(root / small, {"t10k-labels-idx1-ubyte": FILES[small]["t10k-labels-idx1-ubyte"]}, "")
    for _ in range(2):
        dataset = load_dataset(small, "official", root)
        assert dataset.query.labels.tolist() == [*range(10)] * 2
        assert fetched == [
            "train-images-idx3-ubyte.gz",
            "train-labels-idx1-ubyte.gz",
            "t10k-images-idx3-ubyte.gz",
        ]
    assert sorted(path.name for path in (root / RAW[small]).iterdir()) == sorted(fetched)


def test_what_cannot_be_downloaded(tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(download, "urlopen", unreachable)
    path = tmp_path / RAW[small] / "train-images-idx3-ubyte.gz"
    message = rf"cannot download http\S+/train-images-\S+ \(no route to host\)\n.*\n.* save it as {path} "
    with pytest.raises(HashbenchError, match=message):
        load_dataset(small, "official", tmp_path)


# the splits


def test_the_official_test_images_are_the_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist_(tmp_path, monkeypatch)
    dataset = load_dataset("mnist", "official", tmp_path)
    assert {name[:5] for name in dataset.query.images.ids} == {"test/"}
    assert {name[:5] for name in dataset.database.images.ids} == {"train"}
    assert set(dataset.train.ids) < set(dataset.database.images.ids)
    assert np.bincount(dataset.train_labels).tolist() == [2] * 10


@pytest.mark.parametrize("protocol", ["69k", "60k", "60k-all"])
def test_other_splits_are_drawn_from_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    mnist_(tmp_path, monkeypatch)
    dataset = load_dataset("mnist", protocol, tmp_path)
    everything = {*(f"train/{n:05d}" for n in range(50)), *(f"test/{n:05d}" for n in range(20))}
    assert {*dataset.query.images.ids, *dataset.database.images.ids} == everything
    assert dataset.overlaps.query_database == 0
    for ids in (dataset.query.images.ids, dataset.database.images.ids):
        assert {name[:5] for name in ids} == {"test/", "train"}
    assert np.bincount(dataset.query.labels).tolist() == [1 if protocol == "69k" else 2] * 10
    if protocol == "60k-all":
        assert dataset.train.ids == dataset.database.images.ids
    else:
        assert np.bincount(dataset.train_labels).tolist() == [2] * 10
        assert dataset.overlaps.train_database == 20


def test_small_has_the_training_images_of_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion_mnist(tmp_path, monkeypatch)
    official = load_dataset("fashionmnist", "official", tmp_path)
    small = load_dataset("fashionmnist", "small", tmp_path)
    assert small.train.ids == official.train.ids == small.database.images.ids
    assert set(small.query.images.ids) < set(official.query.images.ids)
    assert np.bincount(small.query.labels).tolist() == [1] * 10


@pytest.mark.skipif(not fashionmnist.SYSTEM_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.parametrize(
    ("protocol", "sizes", "fingerprint"),
    [
        (
            "official",
            (10_000, 5_000, 60_000),
            "29910962aac9dc6b345a3d070fd0b06a073e22d807ee14d10d8a69b86cfcbcc0",
        ),
        ("small", (1_000, 5_000, 5_000), "6a53488b590769378b8daf4cc2d6430673877cbcdbca79efc8d318c5b2e50084"),
    ],
)
def test_fashionmnist_as_distributed(
    tmp_path: Path, protocol: str, sizes: tuple[int, int, int], fingerprint: str
) -> None:
    dataset = load_dataset("fashionmnist", protocol, tmp_path)
    assert counts(dataset) == sizes
    assert dataset.overlaps.train_database == 5_000
    assert dataset.overlaps.query_database == dataset.overlaps.query_train == 0
    assert set(np.bincount(dataset.query.labels)) == {sizes[0] // 10}
    assert set(np.bincount(dataset.database.labels)) == {sizes[2] // 10}
    assert dataset.warnings == ()
    assert dataset.fingerprint == fingerprint
    assert dataset.train[0].size == (28, 28)
    if protocol == "official":
        assert dataset.class_names[dataset.query.labels[0]] == "Ankle boot"
