"""MS-COCO: the annotations of two years, and list files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trees import COCO_IDS, coco_, write_coco

from hashbench import load_dataset
from hashbench.data.dataset import Dataset
from hashbench.data.protocol import draw
from hashbench.errors import HashbenchError
from hashbench_datasets import coco
from hashbench_datasets.coco import CATEGORIES, CLASSES, read_annotations

PREFIX = "/home/someone/data/coco/"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small copy of the data of 2014."""
    coco_(tmp_path / "data", monkeypatch)
    return tmp_path / "data"


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.query.images), len(dataset.train), len(dataset.database.images)


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# annotations


def test_classes_are_sorted_by_name() -> None:
    assert len(set(CATEGORIES)) == 80
    assert (CLASSES[0], CLASSES[49], CLASSES[79]) == ("airplane", "person", "zebra")
    assert (COCO_IDS[-1], len(COCO_IDS)) == (90, 80)
    assert set(range(1, 91)) - set(COCO_IDS) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@pytest.mark.parametrize("shuffled", [False, True])
def test_category_ids_have_gaps(root: Path, shuffled: bool) -> None:
    files = [root / f"coco/annotations/instances_{part}2014.json" for part in ("train", "val")]
    more = [{"image_id": 9, "category_id": number} for number in (11, 13, 80, 82)]
    edit(files[0], lambda content: content["annotations"].extend(more))
    if shuffled:
        for file in files:
            edit(file, lambda content: [content[kind].reverse() for kind in content])
    listed = read_annotations(files)
    assert listed.paths[:2] == (
        "train2014/COCO_train2014_000000000009.jpg",
        "train2014/COCO_train2014_000000000016.jpg",
    )
    objects = [{CLASSES[at] for at in np.flatnonzero(row)} for row in listed.labels]
    assert objects[0] == {"person", "fire hydrant", "stop sign", "toaster", "refrigerator", "toothbrush"}
    assert objects[1] == {"bicycle", "toothbrush"}
    assert listed.paths[39] == "val2014/COCO_val2014_000000000289.jpg"
    assert objects[39] == {"person", "toothbrush"}


def test_images_without_objects_are_left_out(root: Path) -> None:
    dataset = load_dataset("coco", "107k", root)
    numbers = {
        int(name) for name in (*dataset.train.ids, *dataset.query.images.ids, *dataset.database.images.ids)
    }
    assert numbers == {7 * number + 9 for number in range(63) if number % 21 != 20}
    assert dataset.overlaps.train_database == 0


@pytest.mark.parametrize("protocol", ["117k", "107k"])
def test_both_years_are_the_same_dataset(root: Path, tmp_path: Path, protocol: str) -> None:
    write_coco(tmp_path / "later/mscoco", "2017")
    one = load_dataset("coco", protocol, root)
    other = load_dataset("coco", protocol, tmp_path / "later")
    assert one.fingerprint == other.fingerprint
    np.testing.assert_array_equal(one.query.images[3], other.query.images[3])


def test_images_of_the_other_year_are_found(root: Path, tmp_path: Path) -> None:
    before = load_dataset("coco", None, root).fingerprint
    write_coco(tmp_path / "later", "2017")
    for part in ("train", "val"):
        shutil.rmtree(root / f"coco/{part}2014")
        (tmp_path / f"later/{part}2017").rename(root / f"coco/{part}2017")
    assert load_dataset("coco", None, root).fingerprint == before


def test_half_of_one_year_and_all_of_the_other(root: Path) -> None:
    before = load_dataset("coco", None, root).fingerprint
    write_coco(root / "COCO", "2017")
    (root / "coco/annotations/instances_train2014.json").unlink()
    assert load_dataset("coco", None, root).fingerprint == before


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_annotation_file_is_missing(root: Path, part: str) -> None:
    file = root / f"coco/annotations/instances_{part}2014.json"
    file.unlink()
    with pytest.raises(HashbenchError, match=rf"^coco: {file} is missing; both parts are needed$"):
        load_dataset("coco", None, root)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("coco2017/annotations", "coco2017"),
        ("downloads/coco-2017/annotations", "downloads"),
        ("coco/annotations/annotations", "coco"),
        ("coco/a/b/annotations", "images"),
        ("coco", "coco"),
    ],
)
def test_annotations_that_lie_deeper_are_found(root: Path, annotations: str, images: str) -> None:
    before = load_dataset("coco", None, root)
    (root / "coco").rename(root / "copy")
    (root / annotations).mkdir(parents=True)
    for file in (root / "copy/annotations").iterdir():
        file.rename(root / annotations / file.name)
    for part in ("train2014", "val2014"):
        (root / images).mkdir(exist_ok=True)
        (root / "copy" / part).rename(root / images / part)
    dataset = load_dataset("coco", None, root)
    assert (dataset.fingerprint, dataset.options) == (before.fingerprint, before.options)


def test_two_copies_that_lie_deeper_are_named(root: Path) -> None:
    (root / "coco").rename(root / "b")
    write_coco(root / "a", "2017")
    message = f"^{root}/a and {root}/b both have the data; rename the one to use to {root}/coco$"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("coco", None, root)
    (root / "a").rename(root / "coco")
    assert len(load_dataset("coco", None, root).query.images) == 10


