"""Datasets with splits that are given by list files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashbench.data.dataset import Dataset
from hashbench.data.list_files import write_list
from hashbench.data.list_splits import ColumnOrders, dataset_from_lists, find_lists, find_master
from hashbench.data.load import create_dataset
from hashbench.data.options import ListOptions
from hashbench.data.protocol import draw
from hashbench.errors import HashbenchError, UsageError

Write = Callable[[dict[str, str]], Path]

# Image i of 0 to 5, with classes of three.
LABELS = ["1 0 0", "0 1 0", "0 0 1", "1 1 0", "0 1 1", "1 0 1"]
IDS = ["0", "1", "2", "0 1", "1 2", "0 2"]
EXPECTED = {"train": [2, 3], "query": [0, 1], "database": [2, 3, 4, 5]}
ORDERS: ColumnOrders = {3: {"frequency": ("sky", "sea", "dog"), "alphabetical": ("dog", "sea", "sky")}}


def lines(*images: int, path: str = "images/{}.jpg", labels: list[str] = LABELS) -> str:
    return "".join(f"{path.format(image)} {labels[image]}".strip() + "\n" for image in images)


def names(*images: int) -> str:
    return lines(*images, labels=[""] * 6)


def only_labels(*images: int, labels: list[str] = LABELS) -> str:
    return "".join(f"{labels[image]} \n" for image in images)


PLAIN = {"train.txt": lines(2, 3), "test.txt": lines(0, 1), "database.txt": lines(2, 3, 4, 5)}
ALL_NAMES, ALL_LABELS = names(*range(6)), only_labels(*range(6))
SPLIT = json.dumps({"train": [2, 3], "query": [0, 1], "db": [2, 3, 4, 5]})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes lists into a folder next to that of the images, `data/images`."""
    (tmp_path / "data/images").mkdir(parents=True)
    for image in range(6):
        (tmp_path / f"data/images/{image}.jpg").touch()

    def write_(files: dict[str, str]) -> Path:
        folder = tmp_path / "lists"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    return write_


def load(folder: Path, orders: ColumnOrders | None = None, **options: Any) -> Dataset:
    return dataset_from_lists("toy", ListOptions(lists=folder, **options), [folder.parent / "data"], orders)


def images_of(dataset: Dataset) -> dict[str, list[int]]:
    """Return the numbers of the images by part, after checking their labels."""
    found = {}
    for part, images, labels in (
        ("train", dataset.train, dataset.train_labels),
        ("query", dataset.query.images, dataset.query.labels),
        ("database", dataset.database.images, dataset.database.labels),
    ):
        found[part] = [int(image_id.removesuffix(".jpg")) for image_id in images.ids]
        assert [" ".join(map(str, row)) for row in labels] == [LABELS[image] for image in found[part]]
        assert [Path(path).name for path in images.paths] == list(images.ids)  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(
            {name.replace("txt", "csv"): text.replace(" ", ",") for name, text in PLAIN.items()}, id="csv"
        ),
        pytest.param(
            {"train.txt": lines(2, 3), "query.txt": lines(0, 1), "db.txt": lines(2, 3, 4, 5)},
            id="other words",
        ),
        pytest.param(
            {
                "train_sett1.txt": lines(2, 3),
                "test_coco.txt": lines(0, 1),
                "database_sett1.txt": lines(2, 3, 4, 5),
            },
            id="tagged",
        ),
        pytest.param(
            {
                "train.txt": lines(2, 3),
                "test0.txt": lines(0),
                "test1.txt": lines(1),
                "database1.txt": lines(3, 4),
                "database0.txt": lines(2),
                "database2.txt": lines(5),
            },
            id="pieces",
        ),
        pytest.param(
            {
                "train.txt": lines(2, 3),
                "test_img.txt": names(0, 1),
                "test_label_onehot.txt": only_labels(0, 1),
                "test_label.txt": "not read",
                "database_img.txt": names(2, 3, 4, 5),
                "database_label.txt": only_labels(2, 3, 4, 5, labels=IDS),
            },
            id="images and labels apart",
        ),
        pytest.param(
            {"allannots.txt": lines(*range(6)), "hash_split_for_toy.json": SPLIT}, id="rows of a list"
        ),
        pytest.param(
            {"img.txt": ALL_NAMES, "targets.txt": ALL_LABELS, "split.json": SPLIT}, id="rows of two files"
        ),
        pytest.param({**PLAIN, "test_old.txt": "not read", "notes.txt": "not read"}, id="beside others"),
    ],
)
def test_each_form_of_published_lists_is_read(write: Write, files: dict[str, str]) -> None:
    dataset = load(write(files), classes=3)
    assert images_of(dataset) == EXPECTED
    assert dataset.class_names == ("0", "1", "2")
    assert (dataset.name, dataset.protocol, dataset.warnings) == ("toy", "lists", ())
    assert dataset.overlaps.train_database == 2


