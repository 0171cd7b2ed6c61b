"""NUS-WIDE: the official label files, the drawn splits, and list files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trees import nuswide_
from numpy.typing import NDArray

from hashbench import load_dataset
from hashbench.data.list_files import ImageList
from hashbench.errors import HashbenchError
from hashbench_datasets import nuswide
from hashbench_datasets.nuswide import (
    CONCEPTS,
    FREQUENT,
    KNOWN_LABELS,
    draw_split,
    read_column,
    read_official,
)

# How many images each of the most frequent concepts has, in the order of FREQUENT.
FREQUENCIES = (
    *(74_190, 54_087, 51_577, 35_264, 33_887, 22_561, 17_835, 15_051, 14_345, 13_392, 11_307, 9_524),
    *(8_605, 8_418, 7_875, 6_327, 6_099, 5_404, 5_352, 5_239, 5_099),
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small copy in the official layout."""
    nuswide_(tmp_path / "data", monkeypatch)
    return tmp_path / "data"


# the official files


def test_the_concepts() -> None:
    assert len(CONCEPTS) == 81
    assert list(CONCEPTS) == sorted(set(CONCEPTS))
    assert len(set(FREQUENT)) == 21
    assert set(FREQUENT) < set(CONCEPTS)
    assert all(labels <= set(FREQUENT) for labels in KNOWN_LABELS.values())


def write_official(
    folder: Path, labels: dict[str, set[str]], *, listed: Sequence[str] | None = None
) -> tuple[Path, Path]:
    """Write label files of these images, and a list of the same or other images; return list and labels."""
    (folder / "ImageList").mkdir(parents=True)
    (folder / "Groundtruth/AllLabels").mkdir(parents=True)
    (folder / "ImageList/Imagelist.txt").write_text("".join(f"{path}\n" for path in listed or labels))
    for concept in CONCEPTS:
        text = "".join(f"{int(concept in row)}\n" for row in labels.values())
        (folder / f"Groundtruth/AllLabels/Labels_{concept}.txt").write_text(text)
    return folder / "ImageList/Imagelist.txt", folder / "Groundtruth/AllLabels"


@pytest.mark.parametrize("count", [10, 21, 81])
def test_rows_are_joined_by_folder_and_file(tmp_path: Path, count: int) -> None:
    concepts = CONCEPTS if count == 81 else FREQUENT[:count]
    labels = KNOWN_LABELS | {"a/1_1.jpg": {"zebra"}, "b/1_2.jpg": {"sky", "zebra"}, "b/2_3.jpg": set()}
    order = ("b/2_3.jpg", *KNOWN_LABELS, "b/1_2.jpg", "a/1_1.jpg")
    one = write_official(tmp_path / "one", labels)
    other = write_official(
        tmp_path / "other",
        {path: labels[path] for path in order},
        listed=[path.replace("/", "\\") for path in order],
    )
    for files, paths in ((one, tuple(labels)), (other, order)):
        listed = read_official(*files, concepts)
        assert listed.paths == paths
        found = [{concepts[at] for at in np.flatnonzero(row)} for row in listed.labels]
        assert found == [labels[path] & set(concepts) for path in paths]


@pytest.mark.parametrize("count", [10, 21, 81])
def test_labels_of_another_row_order_are_refused(tmp_path: Path, count: int) -> None:
    labels = {"a/1_1.jpg": {"moon"}, **KNOWN_LABELS}
    files = write_official(tmp_path, labels, listed=[*KNOWN_LABELS, "a/1_1.jpg"])
    shown = {"sky", "water", "grass", "buildings", "reflection"} & set(
        CONCEPTS if count == 81 else FREQUENT[:count]
    )
    message = (
        rf"AllLabels does not match .*Imagelist\.txt: expected barge/0021_2229209970\.jpg \(line 1\) to be "
        rf"{', '.join(sorted(shown))}, got {'moon' if count == 81 else 'nothing'}; get both from the same"
    )
    with pytest.raises(HashbenchError, match=message):
        read_official(*files, CONCEPTS if count == 81 else FREQUENT[:count])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n1\n-1130179\n0\n", r", line 3: expected 0 or 1, got '-1130179'; get the file again"),
        ("0\n1\n2\n0\n", r", line 3: expected 0 or 1, got '2'"),
        ("0\n1\n10\n0\n", r", line 3: expected 0 or 1, got '10'"),
        ("0\n1\nx\n01\n", r", line 3: expected 0 or 1, got 'x'"),
        ("0\n1\n1\n", ": expected 4 lines as in the image list, got 3; get both"),
        ("", ": expected 4 lines as in the image list, got 0"),
        (None, r" cannot be read: No such file or directory"),
    ],
)
def test_a_damaged_label_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "Labels_lake.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(HashbenchError, match=re.escape(str(file)) + message):
        read_column(file, 4)


