from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashbench.errors import HashbenchError
from hashbench.lists import ImageIndex, ImageList, locate, read_list


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def listing(*paths: str, file: str = "list.txt") -> ImageList:
    return ImageList(Path(file), paths, np.ones((len(paths), 1), np.uint8))


def test_a_list_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "test.txt", "images/0484_15.jpg 1 0 1\nimages/0461_17.jpg 0 0 0\n")
    entry = read_list(file, 3)
    assert entry.file == file
    assert entry.paths == ("images/0484_15.jpg", "images/0461_17.jpg")
    assert entry.labels.dtype == np.uint8
    assert entry.labels.tolist() == [[1, 0, 1], [0, 0, 0]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    labels=st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=5),
    newline=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    trailing=st.sampled_from(["", " ", "\t "]),
    blank=st.sampled_from([" ", "\t", "  "]),
    end=st.sampled_from(["", "\n", "\r\n\r\n", " \n"]),
    path=st.sampled_from(["a/{}.jpg", "a\\{}.jpg", "./a/{}.jpg", "a//{}.jpg"]),
)
def test_how_a_list_was_saved_does_not_matter(
    tmp_path: Path,
    labels: list[list[int]],
    newline: str,
    mark: str,
    trailing: str,
    blank: str,
    end: str,
    path: str,
) -> None:
    lines = [blank.join([path.format(i), *map(str, row)]) + trailing for i, row in enumerate(labels)]
    entry = read_list(write(tmp_path / "list.txt", mark + newline.join(lines) + end), 4)
    assert entry.paths == tuple(f"a/{i}.jpg" for i in range(len(labels)))
    assert entry.labels.tolist() == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 1 0\nb.jpg 1\n", r"list\.txt, line 2: expected a path and 2 labels, found 1 labels"),
        ("a.jpg 1 0 0\n", "line 1: expected a path and 2 labels, found 3 labels"),
        ("a.jpg 1 0\nb.jpg", "line 2: expected a path and 2 labels, found a path only"),
        ("a.jpg 1 0\n\nb.jpg 1 0", "line 2: expected a path and 2 labels, found an empty line"),
        ("", "line 1: expected a path and 2 labels, found an empty line"),
        ("a.jpg 1 0\nb.jpg 0 3\n", "line 2: expected labels 0 or 1, found '3'"),
        ("a.jpg -1 1\n", "line 1: expected labels 0 or 1, found '-1'"),
        ("a.jpg 1.0 0\n", "expected labels 0 or 1, found '1.0'"),
        ("a.jpg ² 0\n", "expected labels 0 or 1, found '²'"),
        (b"\xff\xfe\x00", r"cannot read the list .*list\.txt"),
    ],
)
def test_lines_of_another_kind_are_errors(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(HashbenchError, match=message):
        read_list(write(tmp_path / "list.txt", text), 2)


def test_a_list_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HashbenchError, match=r"cannot read the list .*none\.txt"):
        read_list(tmp_path / "none.txt", 2)


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("a/1.jpg", "a/1.jpg"),
        ("x/a/1.jpg", "x/a/1.jpg"),
        ("top.jpg", "top.jpg"),
        ("/home/someone/data/b/2.jpg", "deep/b/2.jpg"),
        ("images/2.jpg", "deep/b/2.jpg"),
        ("2.jpg", "deep/b/2.jpg"),
        ("../data/top.jpg", "top.jpg"),
        ("b/3.jpg", None),
    ],
)
def test_listed_paths_are_found(tmp_path: Path, listed: str, found: str | None) -> None:
    index = ImageIndex(touch(tmp_path, "a/1.jpg", "x/a/1.jpg", "deep/b/2.jpg", "top.jpg"))
    assert index.find(listed) == (None if found is None else str(tmp_path / found))


@pytest.mark.parametrize("listed", ["1.jpg", "images/1.jpg", "y/a/1.jpg"])
def test_a_path_that_fits_several_files_is_an_error(tmp_path: Path, listed: str) -> None:
    index = ImageIndex(touch(tmp_path, "a/1.jpg", "x/a/1.jpg"))
    with pytest.raises(HashbenchError, match=r"may be any of 2 files: .*a/1\.jpg, .*x/a/1\.jpg"):
        index.find(listed)


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "disk/1.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "data")
    assert ImageIndex(tmp_path / "data").find("images/1.jpg") == str(tmp_path / "data/images/1.jpg")


def test_images_are_located_for_each_list(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    lists = [listing("images/1.jpg", "images/2.jpg"), listing("images/2.jpg")]
    one, two = (str(tmp_path / f"images/{n}.jpg") for n in (1, 2))
    assert locate(lists, [tmp_path]) == [[one, two], [two]]


def test_the_first_root_with_images_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "lists/notes.txt", "other/1.jpg")
    assert locate([listing("1.jpg")], [tmp_path / "lists", tmp_path]) == [[str(tmp_path / "other/1.jpg")]]


def test_missing_images_are_one_error(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    lists = [listing("1.jpg", "2.jpg", file="a.txt"), listing("1.jpg", "3.jpg", "4.jpg", file="b.txt")]
    message = r"3 of 5 listed images are not below .*, the first is '2\.jpg' \(a\.txt, line 2\); add them"
    with pytest.raises(HashbenchError, match=message):
        locate(lists, [tmp_path])


def test_one_file_under_two_paths_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg")
    message = r"b\.txt, line 1: '1\.jpg' is .*images/1\.jpg, which is also listed as 'images/1\.jpg'"
    with pytest.raises(HashbenchError, match=message):
        locate([listing("images/1.jpg"), listing("1.jpg", file="b.txt")], [tmp_path])