def test_more_than_nine_pieces_are_in_the_order_of_their_numbers(write: Write) -> None:
    pieces = {f"database{piece}.txt": lines(0, path=f"{piece}/{{}}.jpg") for piece in range(11)}
    found = find_lists(write(pieces))["database"]
    assert [source.file.name for source in found] == [f"database{piece}.txt" for piece in range(11)]


def test_ids_and_fingerprint_do_not_depend_on_where_the_images_were(write: Write, tmp_path: Path) -> None:
    (tmp_path / "data/images").rename(tmp_path / "data/val2014")
    made = []
    for prefix in ("", "./data/coco/", "/home/u/coco/"):
        moved = {name: text.replace("images/", f"{prefix}val2014/") for name, text in PLAIN.items()}
        made.append(load(write(moved)))
    assert len({dataset.fingerprint for dataset in made}) == 1
    assert {dataset.query.images.ids for dataset in made} == {("0.jpg", "1.jpg")}


def test_an_id_can_be_made_of_the_path(write: Write) -> None:
    folder = write(PLAIN)
    dataset = dataset_from_lists(
        "toy",
        ListOptions(lists=folder),
        [folder.parent],
        image_id=lambda path, file: path[7] + Path(file).suffix,
    )
    assert dataset.database.images.ids == ("2.jpg", "3.jpg", "4.jpg", "5.jpg")


def test_the_first_folder_with_lists_has_them_unless_one_is_named(write: Write, tmp_path: Path) -> None:
    folder = write(PLAIN)
    folders = [tmp_path / "none", tmp_path / "data", folder, tmp_path]
    assert images_of(dataset_from_lists("toy", ListOptions(), folders)) == EXPECTED
    (tmp_path / "mine").mkdir()
    for name, text in PLAIN.items():
        (tmp_path / "mine" / name).write_text(text)
    (tmp_path / "mine/test.txt").write_text(lines(1))
    dataset = dataset_from_lists("toy", ListOptions(lists=tmp_path / "mine"), folders)
    assert images_of(dataset) == {**EXPECTED, "query": [1]}


def test_written_lists_give_the_dataset_again(write: Write, tmp_path: Path) -> None:
    dataset = load(write(PLAIN))
    (tmp_path / "written").mkdir()
    for name, images, labels in (
        ("train", dataset.train, dataset.train_labels),
        ("test", dataset.query.images, dataset.query.labels),
        ("database", dataset.database.images, dataset.database.labels),
    ):
        write_list(tmp_path / f"written/{name}.txt", images.ids, labels, 3)
    assert load(tmp_path / "written").fingerprint == dataset.fingerprint


def test_training_images_are_drawn_from_the_database_if_asked(write: Write) -> None:
    folder = write({name: text for name, text in PLAIN.items() if name != "train.txt"})
    message = "lists for query and database, but none for train; to draw .*, pass --data train=N"
    with pytest.raises(HashbenchError, match=rf"toy: {folder} has {message}"):
        load(folder)
    for seed in (0, 3):
        dataset = load(folder, train=3, seed=seed)
        drawn = [[2, 3, 4, 5][row] for row in draw(4, [3], seed)[0]]
        assert images_of(dataset) == {**EXPECTED, "train": drawn}
        assert dataset.warnings == ("the lists have no training images; 3 are drawn from the database",)
    with pytest.raises(HashbenchError, match="the protocol draws 5 labelled images, and there are 4"):
        load(folder, train=5)


