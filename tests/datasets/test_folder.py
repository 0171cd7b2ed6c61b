"""Your own images: class folders, a labels.csv, and list files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trees import own_folder, photo

from hashbench import load_dataset
from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError, UsageError
from hashbench_datasets.folder import Folder, read_labels


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write folders of three classes with 12 images each."""
    own_folder(tmp_path / "data", monkeypatch)
    return tmp_path / "data"


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.query.images), len(dataset.train), len(dataset.database.images)


# class folders


def test_each_folder_is_a_class(root: Path) -> None:
    dataset = load_dataset("folder", None, root)
    assert dataset.class_names == ("cat", "dog", "hen")
    assert counts(dataset) == (3, 33, 33)
    assert dataset.query.labels.tolist() == [0, 1, 2]
    for part in (dataset.query, dataset.database):
        for name, label in zip(part.images.ids, part.labels, strict=True):
            assert name.startswith(f"{dataset.class_names[label]}/")
    assert dataset.train.ids == dataset.database.images.ids
    assert dataset.overlaps.query_database == 0


@pytest.mark.parametrize(
    ("query_ratio", "train_ratio", "queries", "train"),
    [(0.25, 1, 9, 27), (0.5, 0.5, 18, 9), (0.01, 0.001, 3, 1), (0.99, 1, 33, 3)],
)
def test_ratios(root: Path, query_ratio: float, train_ratio: float, queries: int, train: int) -> None:
    dataset = load_dataset("folder", "split", root, query_ratio=query_ratio, train_ratio=train_ratio)
    assert counts(dataset) == (queries, train, 36 - queries)
    assert set(Counter(dataset.query.labels.tolist()).values()) == {queries // 3}
    assert set(dataset.train.ids) <= set(dataset.database.images.ids)


@pytest.mark.parametrize("ratio", [0, 1, -0.5])
def test_a_ratio_that_leaves_nothing(root: Path, ratio: float) -> None:
    with pytest.raises(UsageError, match="query_ratio"):
        load_dataset("folder", "split", root, query_ratio=ratio)


def test_queries_are_a_share_of_each_class(root: Path) -> None:
    for number in range(28):
        photo(root / f"cat/more/{number}.jpg", 0, number, (4, 4))
    photo(root / "owl/1.jpg", 0, 0)
    dataset = load_dataset("folder", None, root)
    # The only owl stays in the database: as a query it would have nothing to find.
    assert np.bincount(dataset.query.labels).tolist() == [4, 1, 1]
    assert np.bincount(dataset.database.labels).tolist() == [36, 11, 11, 1]
    assert "cat/more/3.jpg" in {*dataset.query.images.ids, *dataset.database.images.ids}


def test_what_is_no_class(root: Path) -> None:
    before = load_dataset("folder", None, root).fingerprint
    photo(root / ".trash/1.jpg", 0, 0)
    for name in ("stray.jpg", "another.png"):
        photo(root / name, 0, 0)
    (root / "empty").mkdir()
    (root / "notes").mkdir()
    (root / "notes/read.me").touch()
    dataset = load_dataset("folder", None, root)
    assert dataset.fingerprint == before
    assert dataset.warnings == (
        f"2 images are left out, since they are not in a class folder, such as {root}/another.png",
    )


# folders that are no classes


def wrong_classes(root: Path, *files: str, error: type[HashbenchError] = UsageError) -> str:
    """Return the error message for a folder with these images."""
    for number, file in enumerate(files):
        photo(root / file, 0, number, (4, 4))
    with pytest.raises(error) as raised:
        load_dataset("folder", None, root)
    return str(raised.value)


@pytest.mark.parametrize("deeper", ["archive", "archive/images of pets", "train"])
@pytest.mark.parametrize("more", [(), ("__MACOSX/archive/cat/1.jpg", "@eaDir/1.jpg"), ("loose.jpg",)])
def test_the_classes_lie_deeper(tmp_path: Path, deeper: str, more: tuple[str, ...]) -> None:
    files = [f"{deeper}/{name}" for name in ("cat/1.jpg", "cat/2.jpg", "dog/a/1.jpg", "dog/b/2.jpg")]
    assert wrong_classes(tmp_path, *files, *more) == (
        f"{tmp_path} has only one class, {deeper.partition('/')[0]!r}; did you mean --data-root "
        f"{tmp_path / deeper}?"
    )
    assert load_dataset("folder", None, tmp_path / deeper).class_names == ("cat", "dog")


def test_a_split_lies_deeper(tmp_path: Path) -> None:
    files = (
        "archive/Train/cat/1.jpg",
        "archive/Train/dog/1.jpg",
        "archive/Val/cat/2.jpg",
        "archive/Val/dog/2.jpg",
    )
    assert wrong_classes(tmp_path, *files).endswith(
        f"did you mean --data-root {tmp_path}/archive --protocol folders?"
    )
    with pytest.raises(
        UsageError, match=rf"no folders of a split; did you mean --data-root {tmp_path}/archive\?"
    ):
        load_dataset("folder", "folders", tmp_path)
    assert len(load_dataset("folder", "folders", tmp_path / "archive").query.images) == 2


@pytest.mark.parametrize(
    "files", [("cat/1.jpg", "cat/2.jpg"), ("cat/a/1.jpg", "cat/a/2.jpg"), ("cat/a/1.jpg", "cat/2.jpg")]
)
def test_a_single_class_is_refused(tmp_path: Path, files: tuple[str, ...]) -> None:
    message = wrong_classes(tmp_path, *files, error=HashbenchError)
    assert message == (
        f"{tmp_path} has only one class, 'cat', so any code would have mAP 1; expected one folder per class, "
        f"or for images without labels, --data-root {tmp_path / 'cat'}"
    )


def test_a_single_class_in_the_folders_of_a_split_is_refused(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "query", "database")):
        for name in ("cat", "dog"):
            photo(tmp_path / part / "archive" / name / f"{number}.jpg", 0, number)
    message = "the folders of the split in .* have only one class, 'archive', .* directly in train$"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("folder", "folders", tmp_path)