@pytest.mark.parametrize("text", ["0\n1\n1\n", "0\r\n1\r\n1", "0 \n1 \n1 \n\n"])
def test_how_a_label_file_was_saved_does_not_matter(tmp_path: Path, text: str) -> None:
    (tmp_path / "Labels_lake.txt").write_bytes(text.encode())
    assert read_column(tmp_path / "Labels_lake.txt", 3).tolist() == [0, 1, 1]


def test_a_missing_label_file_is_named(root: Path) -> None:
    file = root / "nuswide/Groundtruth/AllLabels/Labels_sky.txt"
    file.unlink()
    with pytest.raises(HashbenchError, match=rf"^{file} cannot be read: No such file"):
        load_dataset("nuswide", "21", root)


# where things are


@pytest.mark.parametrize("stored", ["images", "../pictures/flat", "."])
def test_images_may_be_in_one_folder_anywhere(root: Path, stored: str) -> None:
    before = load_dataset("nuswide", "21", root)
    shown = np.asarray(before.train[7])
    flickr = root / "nuswide/Flickr"
    folder = root / "nuswide" / stored
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(flickr.rglob("*.jpg")):
        path.rename(folder / path.name)
    shutil.rmtree(flickr)
    dataset = load_dataset("nuswide", "21", root)
    assert dataset.fingerprint == before.fingerprint
    np.testing.assert_array_equal(dataset.train[7], shown)


@pytest.mark.parametrize("layout", ["NUS-WIDE", ".", "AllLabels"])
def test_the_official_files_may_be_in_other_folders(root: Path, layout: str) -> None:
    before = load_dataset("nuswide", "10", root).fingerprint
    folder = root / "nuswide"
    if layout == "AllLabels":
        (folder / "Groundtruth/AllLabels").rename(folder / "AllLabels")
        (folder / "ImageList/Imagelist.txt").rename(folder / "ImageList.txt")
    elif layout == ".":
        for path in list(folder.iterdir()):
            path.rename(root / path.name)
    else:
        folder.rename(root / layout)
        folder.mkdir()
        (folder / "notes.txt").touch()
    assert load_dataset("nuswide", "10", root).fingerprint == before


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("ImageList", "NUS-WIDE/Groundtruth"),
        ("ImageList/ImageList", "Groundtruth/Groundtruth"),
        ("../downloads/nus/ImageList", "../downloads/nus/Groundtruth"),
        ("../NUS/ImageList", "../more/labels/Groundtruth"),
    ],
)
def test_official_files_that_lie_deeper_are_found(root: Path, images: str, labels: str) -> None:
    before = load_dataset("nuswide", "10", root)
    folder = root / "nuswide"
    for name, new in (("ImageList", images), ("Groundtruth", labels)):
        (folder / name).rename(root / "moved")
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (root / "moved").rename(folder / new)
    dataset = load_dataset("nuswide", "10", root)
    assert (dataset.fingerprint, dataset.options) == (before.fingerprint, before.options)


