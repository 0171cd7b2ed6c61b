"""The index of image files, and the search for listed images."""

from __future__ import annotations

import posixpath
from pathlib import Path

import numpy as np
import pytest

from hashbench.data.image_index import ImageIndex, locate
from hashbench.data.list_files import ImageList
from hashbench.errors import HashbenchError, MissingDataError


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def listing(*paths: str, file: str = "list.txt") -> ImageList:
    return ImageList(Path(file), paths, np.arange(len(paths), dtype=np.uint8)[:, None])


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("a/1.jpg", "a/1.jpg"),
        ("x/a/1.jpg", "x/a/1.jpg"),
        ("top.jpg", "top.jpg"),
        ("4.jpg", "4.jpg"),
        ("/home/someone/data/b/2.jpg", "deep/b/2.jpg"),
        ("images/2.jpg", "deep/b/2.jpg"),
        ("2.jpg", "deep/b/2.jpg"),
        ("../data/top.jpg", "top.jpg"),
        ("b/3.jpg", None),
    ],
)
def test_listed_paths_are_found(tmp_path: Path, listed: str, found: str | None) -> None:
    files = ("a/1.jpg", "x/a/1.jpg", "deep/b/2.jpg", "top.jpg", "4.jpg", "a/4.jpg")
    index = ImageIndex(touch(tmp_path, *files))
    assert index.find(listed) == (None if found is None else str(tmp_path / found))
    assert (listed in index) == (found is not None)


@pytest.mark.parametrize("listed", ["1.jpg", "images/1.jpg", "y/a/1.jpg"])
def test_a_path_that_fits_several_files_is_an_error(tmp_path: Path, listed: str) -> None:
    index = ImageIndex(touch(tmp_path, "a/1.jpg", "x/a/1.jpg"))
    message = rf"'{listed}' matches 2 files: .*a/1\.jpg, .*x/a/1\.jpg; keep one of them, or write"
    with pytest.raises(HashbenchError, match=message):
        index.find(listed)


def test_the_last_folder_decides_between_files_of_one_name(tmp_path: Path) -> None:
    index = ImageIndex(touch(tmp_path, "images/train2014/1.jpg", "images/val2014/1.jpg"))
    assert index.find("/home/u/val2014/1.jpg") == str(tmp_path / "images/val2014/1.jpg")


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "disk/1.jpg")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "data")
    assert ImageIndex(tmp_path / "data").find("images/1.jpg") == str(tmp_path / "data/images/1.jpg")


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert ImageIndex(tmp_path / "none").find("1.jpg") is None


def test_a_key_says_what_of_a_path_counts(tmp_path: Path) -> None:
    def number(path: str) -> str:
        return posixpath.basename(path).rpartition("_")[2]

    index = ImageIndex(touch(tmp_path, "val/COCO_val2014_12.jpg"), number)
    assert index.find("val2017/12.jpg") == str(tmp_path / "val/COCO_val2014_12.jpg")


def test_images_are_located_for_each_list(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg", "images/2.jpg")
    lists = [listing("images/1.jpg", "images/2.jpg"), listing("images/2.jpg")]
    one, two = (str(tmp_path / f"images/{n}.jpg") for n in (1, 2))
    assert locate(lists, [tmp_path]) == ([(lists[0], [one, two]), (lists[1], [two])], [])


def test_the_first_root_with_images_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "lists/notes.txt", "other/1.jpg", "other/more/2.jpg")
    ((_, files),), warnings = locate([listing("1.jpg")], [tmp_path / "lists", tmp_path / "other", tmp_path])
    assert files == [str(tmp_path / "other/1.jpg")]
    assert not warnings