def test_a_single_class_in_a_table_is_refused(tmp_path: Path) -> None:
    root = write_labels(tmp_path, "path,label\n" + "".join(f"{path},cat\n" for path in IMAGES))
    with pytest.raises(
        HashbenchError, match="^folder: all queries and all .* have the class 'cat', the only"
    ):
        load_dataset("folder", None, root)


@pytest.mark.parametrize("names", [
    "train val", "Train Valid", "TRAINING VALIDATION", "train test", "training testing", "query gallery",
    "train val test", "train query database", "train test other",
])  # fmt: skip
@pytest.mark.parametrize("inside", ["cat/", ""])
def test_the_parts_of_a_split_are_no_classes(tmp_path: Path, names: str, inside: str) -> None:
    message = wrong_classes(
        tmp_path, *(f"{name}/{inside}{n}.jpg" for name in names.split() for n in range(2))
    )
    parts = ", ".join(sorted({*names.split()} - {"other"}))
    assert "has the folders of a split instead of classes; pass --protocol folders, which reads" in message
    assert f"reads {parts}; if these are classes, rename them" in message


def test_one_part_of_a_split_beside_classes(tmp_path: Path) -> None:
    files = ("cat/1.jpg", "dog/1.jpg", "train/cat/1.jpg", "train/dog/1.jpg")
    assert "pass --protocol folders, which reads train;" in wrong_classes(tmp_path, *files)


def test_a_class_may_have_the_name_of_a_part(tmp_path: Path) -> None:
    for number, name in enumerate(("bus/1.jpg", "bus/2.jpg", "train/1.jpg", "train/steam/2.jpg")):
        photo(tmp_path / name, 0, number)
    assert load_dataset("folder", None, tmp_path).class_names == ("bus", "train")


def test_folders_with_the_same_subfolders_are_no_classes(tmp_path: Path) -> None:
    names = [f"{year}/{kind}/{n}.jpg" for year in (2019, 2020) for kind in ("cat", "dog") for n in range(2)]
    message = wrong_classes(tmp_path, *names)
    assert f"all 2 folders of {tmp_path} have the same subfolders (cat, dog), which may be" in message
    assert f"pass --data-root {tmp_path}/2019; for a split," in message
    assert "pass --protocol folders; if the folders are classes, list their images in labels.csv" in message
    photo(tmp_path / "2021/hen/1.jpg", 0, 9)
    assert load_dataset("folder", None, tmp_path).class_names == ("2019", "2020", "2021")