def test_lists_that_lie_deeper_are_named(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree(folder="nuswide/data/nuswide_21")
    before = load_dataset("nuswide", "lists", root, lists=root / "nuswide/data/nuswide_21").fingerprint
    with pytest.raises(HashbenchError) as raised:
        load_dataset("nuswide", "lists", root)
    assert str(raised.value).startswith(f"nuswide: {root}/nuswide has no lists\nexpected")
    assert str(raised.value).endswith(
        f"\nnext: pass their folder with --lists {root}/nuswide/data/nuswide_21"
    )
    assert before == load_dataset("nuswide", "lists", root / "nuswide/data").fingerprint


def test_missing_images_are_an_error_or_left_out(root: Path) -> None:
    whole = load_dataset("nuswide", "21", root)
    for name in ("actor/0000_2124494179.jpg", "zebra_fish/0021_2124494200.jpg"):
        (root / "nuswide/Flickr" / name).unlink()
    those = (
        rf"2 of 126 listed images are not below {root}/nuswide: 'actor/0000_2124494179\.jpg' "
        rf"\({root}/nuswide/ImageList/Imagelist\.txt, line 1\), "
        r"'zebra_fish/0021_2124494200\.jpg' \(.*, line 22\)"
    )
    with pytest.raises(HashbenchError, match=those):
        load_dataset("nuswide", "21", root)
    dataset = load_dataset("nuswide", "21", root, missing="skip")
    assert [len(part) for part in (dataset.query.images, dataset.train, dataset.database.images)] == [
        21,
        42,
        103,
    ]
    assert re.match(those, dataset.warnings[0].replace(" and are left out, which is a different split", ""))
    assert dataset.warnings[1:] == (
        "1 photographs are included twice with different labels: actor/0124_2124494303.jpg and "
        "abbey/0001_2124494303.jpg",
        "database has 103 images, not 105",
    )
    assert dataset.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ("Groundtruth", r"^nuswide: no Groundtruth/AllLabels in {root}, nor up to two levels deeper$"),
        (
            "ImageList",
            r"^nuswide: no ImageList/Imagelist\.txt for {root}/nuswide/Groundtruth/AllLabels in {root}",
        ),
    ],
)
def test_half_of_the_official_files(root: Path, absent: str, message: str) -> None:
    shutil.rmtree(root / "nuswide" / absent)
    with pytest.raises(HashbenchError, match="(?m)" + message.format(root=root)):
        load_dataset("nuswide", "21", root)


@pytest.mark.parametrize("with_list", [True, False])
def test_the_labels_of_the_halves_are_not_used(root: Path, with_list: bool) -> None:
    folder = root / "nuswide"
    (folder / "Groundtruth/AllLabels").rename(folder / "Groundtruth/TrainTestLabels")
    if not with_list:
        shutil.rmtree(folder / "ImageList")
    message = (
        r"TrainTestLabels cannot replace it, since line 78,372 of its Labels_lake_Train\.txt is broken\)"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("nuswide", "81", root)


@pytest.mark.parametrize("protocol", ["21", "lists"])
def test_how_to_get_it(tmp_path: Path, protocol: str) -> None:
    with pytest.raises(HashbenchError) as raised:
        load_dataset("nuswide", protocol, tmp_path / "none")
    lines = str(raised.value).splitlines()
    missing = {"21": "Groundtruth/AllLabels", "lists": "lists"}[protocol]
    assert lines[0] == f"nuswide: no {missing} in {tmp_path}/none, nor up to two levels deeper"
    assert "  ├── Groundtruth/AllLabels/Labels_<concept>.txt" in lines
    assert "get the images: send the agreement form of" in lines
    chosen = "" if protocol == "21" else " --protocol lists"
    assert lines[-1] == f"then check it: hashbench data verify nuswide{chosen} --data-root {tmp_path}/none"
    assert max(map(len, lines[1:-1])) <= 100


# the draws


@pytest.mark.parametrize("protocol", ["21", "10", "81"])
def test_photographs_that_are_there_twice_are_never_drawn(root: Path, protocol: str) -> None:
    twice = {"actor/0124_2124494303.jpg", "abbey/0001_2124494303.jpg"}
    for seed in range(5):
        dataset = load_dataset("nuswide", protocol, root, seed=seed)
        if protocol != "10":  # of whose images they are not
            assert twice < set(dataset.database.images.ids)
        assert not twice & {*dataset.train.ids, *dataset.query.images.ids}


def test_of_81_concepts_all_but_the_double_ones_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuswide, "DRAWN_OF_81", (5, 4))
    paths = ["a/1_7.jpg", *(f"b/{number}_{number + 10}.jpg" for number in range(9)), "c/2_7.jpg"]
    images = ImageList(Path("list.txt"), tuple(paths), np.ones((11, 81), np.uint8))
    train, query, rest = draw_split(images.paths, images.labels, "81", seed=3)
    assert sorted([*train, *query]) == list(range(1, 10))
    assert (len(train), len(query), rest.tolist()) == (5, 4, [0, 10])


