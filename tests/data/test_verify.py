"""Verification of datasets with known damage."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trees import photo
from PIL import Image

from hashbench.data.dataset import Dataset, Split
from hashbench.data.protocol import Protocol
from hashbench.data.verify import verify
from hashbench.images.image_sets import ArrayImages, FileImages

ANY = Protocol("any")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write six JPEG files."""
    for number in range(6):
        photo(tmp_path / f"{number}.jpg", number % 2, number)
    return tmp_path


def dataset(folder: Path, labels: list[list[int]] | None = None, **options: Any) -> Dataset:
    """Return a dataset with images 0 to 3 as training images and database, 4 and 5 as queries."""
    images = FileImages([folder / f"{n}.jpg" for n in range(6)], list("abcdef"), **options)
    everything = Split(images, np.array(labels or [[1, 0], [0, 1]] * 3))
    stored, asked = everything.subset(np.arange(4)), everything.subset(np.arange(4, 6))
    return Dataset.from_splits("toy", "p", ["cat", "dog"], train=stored, query=asked, database=stored)


def test_a_sound_dataset(folder: Path) -> None:
    made = dataset(folder)
    found = verify(made, Protocol("any", 2, 4, 4), decode_all=True)
    assert found.problems == found.warnings == found.truncated == []
    assert found.counts == {"train": 4, "query": 2, "database": 4}
    assert found.unlabelled == {"train": 0, "query": 0, "database": 0}
    assert found.fingerprint == made.fingerprint
    assert found.duplicates.groups == found.duplicates.query_database == 0
    assert asdict(found)["overlaps"] == {"query_database": 0, "query_train": 0, "train_database": 4}


def test_other_numbers_than_the_protocols(folder: Path) -> None:
    found = verify(dataset(folder), Protocol("any", 2, 5, 4))
    assert found.problems == ["train has 4 images, not 5"]
    assert found.expected == {"query": 2, "train": 5, "database": 4}


def test_images_without_labels_are_counted(folder: Path) -> None:
    labels = [[0, 0], [1, 0], [1, 0], [0, 0], [0, 0], [1, 1]]
    found = verify(dataset(folder, labels), ANY)
    assert found.unlabelled == {"train": 2, "query": 1, "database": 2}
    assert found.problems == []
    assert len(found.warnings) == 2


def test_files_that_are_gone_or_no_images(folder: Path) -> None:
    made = dataset(folder)
    (folder / "1.jpg").unlink()
    (folder / "2.jpg").write_bytes(b"")
    (folder / "4.jpg").write_text("\ufeff\n<!DOCTYPE html>404")
    found = verify(made, ANY)
    assert len(found.problems) == 3
    assert verify(made, ANY, decode_all=True).problems == found.problems
    assert "1.jpg cannot be read" in found.problems[0]
    assert "2.jpg is empty" in found.problems[1]
    assert "4.jpg is a web page" in found.problems[2]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "is a Git LFS pointer, not an image; run `git lfs pull` in its repository",
        ),
        (b"404: Not Found", "is not an image; download it again or remove it"),
        (b"\n<!DOCTYPE html>", "is a web page, not an image; download it again or remove it"),
        (b"\0" * 4096, "is not an image; download it again or remove it"),
        (b"PK\x03\x04" + b"x" * 100, "is not an image; download it again or remove it"),
    ],
)
def test_what_is_no_image_is_found_without_decoding(folder: Path, content: bytes, problem: str) -> None:
    (folder / "3.jpg").write_bytes(content)
    found = verify(dataset(folder), ANY)
    assert found.problems == [f"{folder}/3.jpg {problem}"]
    assert not found.decoded


@pytest.mark.parametrize("format_", ["BMP", "PPM", "GIF", "PNG", "TIFF", "WEBP"])
def test_all_formats_are_images_without_decoding(folder: Path, format_: str) -> None:
    Image.new("RGB", (9, 9), "red").save(folder / "3.jpg", format_)
    assert verify(dataset(folder), ANY).problems == []


@pytest.mark.parametrize("accepted", [False, True])
def test_truncated_files(folder: Path, accepted: bool) -> None:
    content = (folder / "3.jpg").read_bytes()
    (folder / "3.jpg").write_bytes(content[: len(content) * 9 // 10])
    found = verify(dataset(folder, truncated=accepted), ANY, decode_all=True)
    if accepted:
        assert (found.truncated, found.problems) == (["d"], [])
    else:
        assert found.truncated == []
        assert len(found.problems) == 1
        assert "3.jpg cannot be decoded" in found.problems[0]


def test_the_same_content_under_several_ids(folder: Path) -> None:
    (folder / "4.jpg").write_bytes((folder / "0.jpg").read_bytes())  # a query like a database image
    (folder / "2.jpg").write_bytes((folder / "1.jpg").read_bytes())  # with other labels
    found = verify(dataset(folder), ANY).duplicates
    assert found.groups == 2
    assert found.query_database == 1
    assert found.conflicting == [["b", "c"]]
    assert found.examples == [["a", "e"], ["b", "c"]]


def test_images_in_memory_are_compared_by_pixels() -> None:
    pixels = np.zeros((3, 2, 2), np.uint8)
    pixels[1] = 9
    everything = Split(ArrayImages(pixels, ["a", "b", "c"]), np.array([0, 1, 0]))
    stored, asked = everything.subset(np.arange(2)), everything.subset(np.array([2]))
    made = Dataset.from_splits("toy", "p", ["cat", "dog"], train=stored, query=asked, database=stored)
    found = verify(made, ANY, decode_all=True)
    assert (found.duplicates.groups, found.duplicates.query_database) == (1, 1)
    assert found.problems == []


def test_queries_in_the_database_are_a_problem(folder: Path) -> None:
    images = FileImages([folder / f"{n}.jpg" for n in range(6)], list("abcdef"))
    everything = Split(images, np.array([0, 1] * 3))
    made = Dataset.from_splits(
        "toy",
        "p",
        ["cat", "dog"],
        train=everything,
        query=everything.subset(np.arange(2)),
        database=everything,
    )
    assert verify(made, ANY).problems == ["2 queries are also in the database"]


def test_an_image_with_other_labels_in_another_part_is_a_problem(folder: Path) -> None:
    images = FileImages([folder / f"{n}.jpg" for n in range(6)], list("abcdef"))
    train, stored = (Split(images, np.array(labels)).subset(np.arange(4)) for labels in ([0] * 6, [0, 1] * 3))
    query = Split(images, np.array([0, 1] * 3)).subset(np.arange(4, 6))
    made = Dataset.from_splits("toy", "p", ["cat", "dog"], train=train, query=query, database=stored)
    assert verify(made, ANY).problems == ["2 images have different labels in another part, such as b"]


def test_one_id_for_two_images_is_a_problem(folder: Path) -> None:
    made = dataset(folder)
    photo(folder / "other.jpg", 0, 9)
    train = FileImages([folder / "other.jpg"], ["b"])
    found = verify(replace(made, train=train, train_labels=np.array([[0, 1]], np.uint8)), ANY)
    assert found.problems == ["b is a different image in another part"]
