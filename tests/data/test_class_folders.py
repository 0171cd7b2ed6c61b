"""Images in one folder per class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hashbench.data.class_folders import (
    class_names,
    ignored_files,
    read_class_folders,
    read_split_folders,
    split_folders,
)
from hashbench.data.options import FileOptions
from hashbench.errors import HashbenchError, UsageError

ONE_TEXT = "1 files are left out, since they do not have the suffix of an image, such as {}"
ONE_SYSTEM_FILE = "files and folders of the operating system are skipped: 1 ._*"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = (
        "dog/2.PNG",
        "dog/10.png",
        "cat/sub/1.jpeg",
        "cat/._1.png",
        "cat/.thumbnails/1.png",
        "cat/notes.txt",
        "empty/x.md",
        ".git/1.png",
    )
    for place, name in enumerate(files):
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (place, 0, 0)).save(tmp_path / "train" / name, "PNG")
    return tmp_path


def below(base: Path) -> Callable[[str], str]:
    """Return a function that maps a file to its path relative to a folder."""
    return lambda file: Path(file).relative_to(base).as_posix()


def test_classes_are_the_folders_with_images(tree: Path) -> None:
    (tree / "query/owl").mkdir(parents=True)
    (tree / "query/owl/1.webp").touch()
    assert class_names([tree / "train", tree / "query", tree / "none"]) == ("cat", "dog", "owl")


def test_images_have_the_place_of_their_folder_as_class(tree: Path) -> None:
    split = read_class_folders(tree / "train", ["dog", "owl", "cat"], FileOptions(), below(tree))
    assert split.images.ids == ("train/dog/10.png", "train/dog/2.PNG", "train/cat/sub/1.jpeg")
    assert split.labels.tolist() == [0, 0, 2]
    assert [split.images[index].getpixel((0, 0)) for index in range(3)] == [(1, 0, 0), (0, 0, 0), (2, 0, 0)]


def test_the_order_of_the_disk_does_not_matter(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backwards(folder: str, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for inside, folders, names in walk(folder, **options):
            yield inside, folders, sorted(names, reverse=True)

    (tree / "train/cat/0.png").touch()
    walk, before = os.walk, read_class_folders(tree / "train", ["cat", "dog"], FileOptions(), below(tree))
    monkeypatch.setattr(os, "walk", backwards)
    assert class_names([tree / "train"]) == ("cat", "dog")
    after = read_class_folders(tree / "train", ["cat", "dog"], FileOptions(), below(tree))
    assert after.images.ids == before.images.ids
    assert before.images.ids[:2] == ("train/cat/0.png", "train/cat/sub/1.jpeg")


def test_how_to_decode_is_handed_on(tree: Path) -> None:
    file = tree / "train/dog/10.png"
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[274] = 6  # turned by 90°
    image.save(file, exif=exif)
    for turned, size in ((False, (4, 2)), (True, (2, 4))):
        split = read_class_folders(tree / "train", ["dog"], FileOptions(exif=turned), below(tree))
        assert split.images[0].size == size


def test_no_images_are_an_error(tmp_path: Path) -> None:
    message = rf"{tmp_path} has no images; expected one folder per class, such as {tmp_path}/owl/1\.jpg"
    with pytest.raises(HashbenchError, match=message):
        read_class_folders(tmp_path, ["owl"], FileOptions(), str)


def test_a_link_up_is_not_followed(tree: Path) -> None:
    (tree / "train/cat/all").symlink_to(tree / "train")
    (tree / "elsewhere").mkdir()
    Image.new("RGB", (2, 2)).save(tree / "elsewhere/9.png")
    (tree / "train/cat/more").symlink_to(tree / "elsewhere")
    split = read_class_folders(tree / "train", ["cat", "dog"], FileOptions(), str)
    assert [Path(name).name for name in split.images.ids] == ["9.png", "1.jpeg", "10.png", "2.PNG"]
    assert split.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("queries", ["query", "test"])
def test_folders_decide_a_split(tree: Path, queries: str) -> None:
    for part, name in ((queries, "owl"), ("database", "cat")):
        (tree / part / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tree / part / name / "1.png")
    parts, classes, warnings = read_split_folders(tree, None, FileOptions(), below(tree))
    assert warnings == [ONE_TEXT.format(tree / "train/cat/notes.txt"), ONE_SYSTEM_FILE]
    assert classes == ("cat", "dog", "owl")
    assert parts["query"].images.ids == (f"{queries}/owl/1.png",)
    assert parts["query"].labels.tolist() == [2]
    assert parts["database"].labels.tolist() == [0]
    assert len(parts["train"].labels) == 3


def test_files_that_are_no_images_by_their_suffix_are_counted(tree: Path) -> None:
    folders = [tree / "train/cat", tree / "train/dog"]
    text = ONE_TEXT.format(tree / "train/cat/notes.txt")
    assert ignored_files(folders, [tree / "train"]) == [text, ONE_SYSTEM_FILE]
    assert ignored_files(folders[1:], [tree / "train"]) == []


def test_images_beside_the_folders_are_counted(tree: Path) -> None:
    for name in ("train/b.JPG", "train/a.png", "train/notes.txt", "c.png"):
        (tree / name).touch()
    loose = f"3 images are left out, since they are not in a class folder, such as {tree}/c.png"
    assert ignored_files([tree / "train/dog"], [tree / "train", tree]) == [loose]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("Train Test", {"train": "Train", "query": "Test"}),
        ("TRAINING TESTING Gallery", {"train": "TRAINING", "query": "TESTING", "database": "Gallery"}),
        ("train val", {"train": "train", "query": "val"}),
        ("train Valid db", {"train": "train", "query": "Valid", "database": "db"}),
        ("train validation", {"train": "train", "query": "validation"}),
        ("train val test", {"train": "train", "query": "test", "validation": "val"}),
        ("train queries database x", {"train": "train", "query": "queries", "database": "database"}),
        ("cat dog", {}),
    ],
)
def test_names_of_the_folders_of_a_split(tmp_path: Path, names: str, expected: dict[str, str]) -> None:
    for name in names.split():
        (tmp_path / name / "cat").mkdir(parents=True)
        (tmp_path / name / "cat/1.jpg").touch()
    (tmp_path / "database").mkdir(exist_ok=True)  # an empty one is none
    (tmp_path / "testing.txt").touch()
    assert split_folders(tmp_path) == {part: tmp_path / name for part, name in expected.items()}


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ("train Train test", "train"),
        ("train training test", "train"),
        ("train query test", "query"),
        ("train val valid test", "validation"),
        ("train test database gallery", "database"),
    ],
)
def test_two_folders_for_one_part_are_an_error(tmp_path: Path, names: str, part: str) -> None:
    for name in names.split():
        (tmp_path / name / "cat").mkdir(parents=True)
        (tmp_path / name / "cat/1.jpg").touch()
    with pytest.raises(
        UsageError, match=rf"has the folders \w+ and \w+, and each could be the {part} part of"
    ):
        split_folders(tmp_path)
