"""Tests of the datasets of torchvision on small copies in its layouts."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.torchvision_trees import WRITERS, write
from torchvision import datasets

from hashbench import load_dataset, read_record, registry
from hashbench.data.load import create_dataset
from hashbench.errors import HashbenchError, UsageError
from hashbench.images.image_sets import ArrayImages, FileImages
from hashbench_datasets import DATASETS
from hashbench_datasets.torchvision_sets import VOC_CLASSES

IN_MEMORY = ("CIFAR100", "FashionMNIST", "SVHN", "STL10")
PREFIX = "torchvision:"


def one_hot(classes: list[Any]) -> list[list[int]]:
    return [[int(name in names) for name in VOC_CLASSES] for names in classes]


@pytest.mark.parametrize("name", WRITERS)
def test_images_and_labels_are_those_of_torchvision(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = write(name, tmp_path / "data", monkeypatch)
    if name == "VOCDetection":
        train, test = one_hot(train), one_hot(test)
    dataset = load_dataset(PREFIX + name, "official" if test else "split", tmp_path / "data")
    assert dataset.name == PREFIX + name
    assert dataset.warnings == ()
    assert isinstance(dataset.train, ArrayImages if name in IN_MEMORY else FileImages)
    if test:
        assert dataset.train is dataset.database.images
        assert (dataset.train_labels.tolist(), dataset.query.labels.tolist()) == (train, test)
    else:
        assert sorted([*dataset.query.labels, *dataset.database.labels]) == train
    opened = create_dataset(PREFIX + name)
    arguments = opened.parts[1 if test else 0][0]
    part = opened._open(tmp_path / "data", **arguments)
    found = {
        image_id: split.images[row]
        for split in (dataset.query, dataset.database)
        for row, image_id in enumerate(split.images.ids)
    }
    expected = [np.asarray(part[row][0].convert("RGB")) for row in range(len(part))]
    ids = dataset.query.images.ids if test else sorted(found)
    for image_id, pixels in zip(ids, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(found[image_id]), pixels)


@pytest.mark.parametrize("name", ["CIFAR100", "DTD", "VOCDetection"])
def test_parts_of_a_drawn_split_share_no_query(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = write(name, tmp_path / "data", monkeypatch)
    dataset = load_dataset(PREFIX + name, "split", tmp_path / "data", query_ratio=0.25, train_ratio=0.5)
    every = len(train) + len(test)
    assert [len(part.images) for part in dataset.parts().values()] == [
        every * 3 // 8,
        every // 4,
        every * 3 // 4,
    ]
    assert (dataset.overlaps.query_database, dataset.overlaps.query_train) == (0, 0)
    assert len({*dataset.query.images.ids, *dataset.database.images.ids}) == every


def test_ids_and_class_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "CIFAR100": ("test/00000", ("apple", "bear", "can")),
        "SVHN": ("test/00000", ("0", "1", "2")),
        "Food101": ("images/pie/6.jpg", ("pie", "soup")),
        "OxfordIIITPet": ("images/Abyssinian_test0.jpg", ("Abyssinian", "Boxer")),
        "VOCDetection": ("JPEGImages/000100.jpg", VOC_CLASSES),
    }
    for name, (first, classes) in expected.items():
        write(name, tmp_path / name, monkeypatch)
        dataset = load_dataset(PREFIX + name, None, tmp_path / name)
        assert (dataset.query.images.ids[0], dataset.class_names) == (first, classes)


def test_all_names_are_classes_of_torchvision() -> None:
    names = [name.removeprefix(PREFIX) for name in DATASETS if name.startswith(PREFIX)]
    assert len(names) == 16
    for name in names:
        assert issubclass(getattr(datasets, name), datasets.VisionDataset)
        entry = registry.find("dataset", PREFIX + name)
        assert entry.summary() == str(entry.load().__doc__).splitlines()[0]
        assert "base.py" in [file.name for file in entry.sources()]


def test_help_and_description_do_not_import_torchvision() -> None:
    code = (
        "import sys; from hashbench.data.load import create_dataset\n"
        "assert create_dataset('torchvision:CIFAR100').about.licence\n"
        "print('torchvision' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_unknown_names_and_fixed_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match="unknown dataset 'torchvision:Food102'; did you mean 'torchvision:Food101'"
    ):
        create_dataset("torchvision:Food102")
    write("CIFAR100", tmp_path, monkeypatch)
    for options in ({"seed": 1}, {"query_ratio": 0.2}):
        with pytest.raises(
            UsageError, match="^torchvision:CIFAR100: official is a fixed split, which .* cannot"
        ):
            load_dataset("torchvision:CIFAR100", "official", tmp_path, **options)
    half = load_dataset("torchvision:CIFAR100", "official", tmp_path, seed=1, fraction=0.5)
    assert len(half.train) == 9


class Evil:
    """An object whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_pickle_of_another_md5_is_not_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("CIFAR100", tmp_path / "data", monkeypatch)
    file = tmp_path / "data/cifar-100-python" / name
    file.write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(HashbenchError) as error:
        load_dataset("torchvision:CIFAR100", None, tmp_path / "data")
    message = str(error.value)
    assert message.startswith(
        f"torchvision:CIFAR100: torchvision does not accept the files in {file.parent} (Data"
    )
    assert message.endswith(f"next: hashbench data prepare torchvision:CIFAR100 --data-root {tmp_path}/data")
    assert "\n" not in message
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["Food101", "EuroSAT", "VOCDetection"])
def test_images_are_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = write(name, tmp_path / "data", monkeypatch)
    total = len(train) + len(test)
    next(iter(sorted((tmp_path / "data").rglob("*.jpg")))).unlink()
    with pytest.raises(
        HashbenchError, match=rf"has {total - 1} of {total} images; delete the folder and run"
    ):
        load_dataset(PREFIX + name, None, tmp_path / "data")
    dataset = load_dataset(PREFIX + name, None, tmp_path / "data", missing="skip")
    assert f"has {total - 1} of {total} images" in dataset.warnings[0]
    assert len(dataset.query.images) + len(dataset.database.images) == total - 1
    assert len(dataset.query.images) == (len(test) or 2)