def test_missing_images_name_the_piece_and_make_another_split(write: Write) -> None:
    pieces = {"database0.txt": lines(2, 3, 4), "database1.txt": lines(5, 0) + "images/no.jpg 1 1 1\n"}
    folder = write({"train.txt": lines(2), "test.txt": lines(1), **pieces})
    with pytest.raises(
        HashbenchError, match=r"1 of 8 .*: 'images/no\.jpg' \(.*database1\.txt, line 3\)\nnext: add"
    ):
        load(folder)
    dataset = load(folder, missing="skip")
    assert images_of(dataset)["database"] == [2, 3, 4, 5, 0]
    assert dataset.warnings[0].startswith("1 of 8 listed images are not below")
    assert dataset.options["missing"] == "skip"


def test_rows_of_a_list_name_the_line_in_it(write: Write) -> None:
    folder = write({"allannots.txt": lines(*range(5)) + "images/no.jpg 1 1 1\n", "split.json": SPLIT})
    with pytest.raises(HashbenchError, match=r"'images/no\.jpg' \(.*allannots\.txt, line 6\)"):
        load(folder)


def test_how_to_decode_is_handed_on(write: Write) -> None:
    images = load(write(PLAIN), exif=True, truncated=True).database.images
    assert (images.exif, images.truncated) == (True, True)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {},
            r"has no lists\nexpected.*:\n├── train\.txt\n├── test\.txt .*\n(.*\n){2}next: .* --lists DIR$",
        ),
        ({"test.txt": lines(0)}, "has lists for query, but none for train and database; to draw training"),
        (
            {"train.txt": lines(0), "db.txt": lines(0)},
            "has lists for train and database, but none for query$",
        ),
        ({**PLAIN, "query.txt": lines(0)}, r"has query\.txt and test\.txt, which is ambiguous; keep"),
        ({**PLAIN, "test.csv": "0,1\n"}, r"has test\.csv and test\.txt, which is ambiguous"),
        ({"test_a.txt": "", "test_b.txt": ""}, r"has test_a\.txt and test_b\.txt, which is ambiguous"),
        (
            {"test0.txt": "", "test2.txt": "", "test10.txt": ""},
            r"has the pieces test0\.txt, test2\.txt, test10\.txt of a list; expected each piece from 0 to 10",
        ),
        ({"test_img.txt": ""}, r"test_img\.txt lists images, but test_label_onehot\.txt with their labels"),
        (
            {"split.json": SPLIT},
            r"split\.json has row indices of a list of all images, but there is no such list; add",
        ),
        (
            {"a_split.json": SPLIT, "b_split.json": SPLIT, "allannots.txt": lines(0, 1, 2)},
            r"has a_split\.json and b_split\.json, which is",
        ),
        (
            {"img.txt": ALL_NAMES, "split.json": SPLIT},
            r"split\.json has row indices of a list of all images, but there is no such list",
        ),
        (
            {**PLAIN, "test.txt": "images/0.jpg 1 0\n"},
            r"test\.txt, line 1: expected 3 labels, got 2 labels",
        ),
        (
            {"train0.txt": lines(0), "train1.txt": "images/0.jpg 1 0\n", "test.txt": "", "db.txt": ""},
            r"train1\.txt, line 1: expected 3 labels, got 2 labels",
        ),
    ],
)
def test_lists_that_do_not_make_a_split(write: Write, files: dict[str, str], message: str) -> None:
    with pytest.raises(HashbenchError, match=message):
        load(write(files))


def test_lists_are_found_only_where_they_are(tmp_path: Path) -> None:
    assert find_lists(tmp_path / "none") == {}
    assert find_master(tmp_path / "none") is None