def test_the_layout_and_the_next_command_are_shown(cli: Callable[..., Any], tmp_path: Path) -> None:
    root = tmp_path / "my data"
    done = cli("run", "--method", "itq", "--dataset", "coco", "--protocol", "107k", "--data-root", root)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        "hashbench: error: coco: no annotations/instances_train2014.json "
        f"in {root}, nor up to two levels deeper",
        f"expected in {root}:",
        "  coco/, COCO/, mscoco/ or the root itself",
        "  ├── annotations/",
        "  │   ├── instances_train2014.json, or …2017.json",
        "  │   └── instances_val2014.json, or …2017.json",
        "  ├── train2014/COCO_train2014_000000566612.jpg, …; or train2017/000000566612.jpg, …",
        "  ├── val2014/, or val2017/",
        "  └── train.txt, test.txt, database.txt for the protocol lists; each line a path and 80 labels",
        f"next: hashbench data prepare coco --protocol 107k --data-root '{root}'",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-40], r" cannot be read \(.*\); get it again$"),
        (lambda text: "", r" cannot be read \(.*\); get it again$"),
        (lambda text: "<html>", r" cannot be read \(.*\); get it again$"),
        (lambda text: "[]", r" is not an instances file of COCO \(.*\); get it again$"),
        (lambda text: '{"images": []}', r" is not an instances file of COCO \(KeyError\('categories'\)\)"),
        (
            lambda text: text.replace('"category_id": 90', '"category_id": 12', 1),
            r" is not an instances file of COCO \(KeyError\(12\)\)",
        ),
        (lambda text: text.replace('"zebra"', '"quagga"'), r" has other categories .*, such as 'quagga'$"),
    ],
)
def test_a_damaged_annotation_file_is_named(root: Path, change: Callable[[str], str], message: str) -> None:
    file = root / "coco/annotations/instances_val2014.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(HashbenchError, match=f"^{file}{message}"):
        load_dataset("coco", None, root)


@pytest.mark.parametrize(
    ("part", "number"), [("train", 9), ("val", 289), ("train", 0), ("val", 0), ("val", "0")]
)
def test_an_annotation_of_no_image(root: Path, part: str, number: int | str) -> None:
    file = root / f"coco/annotations/instances_{part}2014.json"
    if number in (0, "0"):
        edit(file, lambda content: content["annotations"][-1].update(image_id=number))
    else:
        edit(file, lambda content: content["images"].pop(0))
    message = rf"^{file}: image {number} is annotated but not listed; get the file again$"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("coco", None, root)


def test_image_0_is_an_image(root: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0]["id"] = 0
        for annotation in content["annotations"]:
            annotation["image_id"] = annotation["image_id"] if annotation["image_id"] != 9 else 0

    before = load_dataset("coco", None, root).fingerprint
    edit(root / "coco/annotations/instances_train2014.json", change)
    assert load_dataset("coco", None, root).fingerprint == before