def test_prepare_downloads_and_a_run_does_not(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(part: datasets.CIFAR100) -> None:
        asked.append(part.train)
        write("CIFAR100", Path(part.root), monkeypatch)

    monkeypatch.setattr(datasets.CIFAR100, "download", download)
    arguments = ("--data-root", tmp_path / "data")
    result = cli("run", "--method", "lsh", "--dataset", "torchvision:CIFAR100", *arguments)
    assert (result.code, asked) == (1, [])
    first, *_, last = result.err.splitlines()
    assert "torchvision:CIFAR100: no cifar-100-python in" in first
    assert last == f"next: hashbench data prepare torchvision:CIFAR100 --data-root {tmp_path}/data"
    result = cli("data", "prepare", "torchvision:CIFAR100", *arguments)
    assert (result.code, asked) == (0, [True, False])
    (lists,) = (tmp_path / "data/lists").iterdir()
    assert lists.name.startswith("torchvision~CIFAR100@official-")


def test_a_failed_download_is_one_line(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(part: datasets.EuroSAT) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(datasets.EuroSAT, "download", download)
    result = cli("data", "prepare", "torchvision:EuroSAT", "--data-root", tmp_path)
    assert result.code == 1
    assert result.err.splitlines()[-1] == (
        "hashbench: error: torchvision cannot download torchvision:EuroSAT (File not found or corrupted.); "
        f"get it from https://github.com/phelber/eurosat and put it into {tmp_path}/eurosat/2750"
    )


def test_no_path_of_a_run_has_a_colon(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("CIFAR100", tmp_path / "data", monkeypatch)
    settings = [f"--set={s}" for s in ("backbone=test_resnet", "pretrained=false", "images.size=16")]
    name = "torchvision:CIFAR100"
    result = cli("run", "--method", "lsh", "--dataset", name, "--data-root", "data", "--bits", 16, *settings)
    assert result.code == 0, result.err
    (path,) = (tmp_path / "results").rglob("record.json")
    folder = path.parent.relative_to(tmp_path / "results/runs")
    assert folder.parts[:3] == ("torchvision~CIFAR100@official", "lsh", "16bit")
    assert folder.name.startswith("lsh-torchvision~CIFAR100-16bit-seed0-")
    record = read_record(path.parent)
    assert (record.dataset, record.run_id) == (name, folder.name)
    for command in (
        ("results", "verify"),
        ("results", "show", folder.name),
        ("table", "--dataset", name),
        ("report", "--dataset", name, "--data-root", "data", "--output", "page.html"),
        ("results", "export", "runs.tar.gz", "--dataset", name),
        ("results", "import", "runs.tar.gz", "--results", "copy"),
    ):
        result = cli(*command)
        assert result.code == 0, (command, result.err)
    assert (tmp_path / "copy" / folder / "record.json").is_file()
    assert json.loads(cli("results", "list", "--dataset", name, "--json").out)["runs"][0]["dataset"] == name
    again = cli("run", "--method", "lsh", "--dataset", name, "--data-root", "data", "--bits", 16, *settings)
    assert "exists" in again.err