def test_labels_are_brought_into_the_order_of_the_dataset(write: Write) -> None:
    folder = write(PLAIN)
    dataset = load(folder, ORDERS)
    assert dataset.class_names == ("sky", "sea", "dog")
    assert images_of(dataset) == EXPECTED
    for named in ({"columns": "alphabetical"}, {}):
        dataset = load(folder, ORDERS, **named)
        assert dataset.class_names == ("sky", "sea", "dog")
        assert dataset.query.labels.tolist() == [[0, 0, 1], [0, 1, 0]]  # image 0 has dog, image 1 sea
        assert dataset.train_labels.tolist() == [[1, 0, 0], [0, 1, 1]]
        write({"classes.txt": "dog\nsea\nsky\n"})  # says the same as the option


def test_names_beside_the_lists_are_the_classes_of_an_unknown_dataset(write: Write) -> None:
    ids = {name: lines(*images, labels=["0", "1", "2"] * 2) for name, images in zip(PLAIN, EXPECTED.values())}  # noqa: B905
    dataset = load(write({**ids, "classes.txt": "sky\nblue sea\ndog\n"}))  # tells how many ids there are
    assert dataset.class_names == ("sky", "blue sea", "dog")
    assert dataset.database.labels.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("classes", "options", "error", "message"),
    [
        ("dog\nsea\ncat\n", {}, HashbenchError, r"toy: classes\.txt does not match the classes .*: 'cat'$"),
        ("dog\nsea\nsea\n", {}, HashbenchError, r"classes\.txt, line 3: .* got 'sea'"),
        ("sky\nsea\n", {"classes": 3}, HashbenchError, r"of the lists: 2 names for 3 columns"),
        (
            "dog\nsea\nsky\n",
            {"columns": "frequency"},
            UsageError,
            r"columns=frequency: classes\.txt already gives the order",
        ),
        (
            None,
            {"columns": "alphabetic"},
            UsageError,
            "unknown order of 3 columns of toy 'alphabetic'; did you",
        ),
    ],
)
def test_columns_that_cannot_be_told(
    write: Write, classes: str | None, options: Any, error: type[HashbenchError], message: str
) -> None:
    folder = write(PLAIN | ({} if classes is None else {"classes.txt": classes}))
    with pytest.raises(error, match=message) as raised:
        load(folder, ORDERS, **options)
    assert type(raised.value) is error


def test_lists_of_another_number_of_classes_are_of_something_else(write: Write) -> None:
    orders: ColumnOrders = {2: {"usual": ("a", "b")}, 4: {"usual": ("a", "b", "c", "d")}}
    with pytest.raises(
        HashbenchError,
        match="toy: expected 2 or 4 classes, got lists with 3; for a subset, write",
    ):
        load(write(PLAIN), orders)
    with pytest.raises(HashbenchError, match=r"train\.txt, line 1: expected 2 labels, got 3 labels"):
        load(write(PLAIN), {2: orders[2]})


def test_leaks_and_unlabelled_images_are_counted(write: Write) -> None:
    bare = ["1 0 0", "0 0 0", "0 0 1", "0 0 0", "0 1 1", "1 0 1"]
    images = {"train.txt": (2, 3), "test.txt": (0, 1, 2), "database.txt": (2, 3, 4, 5)}
    folder = write({name: lines(*some, labels=bare) for name, some in images.items()})
    dataset = load(folder)
    assert dataset.overlaps.query_database == 1
    assert dataset.overlaps.query_train == 1
    assert any(warning.startswith("1 of 3 queries have no label") for warning in dataset.warnings)
    assert any(warning.startswith("1 of 4 database images have no label") for warning in dataset.warnings)
    dataset = load(folder, leaks="drop", unlabelled="drop")
    assert dataset.query.images.ids == ("0.jpg", "2.jpg")
    assert dataset.database.images.ids == ("4.jpg", "5.jpg")
    np.testing.assert_array_equal(dataset.database.labels, [[0, 1, 1], [1, 0, 1]])