def table(rows: int, frequencies: Sequence[int]) -> NDArray[np.uint8]:
    """Return labels with the given number of images per class and at least one label per image."""
    random = np.random.RandomState(0)
    first = np.array(frequencies) * rows // sum(frequencies)
    first[0] += rows - first.sum()
    labels = np.zeros((rows, len(frequencies)), np.uint8)
    labels[np.arange(rows), random.permutation(np.repeat(np.arange(len(first)), first))] = 1
    for column, more in enumerate(np.array(frequencies) - first):
        labels[random.permutation(np.flatnonzero(labels[:, column] == 0))[:more], column] = 1
    return labels


@pytest.mark.parametrize(
    ("protocol", "rows", "digest"),
    [
        ("21", 195_834, "33e872105a35a73db47c85b7b9441536340cec5193dbc7033fef41951229c443"),
        ("10", 186_577, "5c3632592a0854f3e30c05360f4007c1d101dd241afcb3be55a9184fe44d614b"),
        ("81", 209_347, "31662d1e64efb87692371d3d5bad52f68b95e91d4aba3410555de0e6aac2c0fd"),
    ],
)
def test_draws_at_full_size(protocol: str, rows: int, digest: str) -> None:
    if protocol == "81":
        labels = np.ones((rows, 1), np.uint8)  # of no meaning for this draw
    else:
        labels = table(rows, FREQUENCIES[: int(protocol)])
        assert labels.sum(axis=0).tolist() == list(FREQUENCIES[: int(protocol)])
    images = ImageList(Path("list.txt"), tuple(f"a/{row:06d}_{row}.jpg" for row in range(rows)), labels)
    train, query, rest = draw_split(images.paths, images.labels, protocol, seed=0)
    expected = nuswide.NUSWide.protocols[protocol]
    assert (len(query), len(train), len(train) + len(rest)) == (
        expected.query,
        expected.train,
        expected.database,
    )
    np.testing.assert_array_equal(np.sort(np.concatenate([train, query, rest])), np.arange(rows))
    if protocol != "81":
        quota = {"21": 100, "10": 500}[protocol]
        assert labels[train].sum(axis=0).min() >= 500
        assert labels[query].sum(axis=0).min() >= quota
    rows_drawn = np.concatenate([train, query]).astype("<i8").tobytes()
    assert hashlib.sha256(rows_drawn).hexdigest() == digest


# lists


@pytest.mark.parametrize("folder", ["nuswide", "nuswide_21", "."])
def test_lists(nuswide_tree: Callable[..., Path], folder: str) -> None:
    dataset = load_dataset("nuswide", "lists", nuswide_tree(folder=folder))
    assert [len(part) for part in (dataset.query.images, dataset.train, dataset.database.images)] == [
        21,
        42,
        84,
    ]
    assert tuple(dataset.class_names) == FREQUENT
    assert dataset.query.images.ids[2] == "0002_1544502942.jpg"
    assert dataset.query.labels.shape == (21, 21)
    assert np.flatnonzero(dataset.query.labels[2]).tolist() == [2, 4]
    assert dataset.overlaps.train_database == 42
    assert dataset.warnings == ()
    assert dataset.database.images[0].size == (40, 32)


@pytest.mark.parametrize(
    ("stored", "listed"),
    [
        ("Flickr/actor", "actor"),
        ("Flickr/actor", "images"),
        ("images", "/home/someone/data/nuswide/images"),
        ("images", "./data/nuswide_21/images"),
        (".", "images"),
        ("../elsewhere", "images"),
    ],
)
def test_listed_images_may_be_in_other_folders(
    nuswide_tree: Callable[..., Path], stored: str, listed: str
) -> None:
    root = nuswide_tree(stored=stored, listed=listed)
    dataset = load_dataset("nuswide", "lists", root)
    assert dataset.train.ids[3] == "0024_1544502964.jpg"
    assert dataset.train[3].size == (40, 32)


