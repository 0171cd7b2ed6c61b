"""Reading and writing list files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hashbench.data.list_files import (
    read_list,
    read_names,
    read_pair,
    read_row_indices,
    short_ids,
    write_list,
)
from hashbench.errors import HashbenchError

DIGITS = "9" * 5000  # more than Python reads


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_list_is_read(tmp_path: Path) -> None:
    file = write(tmp_path / "test.txt", "images/0484_15.jpg 1 0 1\nimages/0461_17.jpg 0 0 0\n")
    for classes in (3, None):
        entry = read_list(file, classes)
        assert entry.file == file
        assert entry.paths == ("images/0484_15.jpg", "images/0461_17.jpg")
        assert entry.labels.dtype == np.uint8
        assert entry.labels.tolist() == [[1, 0, 1], [0, 0, 0]]


def test_rows_keep_the_order_and_know_their_lines(tmp_path: Path) -> None:
    entry = read_list(write(tmp_path / "a.txt", "a 1 0\nb 0 1\nc 1 1\n"), 2)
    assert entry.where(1) == f"{tmp_path}/a.txt, line 2"
    some = entry.rows(np.array([2, 0]))
    assert some.paths == ("c", "a")
    assert some.labels.tolist() == [[1, 1], [1, 0]]
    assert [some.where(row) for row in (0, 1)] == [f"{tmp_path}/a.txt, line {line}" for line in (3, 1)]
    assert some.rows(np.array([1])).where(0) == f"{tmp_path}/a.txt, line 1"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    labels=st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=5),
    newline=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
    trailing=st.sampled_from(["", " ", "\t "]),
    blank=st.sampled_from([" ", "\t", "  ", ",", ", "]),
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
    name = "list.csv" if "," in blank else "list.txt"
    entry = read_list(write(tmp_path / name, mark + newline.join(lines) + end), 4)
    assert entry.paths == tuple(f"a/{i}.jpg" for i in range(len(labels)))
    assert entry.labels.tolist() == labels


def test_a_path_with_a_blank_needs_a_csv_or_a_file_of_its_own(tmp_path: Path) -> None:
    assert read_list(write(tmp_path / "a.csv", "my dog.jpg,1,0\n"), 2).paths == ("my dog.jpg",)
    names, labels = write(tmp_path / "a_img.txt", "my dog.jpg\n"), write(tmp_path / "a_label.txt", "1 0\n")
    assert read_pair(names, labels, 2).paths == ("my dog.jpg",)
    with pytest.raises(HashbenchError, match="line 1: expected 2 labels, got 3 labels"):
        read_list(write(tmp_path / "a.txt", "my dog.jpg 1 0\n"), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg 1 0\nb.jpg 1\n", r"list\.txt, line 2: expected 2 labels, got 1 labels"),
        ("a.jpg 1 0 0\n", "line 1: expected 2 labels, got 3 labels"),
        ("a.jpg 1 0\nb.jpg 1 0 0\nc.jpg 1\n", "line 2: expected 2 labels, got 3 labels"),
        ("a.jpg 1 0\nb.jpg", "line 2: expected a path and labels, .*, got only a path"),
        ("a.jpg 1 0\n\nb.jpg 1 0", "line 2: expected a path and labels, got an empty line"),
        ("", "line 1: expected a path and labels, got an empty line"),
        ("a.jpg 1 0\nb.jpg 0 3\n", "line 2: expected labels 0 or 1, got '3'; .* label_format=counts"),
        ("a.jpg 1 0\nb.jpg 0 -1130179\n", "line 2: expected labels 0 or 1, got '-1130179'; correct the line"),
        ("a.jpg 10 1\nb.jpg 1 0\n", "line 1: expected labels 0 or 1, got '10'"),
        ("a.jpg 1 0\nb.jpg 101\n", "line 2: expected 2 labels, got 1 labels"),
        ("a.jpg 1.0 0\n", r"expected labels 0 or 1, got '1\.0'; correct"),
        ("a.jpg ² 0\n", "expected labels 0 or 1, got '²'; correct"),
        (b"\xff\xfe\x00", r"cannot read the list .*list\.txt: .*; save it as UTF-8"),
    ],
)
def test_lines_of_another_kind_are_errors(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(HashbenchError, match=message):
        read_list(write(tmp_path / "list.txt", text), 2)


@pytest.mark.parametrize("line", ["b.jpg,,10", "b.jpg,1", "b.jpg,1,"])
def test_a_csv_that_lacks_a_value_is_an_error(tmp_path: Path, line: str) -> None:
    with pytest.raises(HashbenchError, match="line 2: expected 2 labels, got 1 labels"):
        read_list(write(tmp_path / "list.csv", f"a.jpg,1,0\n{line}\n"), 2)


def test_a_list_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HashbenchError, match=r"cannot read the list .*none\.txt: No such file"):
        read_list(tmp_path / "none.txt", 2)


def test_what_torch_or_pickle_saved_is_never_loaded(tmp_path: Path) -> None:
    file = tmp_path / "0_1_train.txt"
    torch.save([1, 2], file)
    with pytest.raises(HashbenchError, match=r"0_1_train\.txt is not a text file: it was saved by torch"):
        read_list(file, 2)
    torch.save([1, 2], file, _use_new_zipfile_serialization=False)
    with pytest.raises(HashbenchError, match="saved by torch"):
        read_list(file, 2)
    with pytest.raises(HashbenchError, match="saved by torch"):
        read_list(write(file, pickle.dumps([1])), 2)


@pytest.mark.parametrize(
    ("text", "classes", "label_format", "labels"),
    [
        ("a 0 22\nb 3 0\n", None, "counts", [[0, 1], [1, 0]]),
        ("a 0 2\nb 3 0\n", 2, "counts", [[0, 1], [1, 0]]),
        ("a 2\nb 0\n", 3, "auto", [[0, 0, 1], [1, 0, 0]]),
        ("a 1\nb 0\n", 2, "id", [[0, 1], [1, 0]]),
        ("a 1\nb 0\n", None, "multihot", [[1], [0]]),
        ("a 1\nb 0\n", 1, "multihot", [[1], [0]]),
        ("a 0 2\nb 1\nc 2 1 0 \n", 3, "ids", [[1, 0, 1], [0, 1, 0], [1, 1, 1]]),
    ],
)
def test_label_formats(
    tmp_path: Path, text: str, classes: int | None, label_format: Any, labels: list[list[int]]
) -> None:
    entry = read_list(write(tmp_path / "list.txt", text), classes, label_format)
    assert entry.labels.tolist() == labels
    assert entry.labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("text", "classes", "label_format", "message"),
    [
        ("a 1\nb 0\n", None, "auto", "has one value per line, .*label_format=id and --data classes=N, or"),
        ("a 1\nb 0\n", 1, "auto", "has one value per line, .*label_format=multihot"),
        ("a 1\nb 0\n", None, "id", r"list\.txt has class ids, .*; pass --data classes=N"),
        ("a 1\nb 3\n", 3, "id", "line 2: expected a class id from 0 to 2, got '3'"),
        ("a 1\nb -1\n", 3, "auto", "line 2: expected a class id from 0 to 2, got '-1'"),
        ("a 1\nb 0 1\n", 3, "auto", "line 2: expected one class id, got 2 values; .* label_format=ids"),
        ("a 0 1\nb 0 3\n", 3, "ids", "line 2: expected a class id from 0 to 2, got '3'"),
        ("a 0 1 0\n", 3, "ids", "line 1: expected each class id once, got '0' twice; .*=multihot"),
        ("a 0 1\nb 0 x\n", 2, "counts", "line 2: expected counts, got 'x'"),
        ("a 0 1\nb 0 -1130179\n", 2, "counts", "line 2: expected counts, got '-1130179'"),
        ("a 0 1\nb 2\n", 2, "counts", "line 2: expected 2 labels, got 1 labels"),
        (f"a 0 1\nb 2 {DIGITS}\n", 2, "counts", "line 2: expected counts, got '9{149}…; correct the line"),
        (f"a 0 1\nb 1 {DIGITS}\n", 2, "multihot", "line 2: expected labels 0 or 1, got '9{149}…; correct"),
        (f"a 1\nb {DIGITS}\n", 2, "id", "line 2: expected a class id from 0 to 1, got '9{149}…; correct"),
        (f"a 1\nb 0 {DIGITS}\n", 2, "ids", "line 2: expected a class id from 0 to 1, got '9{149}…; correct"),
        ("a 0 1\n", 10**9, "multihot", "line 1: expected 1000000000 labels, got 2 labels"),
    ],
)
def test_labels_that_do_not_fit_their_format(
    tmp_path: Path, text: str, classes: int | None, label_format: Any, message: str
) -> None:
    with pytest.raises(HashbenchError, match=message):
        read_list(write(tmp_path / "list.txt", text), classes, label_format)


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("test_label_onehot.txt", "1 0 1 \n0 0 0 \n", [[1, 0, 1], [0, 0, 0]]),
        ("test_label.txt", "0 2 \n1 \n", [[1, 0, 1], [0, 1, 0]]),  # any number of ids
        ("test_label.txt", "\n0 1 2\n", [[0, 0, 0], [1, 1, 1]]),  # none is a number too
        ("test_label.txt", "2\n1\n", [[0, 0, 1], [0, 1, 0]]),
        ("test_label.txt", "1 0 1 \n0 0 0 \n", [[1, 0, 1], [0, 0, 0]]),  # 0 or 1 for each class
        ("test_label.csv", "1,0,1\n0,0,0\n", [[1, 0, 1], [0, 0, 0]]),
    ],
)
def test_labels_in_a_file_of_their_own(tmp_path: Path, name: str, text: str, labels: list[list[int]]) -> None:
    names = write(tmp_path / "test_img.txt", "im1.jpg \nsub\\im2.jpg\n")
    entry = read_pair(names, write(tmp_path / name, text), 3)
    assert entry.file == names
    assert entry.paths == ("im1.jpg", "sub/im2.jpg")
    assert entry.labels.tolist() == labels


@pytest.mark.parametrize(
    ("names", "name", "labels", "message"),
    [
        (
            "a\nb\n",
            "l.txt",
            "1 0\n",
            r"img\.txt has 2 lines, but .*l\.txt has 1; both need one line",
        ),
        ("a\n\nb\n", "l.txt", "1 0\n0 1\n1 1\n", r"img\.txt, line 2: expected a path, got an empty line"),
        ("a\nb\n", "l.txt", "1 0\n1\n", r"l\.txt, line 2: expected 2 labels, got 1 labels"),
        ("a\n", "l.txt", "", r"l\.txt, line 1: expected 1 labels, got 0 labels"),
        ("a\nb\n", "a_label.txt", "1 0 0\n1 0\n", r"line 1: expected each class id once, got '0' twice"),
    ],
)
def test_pairs_that_do_not_fit(tmp_path: Path, names: str, name: str, labels: str, message: str) -> None:
    classes = None if not labels or name == "l.txt" else 3
    with pytest.raises(HashbenchError, match=message):
        read_pair(write(tmp_path / "img.txt", names), write(tmp_path / name, labels), classes)


def test_names_are_read(tmp_path: Path) -> None:
    assert read_names(write(tmp_path / "n.txt", "\ufeffsky \r\nblue sea\r\n")) == ("sky", "blue sea")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\nb\na\n", "line 3: .* got 'a'"),
        ("a\n\nb", "line 2: .* got an empty line"),
        ("", "line 1"),
        (f"{DIGITS}\n{DIGITS}\n", "line 2: .* got '9{149}…; correct"),
    ],
)
def test_names_are_there_once(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(HashbenchError, match=rf"n\.txt, {found}"):
        read_names(write(tmp_path / "n.txt", text))


@pytest.mark.parametrize(("query", "database"), [("query", "database"), ("test", "db")])
def test_row_indices(tmp_path: Path, query: str, database: str) -> None:
    file = write(tmp_path / "split.json", json.dumps({"train": [4, 0], query: [1], database: [2, 3, 4]}))
    rows = read_row_indices(file, 5)
    assert {part: indices.tolist() for part, indices in rows.items()} == {
        "train": [4, 0],
        "query": [1],
        "database": [2, 3, 4],
    }
    with pytest.raises(HashbenchError, match=r"split\.json: expected row indices from 0 to 3 .*, got 0 to 4"):
        read_row_indices(file, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object"),
        ("[1, 2]", "expected a JSON object"),
        ("3", "expected a JSON object"),
        ('{"train": [0], "query": [0]}', "expected a JSON object with lists of row indices for train, query"),
        ('{"train": [0], "query": [[0]], "db": [0]}', "expected a list of row indices for query"),
        ('{"train": [0], "query": [0], "db": [0.5]}', "expected a list of row indices for database"),
        ('{"train": [0], "query": [0, [1]], "db": [0]}', "expected a list of row indices for query"),
        ('{"train": [0], "query": [true], "db": [0]}', "expected a list of row indices for query"),
        ('{"train": [0], "query": [0], "db": [1e5]}', "expected a list of row indices for database"),
        ('{"train": ' + "[" * 2000, r"expected a JSON object .* \(expected at most 40 levels of lists"),
        ('{"train": [Infinity]}', r"expected a JSON object .* \(expected finite numbers, got Infinity\)"),
        ('{"train": [' + "9" * 5000, r"expected a JSON object .* \(expected a number of at most 20 digits"),
        (
            '{"train": [99999999999999999999], "query": [0], "db": [0]}',
            "expected row .* for train, got 99999999999999",
        ),
        (
            '{"train": [0], "query": [-1], "db": [0]}',
            "expected row .* 0 to 4 for query, got -1 to -1",
        ),
    ],
)
def test_row_indices_of_another_kind(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(HashbenchError, match=rf"split\.json: {message}"):
        read_row_indices(write(tmp_path / "split.json", text), 5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(labels=st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=1, max_size=6))
def test_a_list_that_was_written_is_read_again(tmp_path: Path, labels: list[list[int]]) -> None:
    paths = [f"b/ü{row}.jpg" for row in range(len(labels))]
    write_list(tmp_path / "list.txt", paths, np.array(labels, np.uint8), 3)
    entry = read_list(tmp_path / "list.txt", 3)
    assert entry.paths == tuple(paths)
    assert entry.labels.tolist() == labels
    assert [file.name for file in tmp_path.iterdir()] == ["list.txt"]


def test_class_ids_are_written_as_multihot_rows(tmp_path: Path) -> None:
    write_list(tmp_path / "list.txt", ["a", "b"], np.array([2, 0]), 3)
    assert (tmp_path / "list.txt").read_bytes() == b"a 0 0 1\nb 1 0 0\n"


def test_what_no_list_can_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(
        HashbenchError, match="'my dog.jpg' has a space, which list files do not allow; rename it"
    ):
        write_list(tmp_path / "list.txt", ["a", "my dog.jpg"], np.ones((2, 1), np.uint8), 1)
    with pytest.raises(HashbenchError, match=r"list\.txt cannot be written: .*No such file"):
        write_list(tmp_path / "no/list.txt", ["a"], np.ones((1, 1), np.uint8), 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prefix", ["", "data/coco/", "/home/u/coco/", "../coco/"])
def test_ids_are_the_same_wherever_the_images_were(prefix: str) -> None:
    paths = [["val2014/1.jpg"], ["train2014/2.jpg", "val2014/1.jpg"]]
    assert short_ids([[prefix + path for path in part] for part in paths]) == paths


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        ([["images/01.jpg", "images/02.jpg"]], [["01.jpg", "02.jpg"]]),  # 0 is shared, but is no folder
        ([["a1/1.jpg"], ["a2/1.jpg"]], [["a1/1.jpg"], ["a2/1.jpg"]]),
        ([["a/1.jpg", "1.jpg"]], [["a/1.jpg", "1.jpg"]]),
        ([["/1.jpg", "/2.jpg"]], [["1.jpg", "2.jpg"]]),
        ([["a/b/1.jpg"]], [["1.jpg"]]),
    ],
)
def test_only_folders_that_all_share_are_taken_off(paths: list[list[str]], ids: list[list[str]]) -> None:
    assert short_ids(paths) == ids
