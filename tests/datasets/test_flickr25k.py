"""MIRFLICKR-25k: the annotation files, and list files."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.trees import flickr_25k

from hashbench import load_dataset
from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError
from hashbench_datasets.flickr25k import ALL, ANNOTATIONS, ORDERS, POTENTIAL, RELEVANT, read_annotations


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small copy with 60 images."""
    flickr_25k(tmp_path / "data", monkeypatch)
    return tmp_path / "data"


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.query.images), len(dataset.train), len(dataset.database.images)


def test_the_labels() -> None:
    assert (len(POTENTIAL), len(RELEVANT), len(ALL)) == (24, 14, 38)
    assert list(POTENTIAL) == sorted(set(POTENTIAL))
    assert {name.removesuffix("_r1") for name in RELEVANT} < set(POTENTIAL)
    assert ALL[:4] == ("animals", "baby", "baby_r1", "bird")
    for orders in ORDERS.values():
        assert {tuple(sorted(names)) for names in orders.values()} == {next(iter(orders.values()))}


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write annotations of 25,000 images, 419 of them without a label, and empty image files."""
    folder = tmp_path_factory.mktemp("data") / "flickr25k"
    (folder / "mirflickr").mkdir(parents=True)
    (folder / ANNOTATIONS).mkdir()
    (folder / ANNOTATIONS / "README.txt").write_text("42 is no label\n")
    for number in range(1, 25_001):
        (folder / f"mirflickr/im{number}.jpg").touch()
    for column, name in enumerate(ALL):
        step = 24 if name in POTENTIAL else 90
        start = POTENTIAL.index(name) if name in POTENTIAL else column
        numbers = (number for number in range(1, 24_582) if number % step == start)
        (folder / ANNOTATIONS / f"{name}.txt").write_text("".join(f"{number}\n" for number in numbers))
    return folder.parent


@pytest.mark.parametrize(
    ("protocol", "sizes", "unlabelled", "digest"),
    [
        (
            "24",
            (2_000, 5_000, 23_000),
            ["41 of 2,000 queries", "378 of 23,000 database images"],
            "eb2694bc453b",
        ),
        ("24-labelled", (2_000, 5_000, 22_581), [], "686021f40336"),
        (
            "38",
            (1_000, 4_000, 20_000),
            ["11 of 1,000 queries", "339 of 20,000 database images"],
            "e3f70cf4d555",
        ),
        ("38-labelled", (1_000, 4_000, 19_581), [], "41e820a098a6"),
    ],
)
def test_draws_at_full_size(
    full_size: Path, protocol: str, sizes: tuple[int, int, int], unlabelled: list[str], digest: str
) -> None:
    dataset = load_dataset("flickr25k", protocol, full_size)
    assert counts(dataset) == sizes
    assert dataset.class_names == (POTENTIAL if protocol.startswith("24") else ALL)
    assert dataset.overlaps.train_database == (sizes[1] if protocol.startswith("24") else 0)
    assert dataset.overlaps.query_database == dataset.overlaps.query_train == 0
    assert [warning.partition(" have no label")[0] for warning in dataset.warnings] == unlabelled
    for name, labels in zip(dataset.query.images.ids, dataset.query.labels, strict=True):
        number = int(name.removeprefix("im").removesuffix(".jpg"))
        label = dataset.class_names.index(POTENTIAL[number % 24])
        assert labels[label] == (number <= 24_581)
    ids = " ".join((*dataset.train.ids, *dataset.query.images.ids)).encode()
    assert hashlib.sha256(ids).hexdigest()[:12] == digest


# files


def test_each_file_has_the_numbers_of_its_images(root: Path) -> None:
    folder = root / "flickr25k" / ANNOTATIONS
    (folder / "baby.txt").write_text("60\r\n3\r\n1")
    listed = read_annotations(folder, ["baby", "animals"])
    assert listed.paths == tuple(f"im{number}.jpg" for number in range(1, 61))
    assert (np.flatnonzero(listed.labels[:, 0]) + 1).tolist() == [1, 3, 60]
    assert (np.flatnonzero(listed.labels[:, 1]) + 1).tolist() == sorted({*range(4, 60, 4), 38})


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("1\n2\nx\n", 3, "got 'x'; get the annotations again"),
        ("1\n0\n", 2, "got '0'"),
        ("25001\n", 1, "got '25001'"),
        ("-3\n", 1, "got '-3'"),
        ("1\n2.0\n", 2, "got '2.0'"),
        ("²\n", 1, "got '²'"),
        ("9" * 5000, 1, "got '9{149}…; get"),
    ],
)
def test_a_line_that_is_no_number_of_an_image(tmp_path: Path, text: str, line: int, found: str) -> None:
    (tmp_path / "sky.txt").write_text(text, encoding="utf-8")
    message = rf"^{tmp_path}/sky\.txt, line {line}: expected the number of an image from 1 to 25000, {found}"
    with pytest.raises(HashbenchError, match=message):
        read_annotations(tmp_path, ["sky"])


@pytest.mark.parametrize("name", ["baby", "baby_r1"])
def test_a_label_file_is_missing(root: Path, name: str) -> None:
    file = root / "flickr25k" / ANNOTATIONS / f"{name}.txt"
    file.unlink()
    with pytest.raises(HashbenchError, match=rf"{file}: No such file"):
        load_dataset("flickr25k", "38", root)
    if name == "baby_r1":  # which is none of the 24
        assert counts(load_dataset("flickr25k", "24", root)) == (10, 20, 50)


@pytest.mark.parametrize("layout", ["mirflickr25k", "mirflickr", "."])
def test_the_files_may_be_in_other_folders(root: Path, layout: str) -> None:
    before = load_dataset("flickr25k", None, root).fingerprint
    (root / layout).mkdir(exist_ok=True)
    (root / "flickr25k" / ANNOTATIONS).rename(root / layout / ANNOTATIONS)
    (root / "flickr25k/mirflickr").rename(root / "images")
    (root / "flickr25k").rmdir()
    assert load_dataset("flickr25k", None, root).fingerprint == before


@pytest.mark.parametrize(
    "folder", ["MIRFLICKR", "downloads/mirflickr25k", f"flickr25k/{ANNOTATIONS}", "flickr25k/x/y"]
)
def test_annotations_that_lie_deeper_are_found(root: Path, folder: str) -> None:
    before = load_dataset("flickr25k", None, root)
    (root / "flickr25k" / ANNOTATIONS).rename(root / "annotations")
    (root / folder).mkdir(parents=True)
    (root / "annotations").rename(root / folder / ANNOTATIONS)
    dataset = load_dataset("flickr25k", None, root)
    assert (dataset.fingerprint, dataset.options) == (before.fingerprint, before.options)


def test_nothing_is_there(tmp_path: Path) -> None:
    message = (
        rf"^flickr25k: no {ANNOTATIONS}/plant_life\.txt in {tmp_path}, nor up to two levels deeper\n[^$]*\n"
        rf"next: hashbench data prepare flickr25k --protocol 38 --data-root {tmp_path}$"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("flickr25k", "38", tmp_path)


def test_missing_images_are_an_error_or_left_out(root: Path) -> None:
    (root / "flickr25k/mirflickr/im7.jpg").unlink()
    with pytest.raises(HashbenchError, match=r"1 of 60 listed images are not below .*flickr25k: 'im7\.jpg'"):
        load_dataset("flickr25k", None, root)
    dataset = load_dataset("flickr25k", None, root, missing="skip")
    assert counts(dataset) == (10, 20, 49)
    assert "left out" in dataset.warnings[0]


# lists


@pytest.mark.parametrize("order", ["alphabetical", "bihalf", "dpchash"])
@pytest.mark.parametrize("apart", [False, True])
def test_lists_of_another_column_order_give_the_same_labels(
    root: Path, tmp_path: Path, order: str, apart: bool
) -> None:
    dataset = load_dataset("flickr25k", "24", root)
    listed = read_annotations(root / "flickr25k" / ANNOTATIONS, ORDERS[24][order])
    rows = {
        path: "".join(f"{label} " for label in labels)
        for path, labels in zip(listed.paths, listed.labels.tolist(), strict=True)
    }
    folder = tmp_path / "lists"
    folder.mkdir()
    for part, images in (
        ("train", dataset.train),
        ("test", dataset.query.images),
        ("database", dataset.database.images),
    ):
        if apart:
            (folder / f"{part}_img.txt").write_text("".join(f"{name}\n" for name in images.ids))
            (folder / f"{part}_label_onehot.txt").write_text("".join(f"{rows[n]}\n" for n in images.ids))
        else:
            (folder / f"{part}.txt").write_text("".join(f"{name} {rows[name]}\n" for name in images.ids))
    back = load_dataset("flickr25k", "lists", root, lists=folder, columns=order)
    assert back.fingerprint == dataset.fingerprint
    assert back.class_names == POTENTIAL
    as_they_stand = load_dataset("flickr25k", "lists", root, lists=folder)
    assert (as_they_stand.fingerprint == dataset.fingerprint) == (order == "alphabetical")


def test_rows_of_one_list_of_all_images(root: Path) -> None:
    dataset = load_dataset("flickr25k", "38", root)
    folder = root / "flickr25k"
    listed = read_annotations(folder / ANNOTATIONS, ALL)
    (folder / "img.txt").write_text("".join(f"{path}\n" for path in listed.paths))
    np.savetxt(folder / "targets.txt", listed.labels, "%d")
    rows = {
        part: [listed.paths.index(name) for name in ids]
        for part, ids in (
            ("train", dataset.train.ids),
            ("query", dataset.query.images.ids),
            ("db", dataset.database.images.ids),
        )
    }
    (folder / "hash_split_for_flickr.json").write_text(json.dumps(rows))
    shutil.rmtree(folder / ANNOTATIONS)
    assert load_dataset("flickr25k", "lists", root).fingerprint == dataset.fingerprint


def test_lists_of_another_number_of_labels(root: Path) -> None:
    for part in ("train", "test", "database"):
        (root / f"flickr25k/{part}.txt").write_text("im1.jpg 1 0 0\n")
    message = r"flickr25k: expected 24 or 38 classes, got lists with 3; for a subset, write"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("flickr25k", "lists", root)