def test_one_subfolder_of_the_same_name_in_each_class(tmp_path: Path) -> None:
    for number in range(4):
        photo(tmp_path / f"n{number % 2}/images/{number}.jpg", 0, number)
    assert load_dataset("folder", None, tmp_path).class_names == ("n0", "n1")


def test_too_few_images(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        photo(tmp_path / name / "1.jpg", 0, 0)
    with pytest.raises(
        HashbenchError, match="^folder@split: too few images; a class needs two images to have a"
    ):
        load_dataset("folder", None, tmp_path)


@pytest.mark.parametrize("name", ["none", "."])
def test_nothing_is_there(tmp_path: Path, name: str) -> None:
    message = {
        "none": rf"the folder {tmp_path}/none does not exist; pass your images as --data-root",
        ".": rf"{tmp_path} has no images; expected one folder per class, such as {tmp_path}/cat/1\.jpg",
    }[name]
    with pytest.raises(HashbenchError, match=message):
        load_dataset("folder", None, tmp_path / name)


# the name of the collection


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("data", "data"),
        ("a  b", "a  b"),
        ("é\x1b[1m", r"é\x1b[1m"),
        ("x" * 99, "x" * 60),
        (b"\xff", r"\udcff"),
    ],
)
def test_a_collection_is_named_like_its_folder(root: Path, folder: str | bytes, name: str) -> None:
    moved = root.rename(root.parent / os.fsdecode(folder))
    (root.parent / "link").symlink_to(moved)
    for given in (moved, root.parent / "link", moved / "cat/.."):
        assert load_dataset("folder", None, given).options["name"] == name


def test_the_root_of_all_folders_has_a_name() -> None:
    assert Folder().recorded_options(Path("/")).name == "root"


@pytest.mark.parametrize("protocol", ["split", "folders", "lists"])
def test_a_collection_keeps_its_given_name(tmp_path: Path, protocol: str) -> None:
    for number, part in enumerate(("train", "query", "database")):
        for label, name in enumerate(("cat", "dog")):
            photo(tmp_path / part / name / f"{number}.jpg", label, number)
        lines = [f"{part}/{name}/{number}.jpg {label}\n" for label, name in enumerate(("cat", "dog"))]
        (tmp_path / f"{part}.txt").write_text("".join(lines))
    root = tmp_path / "train" if protocol == "split" else tmp_path
    options = {"classes": 2, "label_format": "id"} if protocol == "lists" else {}
    if protocol == "split":
        photo(root / "cat/9.jpg", 0, 9)
    unnamed = load_dataset("folder", protocol, root, **options)
    dataset = load_dataset("folder", protocol, root, name=" My pets ", **options)
    assert unnamed.options["name"] == root.name
    assert dataset.options == {**unnamed.options, "name": "My pets"}
    assert dataset.fingerprint == unnamed.fingerprint


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\nb", "\x1b[2J", "a\u202eb", 2024, ["a"]])
def test_a_name_that_cannot_be_shown(root: Path, name: object) -> None:
    message = (
        r"^option of folder name=.*: expected a text of 1 to 60 printable characters; for a number, --data"
    )
    with pytest.raises(UsageError, match=message):
        load_dataset("folder", None, root, name=name)


# labels.csv

IMAGES = [f"pictures/{number}.png" for number in range(20)]


def write_labels(root: Path, text: str) -> Path:
    for number, path in enumerate(IMAGES):
        photo(root / path, 0, number, (4, 4))
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("text", [
    "path,label\na.jpg,cat\nb\\c.jpg,dog|cat\nd.jpg,\ne.jpg,owl | dog\n",
    '\ufeffpath, label\r\n"a.jpg",cat\r\n\r\nb/c.jpg,cat|dog|\r\nd.jpg,""\r\ne.jpg,"dog|owl"\r\n',
    "path,cat,dog,owl\na.jpg,1,0,0\nb/c.jpg,1,1,0\nd.jpg,0,0,0\ne.jpg, 0 , 1 , 1\n",
])  # fmt: skip
def test_both_forms_of_labels(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_bytes(text.encode())
    listed, classes = read_labels(tmp_path / "labels.csv")
    assert classes == ("cat", "dog", "owl")
    assert listed.paths == ("a.jpg", "b/c.jpg", "d.jpg", "e.jpg")
    assert listed.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 1]]
    assert listed.labels.dtype == np.uint8
    assert listed.where(3) == f"{tmp_path}/labels.csv, line {6 if text.startswith(chr(0xFEFF)) else 5}"