def test_columns_in_alphabetical_order(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree()
    before = load_dataset("nuswide", "lists", root)
    order = [FREQUENT.index(concept) for concept in sorted(FREQUENT)]
    for name in ("train", "test", "database"):
        file = root / f"nuswide/{name}.txt"
        rows = [line.split() for line in file.read_text().splitlines()]
        text = "".join(f"{path} {' '.join(labels[at] for at in order)}\n" for path, *labels in rows)
        file.write_text(text)
    dataset = load_dataset("nuswide", "lists", root, columns="alphabetical")
    assert dataset.fingerprint == before.fingerprint
    assert load_dataset("nuswide", "lists", root).fingerprint != before.fingerprint


def test_rows_of_one_list(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree()
    before = load_dataset("nuswide", "lists", root)
    folder = root / "nuswide"
    text = (folder / "test.txt").read_text() + (folder / "database.txt").read_text()
    (folder / "allannots.txt").write_text(text)
    rows = {"query": list(range(21)), "train": list(range(21, 63)), "db": list(range(21, 105))}
    (folder / "hash_split_for_nus21.json").write_text(json.dumps(rows))
    for name in ("train", "test", "database"):
        (folder / f"{name}.txt").unlink()
    assert load_dataset("nuswide", "lists", root).fingerprint == before.fingerprint


@pytest.mark.parametrize("protocol", ["21", "10", "81"])
def test_lists_alone_are_not_the_official_labels(nuswide_tree: Callable[..., Path], protocol: str) -> None:
    message = (
        r"^nuswide: no Groundtruth/AllLabels \(.*/nuswide has lists; to use them, pass --protocol lists\) in "
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("nuswide", protocol, nuswide_tree())


def test_a_list_is_missing(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree()
    (root / "nuswide/database.txt").unlink()
    message = rf"nuswide: {root}/nuswide has lists for train and query, but none for database$"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("nuswide", "lists", root)


def test_listed_images_are_missing(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree()
    for path in sorted((root / "nuswide/images").iterdir())[:3]:
        path.unlink()
    message = r"3 of 147 listed images .*: 'images/0000_1544502940\.jpg' \(.*test\.txt, line 1\)"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("nuswide", "lists", root)


def test_queries_in_the_database(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree()
    leak = (root / "nuswide/test.txt").read_text().splitlines(keepends=True)[4]
    with (root / "nuswide/database.txt").open("a") as file:
        file.write(leak)
    dataset = load_dataset("nuswide", "lists", root)
    assert dataset.overlaps.query_database == 1
    with pytest.raises(HashbenchError, match=r"1 of 21 queries .*'0004_1544502944\.jpg'"):
        dataset.require_disjoint_queries()
    assert len(load_dataset("nuswide", "lists", root, leaks="drop").database.images) == 84


@pytest.mark.parametrize(
    ("protocol", "drawn", "found"),
    [("21", "12,600", r"66 \(600 per class; 3 have the label sky, some"), ("81", "15,000", "66;")],
)
def test_a_part_copy_is_told_how_many_images_the_draw_needs(
    root: Path,
    cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    protocol: str,
    drawn: str,
    found: str,
) -> None:
    monkeypatch.setattr(nuswide, "QUOTAS", {"21": (500, 100)})
    monkeypatch.setattr(nuswide, "DRAWN_OF_81", (10_000, 5_000))
    for file in sorted(root.rglob("*.jpg"))[:60]:
        file.unlink()
    run = ("run", "--method", "lsh", "--dataset", "nuswide", "--protocol", protocol, "--data-root", root)
    for options in ((), ("--limit", 50), ("--data", "fraction=0.1")):
        result = cli(*run, "--missing", "skip", *options)
        assert result.code == 1
        (line,) = result.err.splitlines()
        start = (
            rf"hashbench: error: nuswide@{protocol}: the protocol draws {drawn} labelled images, and there"
        )
        assert re.match(rf"{start} are {found}", line), line
        assert "so add the missing images, or split those that are there by ratios: list them" in line


def test_a_fraction_of_a_protocol_is_verified_and_recorded(root: Path, cli: Callable[..., Any]) -> None:
    dataset = load_dataset("nuswide", None, root, fraction=0.5)
    assert [len(part.images) for part in dataset.parts().values()] == [21, 10, 52]
    assert dataset.warnings[-1] == "limited to a fraction of 0.5 of each part, for a first try only"
    result = cli("data", "verify", "nuswide", "--data-root", root, "--data", "fraction=0.5", "--json")
    found = json.loads(result.out)
    assert (result.code, found["problems"], found["fingerprint"]) == (0, [], dataset.fingerprint)