def test_drawn_training_images_are_no_queries(write: Write) -> None:
    """Some published lists have all queries in the database."""
    folder = write({"test.txt": lines(0, 1), "database.txt": lines(0, 1, 2, 3, 4, 5)})
    for seed in range(5):
        dataset = load(folder, train=4, seed=seed)
        assert sorted(dataset.train.ids) == ["2.jpg", "3.jpg", "4.jpg", "5.jpg"]
        assert (dataset.overlaps.query_train, dataset.overlaps.query_database) == (0, 2)
        assert load(folder, train=4, seed=seed, leaks="drop").overlaps.query_database == 0
    with pytest.raises(HashbenchError, match="the protocol draws 5 labelled images, and there are 4"):
        load(folder, train=5)


@pytest.mark.parametrize("option", ["train", "query"])
def test_what_has_a_list_is_not_drawn(write: Write, option: str) -> None:
    with pytest.raises(UsageError, match=rf"--data {option}: .* has a list of them, so none can be drawn"):
        load(write(PLAIN), **{option: 1})


def test_a_list_of_all_images_is_split_as_asked(write: Write) -> None:
    folder = write({"allannots.txt": lines(0, 1, 2, 3, 4, 5)})
    with pytest.raises(HashbenchError, match=r"lists all images, .* pass --data query=N and --data train=N"):
        load(folder)
    dataset = load(folder, query=2, train=3)
    assert [len(part.labels) for part in dataset.parts().values()] == [3, 2, 4]
    assert dataset.overlaps.train_database == 3
    assert dataset.overlaps.query_database == 0
    assert "2 queries are drawn from a list of all images" in dataset.warnings[0]
    assert load(folder, query=2, train=3, seed=1).fingerprint != dataset.fingerprint


def test_lists_of_some_of_the_classes(write: Write) -> None:
    orders: ColumnOrders = {4: {"usual": ("cat", "dog", "owl", "hen"), "other": ("owl", "hen", "dog", "cat")}}
    dataset = load(write(PLAIN | {"classes.txt": "owl\nhen\ncat\n"}), orders)
    assert dataset.class_names == ("cat", "owl", "hen")
    plain = load(write(PLAIN))
    np.testing.assert_array_equal(dataset.query.labels, plain.query.labels[:, [2, 0, 1]])


def test_one_class_is_told_by_its_name(write: Write) -> None:
    texts = {name: re.sub(r"(\d\.jpg) (\d).*", r"\1 \2", text) for name, text in PLAIN.items()}
    dataset = load(write(texts | {"classes.txt": "cat\n"}))
    assert dataset.query.labels.shape == (2, 1)


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("train.txt", "Train.txt", "has lists for query and database, but none for train"),
        ("test.txt", "TEST.TXT", "has lists for train and database, but none for query"),
        ("database.txt", "Database_coco.csv", "has lists for train and query, but none for database"),
    ],
)
def test_lists_in_another_letter_case_are_named(write: Write, name: str, other: str, message: str) -> None:
    folder = write({other if file == name else file: text for file, text in PLAIN.items()})
    not_read = f"{folder / other} is not read, since its name is not in lower case ({other.lower()})"
    with pytest.raises(HashbenchError, match=rf"{message}.*; {re.escape(not_read)}"):
        load(folder)
    assert load(write(PLAIN)).warnings == (not_read,)


def test_no_list_but_one_in_another_letter_case(write: Write) -> None:
    folder = write({"AllAnnots.txt": ALL_LABELS, "Classes.txt": "cat\n", "Notes.txt": ""})
    with pytest.raises(
        HashbenchError, match=r"has no lists\n.*AllAnnots\.txt is not read, .*\n.*Classes\.txt is not"
    ):
        load(folder)
    with pytest.raises(HashbenchError, match="(?!.*Notes)"):
        load(folder)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_no_folder_of_lists(text: str) -> None:
    with pytest.raises(UsageError, match="lists='.*': expected a folder, got an empty text"):
        create_dataset("folder", lists=text)