def test_classes_keep_the_order_of_their_columns(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("path,owl,cat\na.jpg,1,0\n")
    listed, classes = read_labels(tmp_path / "labels.csv")
    assert (classes, listed.labels.tolist()) == (("owl", "cat"), [[1, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ", line 1: expected `path,label` or `path,<class>,<class>,…` and then images, got '' and 0"),
        ("path,label\n", ", line 1: expected .*, got 'path,label' and 0 lines"),
        ("a.jpg,cat\nb.jpg,dog\n", ", line 1: expected .*, got 'a.jpg,cat' and 1 lines"),
        ("path\na.jpg\n", ", line 1: expected .*, got 'path' and 1 lines"),
        ("path,cat,cat\na.jpg,0,1\n", ", line 1: expected .*, got 'path,cat,cat' and 1 lines"),
        ("path,label\na.jpg,cat\nb.jpg\n", ", line 3: expected 2 values, got 1; correct"),
        ("path,label\na.jpg,cat,dog\n", ", line 2: expected 2 values, got 3; correct"),
        (
            "path,label\n\na.jpg,cat\n\n,dog\n",
            ", line 5: expected a path that no other line has, got ''; correct",
        ),
        ("path,label\na.jpg,cat\na.jpg,dog\n", ", line 3: expected a path .*, got 'a.jpg'; correct"),
        ("path,cat,dog\na.jpg,0,1\nb.jpg,1,2\n", ", line 3: expected 0 or 1 per class, got '2'; correct"),
        ("path,cat,dog\na.jpg,,1\n", ", line 2: expected 0 or 1 per class, got ''; correct"),
    ],
)
def test_lines_of_another_kind(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(HashbenchError, match=re.escape(str(file)) + message):
        load_dataset("folder", None, tmp_path)


@pytest.mark.parametrize("content", [b"path,label\n\xff.jpg,cat\n", b'path,label\n"a.jpg,' + b"x" * 200_000])
def test_a_file_that_is_no_table(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(HashbenchError, match=rf"^cannot read {tmp_path}/labels\.csv: "):
        load_dataset("folder", None, tmp_path)


def test_one_label_an_image(tmp_path: Path) -> None:
    lines = [f"{path},{'cat' if number < 15 else 'dog'}\n" for number, path in enumerate(IMAGES)]
    root = write_labels(tmp_path, "path,label\n" + "".join(lines))
    dataset = load_dataset("folder", None, root, query_ratio=0.2)
    assert dataset.query.labels.sum(axis=0).tolist() == [3, 1]
    assert dataset.database.labels.sum(axis=0).tolist() == [12, 4]
    assert set(dataset.query.images.ids) < set(IMAGES)
    assert dataset.query.images[0].size == (4, 4)


def test_several_labels_an_image(tmp_path: Path) -> None:
    lines = [f"{path},{('cat', 'cat|dog', 'owl', '')[number % 4]}\n" for number, path in enumerate(IMAGES)]
    root = write_labels(tmp_path, "path,label\n" + "".join(lines))
    dataset = load_dataset("folder", None, root, query_ratio=0.2, train_ratio=0.5)
    assert counts(dataset) == (4, 8, 16)
    labels = {"cat": [1, 0, 0], "cat|dog": [1, 1, 0], "owl": [0, 0, 1], "": [0, 0, 0]}
    for part in (dataset.query, dataset.database):
        for path, row in zip(part.images.ids, part.labels.tolist(), strict=True):
            assert row == labels[("cat", "cat|dog", "owl", "")[IMAGES.index(path) % 4]]
    bare = [int((~part.labels.any(axis=1)).sum()) for part in (dataset.query, dataset.database)]
    assert sum(bare) == 5
    kept = load_dataset("folder", None, root, query_ratio=0.2, unlabelled="drop")
    assert counts(kept)[::2] == (4 - bare[0], 16 - bare[1])


def test_images_of_the_table_are_missing(tmp_path: Path) -> None:
    lines = [f"{path},{'cat' if number < 15 else 'dog'}\n" for number, path in enumerate(IMAGES)]
    root = write_labels(tmp_path, "path,label\n" + "".join(lines))
    (root / IMAGES[3]).unlink()
    message = rf"1 of 20 listed images are not below {root}: 'pictures/3\.png' \({root}/labels\.csv, line 5\)"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("folder", None, root)
    dataset = load_dataset("folder", None, root, missing="skip")
    assert counts(dataset) == (2, 17, 17)
    assert "left out" in dataset.warnings[0]


@pytest.mark.parametrize("name", ["Labels.csv", "LABELS.CSV"])
def test_a_table_in_another_letter_case_is_named(root: Path, name: str) -> None:
    before = load_dataset("folder", None, root)
    text = "path,label\n" + "".join(f"{path},{path[:3]}\n" for path in before.database.images.ids)
    (root / name).write_text(text)
    not_read = f"{root}/{name} is not read, since its name is not in lower case (labels.csv)"
    with pytest.raises(HashbenchError, match=f"^folder: {re.escape(not_read)}; rename it, or remove it"):
        load_dataset("folder", None, root)
    (root / "labels.csv").write_text(text)
    assert load_dataset("folder", None, root).warnings == (not_read,)


def test_images_of_the_table_in_another_letter_case_are_named(tmp_path: Path) -> None:
    lines = [f"{path},{'cat' if number < 15 else 'dog'}\n" for number, path in enumerate(IMAGES)]
    root = write_labels(tmp_path, "path,label\n" + "".join(lines))
    (root / IMAGES[3]).rename(root / "pictures/3.PNG")
    with pytest.raises(
        HashbenchError, match=r"1 of them differ in letter case: found '3\.PNG' for '3\.png'; names"
    ):
        load_dataset("folder", None, root)


# given splits


@pytest.mark.parametrize("queries", ["query", "test"])
def test_folders_decide(tmp_path: Path, queries: str) -> None:
    names = ("train/dog/1.jpg", f"{queries}/owl/2.jpg", "database/cat/a/3.jpg", "database/owl/4.jpg")
    for number, name in enumerate(names):
        photo(tmp_path / name, 0, number)
    photo(tmp_path / "other/emu/1.jpg", 0, 0)
    dataset = load_dataset("folder", "folders", tmp_path)
    assert dataset.class_names == ("cat", "dog", "owl")
    assert (dataset.train.ids, dataset.train_labels.tolist()) == ((names[0],), [1])
    assert (dataset.query.images.ids, dataset.query.labels.tolist()) == ((names[1],), [2])
    assert (dataset.database.images.ids, dataset.database.labels.tolist()) == (names[2:], [0, 2])


def test_a_folder_of_a_split_is_missing(root: Path) -> None:
    (root / "cat").rename(root / "x")
    (root / "train").mkdir()
    (root / "x").rename(root / "train/cat")
    message = (
        rf"{root} has no folder query \(or queries, test, testing, val, valid, validation\) with images in "
        rf"one folder per class; expected files such as {root}/query/cat/1\.jpg"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("folder", "folders", root)


def test_training_images_are_the_database_where_there_is_none(tmp_path: Path) -> None:
    for number, name in enumerate(("Train/cat/1.jpg", "Train/dog/2.jpg", "VAL/dog/3.jpg", "VAL/cat/4.jpg")):
        photo(tmp_path / name, 0, number)
    dataset = load_dataset("folder", "folders", tmp_path)
    assert dataset.train.ids == dataset.database.images.ids == ("Train/cat/1.jpg", "Train/dog/2.jpg")
    assert dataset.query.images.ids == ("VAL/cat/4.jpg", "VAL/dog/3.jpg")
    nothing = "there is no database folder, so the training images are also the database"
    assert dataset.warnings == (nothing,)
    photo(tmp_path / "test/cat/5.jpg", 0, 5)
    photo(tmp_path / "stray.jpg", 0, 6)
    dataset = load_dataset("folder", "folders", tmp_path)
    assert dataset.query.images.ids == ("test/cat/5.jpg",)
    assert dataset.warnings == (
        f"1 images are left out, since they are not in a class folder, such as {tmp_path}/stray.jpg",
        "the folder VAL is ignored, since test has the queries",
        nothing,
    )


@pytest.mark.parametrize("named", [False, True])
def test_lists(root: Path, named: bool) -> None:
    (root / "train.txt").write_text("hen/0.jpg 1 0 0\ncat/1.png 0 0 1\n")
    (root / "test.txt").write_text("dog/3.jpg 0 1 1\n")
    (root / "database.txt").write_text("hen/0.jpg 1 0 0\ncat/1.png 0 0 1\ndog/0.jpg 0 1 0\n")
    if named:
        (root / "classes.txt").write_text("hen\ndog\ncat\n")
    dataset = load_dataset("folder", "lists", root)
    assert dataset.class_names == (("hen", "dog", "cat") if named else ("0", "1", "2"))
    assert dataset.train.ids == ("hen/0.jpg", "cat/1.png")
    assert dataset.query.labels.tolist() == [[0, 1, 1]]
    assert counts(dataset) == (1, 2, 3)


def test_lists_of_class_ids_need_the_number_of_classes(root: Path) -> None:
    for part, line in (("train", "hen/0.jpg 2"), ("test", "dog/3.jpg 1"), ("database", "hen/0.jpg 2")):
        (root / f"{part}.txt").write_text(f"{line}\n")
    with pytest.raises(
        HashbenchError, match=r"train\.txt has one value per line, .* label_format=id and --data classes=N"
    ):
        load_dataset("folder", "lists", root)
    by_option = load_dataset("folder", "lists", root, classes=3)
    (root / "classes.txt").write_text("cat\ndog\nhen\n")
    by_file = load_dataset("folder", "lists", root)
    assert by_file.query.labels.tolist() == by_option.query.labels.tolist() == [[0, 1, 0]]
    assert by_file.class_names == ("cat", "dog", "hen")


def test_ids_do_not_depend_on_how_paths_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        photo(tmp_path / f"own/set/{number}.jpg", number, number)
    for part, row in (("train", 0), ("test", 1), ("database", 2)):
        (tmp_path / f"own/set/{part}.txt").write_text(f"{row}.jpg 1 0\n")
    made = [
        load_dataset("folder", None, root, lists=Path(lists))
        for root, lists in (("own", "own/set"), ("own", tmp_path / "own/set"), (tmp_path / "own", "own/set"))
    ]
    assert {dataset.query.images.ids for dataset in made} == {("set/1.jpg",)}


@pytest.mark.parametrize("name", [b"cat/\xff.png", b"\xff/1.png"])
def test_names_that_are_not_utf_8_are_refused(root: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(next(root.rglob("*.png")).read_bytes())
    with pytest.raises(
        HashbenchError, match=r"has the id '.*\\udcff.*', which is not valid UTF-8; rename it$"
    ):
        load_dataset("folder", root=root)


def test_warnings_can_be_recorded(root: Path) -> None:
    (next(root.rglob("*.png")).parent / os.fsdecode(b"\xff\n.txt")).touch()
    (warning,) = load_dataset("folder", root=root).warnings
    assert warning.endswith(r"/\udcff\n.txt")


def test_a_link_to_itself_is_no_class(root: Path) -> None:
    before = load_dataset("folder", root=root).fingerprint
    (root / "loop").symlink_to("loop")
    assert load_dataset("folder", root=root).fingerprint == before


# training images without labels


def write_unlabelled_training(root: Path, *, database: bool = True) -> Path:
    parts = {"query": 2, **({"database": 4} if database else {})}
    for number in range(6):
        photo(root / f"Train/{number}.jpg", number % 2, number)
    for part, count in parts.items():
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                photo(root / part / name / f"{number}.jpg", label, 10 * len(part) + number)
    return root


def test_training_images_need_no_class_folders(tmp_path: Path, cli: Callable[..., Any]) -> None:
    root = write_unlabelled_training(tmp_path / "mine")
    (root / "Train/notes.txt").touch()
    dataset = load_dataset("folder", "folders", root)
    assert dataset.train.ids == tuple(f"Train/{number}.jpg" for number in range(6))
    assert dataset.train_labels.shape == (6, 0)
    assert dataset.class_names == ("cat", "dog")
    assert counts(dataset) == (4, 6, 8)
    assert dataset.warnings == (
        "1 files are left out, since they do not have the suffix of an image, such as "
        f"{root}/Train/notes.txt",
    )
    where = ("folder", "--protocol", "folders", "--data-root", root)
    assert cli("data", "verify", *where).code == 0
    assert cli("data", "export-lists", *where, "--output", tmp_path / "lists").code == 0
    assert (tmp_path / "lists/train.txt").read_text().splitlines()[0] == "Train/0.jpg 0 0"
    back = load_dataset("folder", None, root, lists=tmp_path / "lists")
    assert back.fingerprint == dataset.fingerprint


def test_a_run_on_unlabelled_training_images_is_verified(tmp_path: Path, cli: Callable[..., Any]) -> None:
    root = write_unlabelled_training(tmp_path / "mine")
    settings = ("backbone=test_resnet", "pretrained=false", "images.size=16", "epochs=1", "batch_size=4")
    where = ("--dataset", "folder", "--protocol", "folders", "--data-root", root)
    run = ("run", "--method", "wch", *where, "--bits", 16, *(f"--set={setting}" for setting in settings))
    result = cli(*run)
    assert result.code == 0, result.err
    (path,) = (tmp_path / "results").rglob("codes.npz")
    with np.load(path) as stored:
        assert (stored["train_labels"].shape, stored["train_ids"].tolist()[0]) == ((6, 0), "Train/0.jpg")
    result = cli("results", "verify")
    assert result.code == 0, result.out + result.err
    validated = ("--set=selection=best-val", "--set=selection.validation=2")
    result = cli(*run, *validated)
    assert result.code == 2
    assert "the training images, which have no labels; use --set selection=last" in result.err


@pytest.mark.parametrize("flat", ["Train", "gallery"])
def test_a_database_needs_labels(tmp_path: Path, flat: str) -> None:
    root = write_unlabelled_training(tmp_path, database=False)
    if flat == "gallery":
        (root / "Train").rename(root / "gallery")
        photo(root / "train/cat/1.jpg", 0, 0)
    message = (
        rf"^the images of {root}/{flat} are not in class folders, so they have no labels and cannot be the "
        rf"database; expected one folder per class, such as {root}/database/cat/1\.jpg$"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("folder", "folders", root)


def test_images_of_the_table_without_a_label_may_only_be_trained_on(tmp_path: Path) -> None:
    labels = ("cat", "", "dog", "", "")
    lines = [f"{path},{labels[number % 5]}\n" for number, path in enumerate(IMAGES)]
    root = write_labels(tmp_path, "path,label\n" + "".join(lines))
    advice = "12 images have no label; to use them for training only, pass --data train_only_unlabelled=true"
    assert advice in load_dataset("folder", None, root).warnings
    dataset = load_dataset(
        "folder", None, root, train_only_unlabelled=True, query_ratio=0.25, train_ratio=0.5
    )
    assert counts(dataset) == (2, 3 + 12, 6)
    assert dataset.warnings == ()
    bare = {path for number, path in enumerate(IMAGES) if not labels[number % 5]}
    assert bare < {*dataset.train.ids}
    assert not bare & {*dataset.query.images.ids, *dataset.database.images.ids}
    assert dataset.query.labels.sum(axis=0).tolist() == [1, 1]
    assert dataset.train_labels.sum() == 3