@pytest.mark.parametrize("number", [16, "16", "000000000016"])
@pytest.mark.parametrize("part", ["train", "val"])
def test_two_images_with_one_id(root: Path, part: str, number: int | str) -> None:
    file = root / f"coco/annotations/instances_{part}2014.json"
    edit(file, lambda content: content["images"].append({"id": number, "file_name": "other.jpg"}))
    message = (
        rf"^{file}: two images have the id 16, 'train2014/COCO_train2014_000000000016\.jpg' and '{part}2014/"
        r"other\.jpg'; get it again$"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("coco", None, root)


@pytest.mark.parametrize("parts", [("val",), ("train", "val")])
@pytest.mark.parametrize("kinds", [("images",), ("annotations",), ("categories",), ("images", "annotations")])
def test_ids_that_are_texts_are_numbers(root: Path, parts: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    def change(content: dict[str, Any]) -> None:
        for kind in kinds:
            for entry in content[kind]:
                entry |= {key: str(value) for key, value in entry.items() if key in ("id", "image_id")}

    before = load_dataset("coco", None, root).fingerprint
    for part in parts:
        edit(root / f"coco/annotations/instances_{part}2014.json", change)
    assert load_dataset("coco", None, root).fingerprint == before


@pytest.mark.parametrize("number", ["a7", "", None, 1.5, True, [1]])
@pytest.mark.parametrize(
    ("kind", "key"), [("images", "id"), ("annotations", "image_id"), ("categories", "id")]
)
def test_an_id_that_is_no_number_is_named(root: Path, kind: str, key: str, number: Any) -> None:
    file = root / "coco/annotations/instances_val2014.json"
    edit(file, lambda content: content[kind][3].update({key: number}))
    message = f"{file} is not an instances file of COCO (ValueError"
    with pytest.raises(HashbenchError, match=re.escape(message)) as raised:
        load_dataset("coco", None, root)
    assert f"the id {number!r} is not an integer" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": ' + "[" * 2000, "cannot be read (expected at most 40 levels of lists and objects, got"),
        ('{"images": [{"id": NaN}]}', "cannot be read (expected finite numbers, got NaN); get it again"),
        (
            '{"images": [{"id": ' + "9" * 5000 + "}]}",
            "cannot be read (expected a number of at most 20 digits",
        ),
        (
            '{"images": [{"id": "' + "9" * 5000 + '", "file_name": "a"}]}',
            f"is not an instances file of COCO (ValueError(\"the id '{'9' * 149}… is not an integer",
        ),
    ],
)
def test_json_that_python_trips_over(root: Path, text: str, message: str) -> None:
    file = root / "coco/annotations/instances_val2014.json"
    file.write_text(text)
    with pytest.raises(HashbenchError, match=re.escape(f"{file} {message}")):
        load_dataset("coco", None, root)


def test_missing_images_are_an_error_or_left_out(root: Path) -> None:
    (root / "coco/val2014/COCO_val2014_000000000303.jpg").unlink()
    whole = rf"1 of 60 listed images are not below {root}/coco: 'val2014/COCO_val2014_000000000303\.jpg'"
    with pytest.raises(HashbenchError, match=whole):
        load_dataset("coco", None, root)
    dataset = load_dataset("coco", None, root, missing="skip")
    assert counts(dataset) == (10, 20, 49)
    assert "left out" in dataset.warnings[0]


@pytest.mark.parametrize(("protocol", "with_train"), [("117k", True), ("107k", False)])
def test_draws_at_full_size(protocol: str, with_train: bool) -> None:
    train, query, rest = draw(122_218, [coco.TRAIN, coco.QUERIES], 0)
    assert (train[:3].tolist(), query[:3].tolist()) == ([14, 17, 23], [69, 72, 165])
    expected = coco.COCO.protocols[protocol]
    database = len(rest) + len(train) * with_train
    assert (len(query), len(train), database) == (expected.query, expected.train, expected.database)


# lists


def write_lists(folder: Path, root: Path, year: str, columns: tuple[str, ...] = CLASSES) -> Dataset:
    """Write lists of the 117k protocol with the paths of a year, and return their dataset."""
    dataset = load_dataset("coco", "117k", root)
    labels = {
        name: row
        for part in (dataset.query, dataset.database)
        for name, row in zip(part.images.ids, part.labels, strict=True)
    }
    folder.mkdir()
    order = [CLASSES.index(name) for name in columns]
    for part, images in (
        ("train", dataset.train),
        ("test", dataset.query.images),
        ("database", dataset.database.images),
    ):
        lines = []
        for name in images.ids:
            half = "train" if int(name) < 7 * 40 else "val"
            prefix = f"COCO_{half}2014_" if year == "2014" else ""
            row = " ".join(map(str, labels[name][order]))
            lines.append(f"{PREFIX}{half}{year}/{prefix}{name}.jpg {row}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    return dataset


@pytest.mark.parametrize("listed", ["2014", "2017"])
@pytest.mark.parametrize("stored", ["2014", "2017"])
def test_lists_of_either_year_find_images_of_the_other(
    root: Path, tmp_path: Path, listed: str, stored: str
) -> None:
    dataset = write_lists(tmp_path / "lists", root, listed)
    write_coco(tmp_path / "images/coco", stored)
    shutil.rmtree(tmp_path / "images/coco/annotations")
    back = load_dataset("coco", "lists", tmp_path / "images", lists=tmp_path / "lists")
    assert back.fingerprint == dataset.fingerprint
    assert counts(back) == (10, 20, 50)
    assert back.warnings == ()
    np.testing.assert_array_equal(back.train[5], dataset.train[5])


def test_columns_in_the_order_of_the_category_ids(root: Path, tmp_path: Path) -> None:
    dataset = write_lists(tmp_path / "lists", root, "2014", CATEGORIES)
    by_number = load_dataset("coco", "lists", root, lists=tmp_path / "lists", columns="official")
    assert by_number.fingerprint == dataset.fingerprint
    assert by_number.class_names == CLASSES
    by_name = load_dataset("coco", "lists", root, lists=tmp_path / "lists")
    assert by_name.fingerprint != dataset.fingerprint


def test_counts_of_objects(root: Path, tmp_path: Path) -> None:
    dataset = write_lists(tmp_path / "lists", root, "2014")
    for file in (tmp_path / "lists").iterdir():
        file.write_text(file.read_text().replace(" 1", " 22"))
    with pytest.raises(HashbenchError, match=r"train\.txt, line 1: .* got '22'; .* label_format=counts"):
        load_dataset("coco", "lists", root, lists=tmp_path / "lists")
    counted = load_dataset("coco", "lists", root, lists=tmp_path / "lists", label_format="counts")
    assert counted.fingerprint == dataset.fingerprint


def test_a_line_that_is_cut_off(root: Path, tmp_path: Path) -> None:
    write_lists(tmp_path / "lists", root, "2014")
    file = tmp_path / "lists/test.txt"
    file.write_text(file.read_text()[: -2 * 29 - 1])
    with pytest.raises(HashbenchError, match=rf"{file}, line 10: expected 80 labels, got 51 labels"):
        load_dataset("coco", "lists", root, lists=tmp_path / "lists")