def test_missing_images_are_one_error(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    lists = [
        listing("1.jpg", "2.jpg", file="a.txt"),
        listing("x", "1.jpg", "3.jpg", "4.jpg", "5.jpg", file="b.txt").rows(np.array([4, 1, 2, 3])),
    ]
    message = (
        rf"4 of 6 listed images are not below {tmp_path}: '2\.jpg' \(a\.txt, line 2\), "
        r"'5\.jpg' \(b\.txt, line 5\), '3\.jpg' \(b\.txt, line 3\), …\n"
        r"next: add them there, in any folder\nor leave them out with --missing skip"
    )
    with pytest.raises(HashbenchError, match=message):
        locate(lists, [tmp_path])


def test_missing_images_are_skipped_if_asked(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "3.jpg")
    located, warnings = locate([listing("1.jpg", "2.jpg", "3.jpg")], [tmp_path], missing="skip")
    ((entry, files),) = located
    assert entry.paths == ("1.jpg", "3.jpg")
    assert entry.labels.tolist() == [[0], [2]]
    assert entry.where(1) == "list.txt, line 3"
    assert files == [str(tmp_path / name) for name in entry.paths]
    assert warnings == [
        f"1 of 3 listed images are not below {tmp_path} and are left out, which is a different split: "
        "'2.jpg' (list.txt, line 2)"
    ]
    with pytest.raises(HashbenchError, match="2 of 2 listed images are not below"):
        locate([listing("8.jpg", "9.jpg")], [tmp_path], missing="skip")


def test_one_file_under_two_paths_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/1.jpg")
    message = r"b\.txt, line 1: '1\.jpg' is .*images/1\.jpg, which is also listed as 'images/1\.jpg'; use"
    with pytest.raises(HashbenchError, match=message):
        locate([listing("images/1.jpg"), listing("1.jpg", file="b.txt")], [tmp_path])


def test_hidden_folders_and_links_up_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "data/images/1.jpg", "data/.unpack/1.jpg", "data/images/.2.jpg")
    (tmp_path / "data/images/back").symlink_to(tmp_path)
    index = ImageIndex(tmp_path / "data")
    assert index.find("1.jpg") == str(tmp_path / "data/images/1.jpg")
    assert index.find(".2.jpg") is None


def test_a_line_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    message = r"a\.txt, line 3: '1\.jpg' is already listed \(a\.txt, line 1\)"
    with pytest.raises(HashbenchError, match=message):
        locate([listing("1.jpg", "2.jpg", "1.jpg", file="a.txt")], [tmp_path])


def test_no_image_at_all_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="1 of 1 listed images are not below"):
        locate([listing("1.jpg")], [tmp_path], missing="skip")


LISTED = ("cat0.jpg", "Cat1.jpg", "caf\u00e9.jpg", "GRU\u0308N.jpg", "gone.jpg", "there.jpg")
STORED = ("cat0.JPG", "a/cat1.jpg", "cafe\u0301.jpg", "gr\u00fcn.jpg", "there.jpg")
NAMED = (
    "; 3 of them differ in letter case: found 'cat0.JPG' for 'cat0.jpg'; names are case-sensitive, so rename "
    "the files or change the list; 1 of them differ in Unicode normal form: found 'cafe\\u0301.jpg' for "
    "'caf\\xe9.jpg'; rename the files or change the list"
)


def test_names_that_only_look_the_same_are_named(tmp_path: Path) -> None:
    root = touch(tmp_path, *STORED)
    with pytest.raises(HashbenchError) as raised:
        locate([listing(*LISTED)], [root])
    assert str(raised.value).startswith(
        f"5 of 6 listed images are not below {root}: 'cat0.jpg' (list.txt, line 1)"
    )
    assert f"{NAMED}\nnext: add them there, in any folder\nor leave" in str(raised.value)
    with pytest.raises(MissingDataError) as raised_of_all:
        locate([listing(*LISTED[:-1])], [root])
    assert str(raised_of_all.value).endswith(f"{NAMED}\nnext: add them there, in any folder")
    ((_, files),), (warning,) = locate([listing(*LISTED)], [root], missing="skip")
    assert files == [str(root / "there.jpg")]
    assert warning.endswith(f"'gone.jpg' (list.txt, line 5){NAMED}")


def test_only_names_of_images_that_are_missing_are_compared(tmp_path: Path) -> None:
    root = touch(tmp_path, "cat0.jpg", "cat0.JPG", "x.jpg")
    assert locate([listing("cat0.jpg", "x.jpg")], [root])[1] == []
