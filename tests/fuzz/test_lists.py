"""Damaged lists, annotations, packed copies and plugin files are read or refused with one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fuzz.mutation import PIECES, mutations
from fuzz.outcomes import refused
from PIL import Image

from hashbench import plugin_files, registry
from hashbench.data.list_files import read_list, read_names, read_pair, read_row_indices
from hashbench.data.packing import CHECKSUM, INDEX, PackedImages, pack, use_packed
from hashbench_datasets import coco, flickr25k, nuswide
from hashbench_datasets.folder import Folder, read_labels

Tries = Callable[[int, int], int]

NAMES = [f"images/{number}.jpg" for number in range(6)]
ROWS = [[1, 0], [0, 1], [1, 1], [1, 0], [0, 0], [0, 1]]
LISTS = [
    "".join(f"{name} {' '.join(map(str, row))}\n" for name, row in zip(NAMES, ROWS, strict=True)).encode(),
    "".join(f"{name},{row[0]},{3 * row[1]}\r\n" for name, row in zip(NAMES, ROWS, strict=True)).encode(),
    "".join(f"{name} {row[0]}\n" for name, row in zip(NAMES, ROWS, strict=True)).encode(),
]
LABELS = [b"1 0\n0 1\n1 1\n1 0\n0 0\n0 1\n", b"0\n1\n1\n0\n\n1\n", b"0 1\n1\n0\n1\n0\n1\n"]


def found(
    calls: Sequence[Callable[[], Any]], path: Path, originals: Sequence[bytes], count: int, seed: int = 0
) -> None:
    """Check the outcomes of calls while a file is damaged; some of them must fail."""
    contents = [*originals[0:1], *(piece.join((originals[0][:9], originals[0][9:])) for piece in PIECES)]
    number = 0
    for content in (*contents, *mutations(originals, count, seed)):
        path.write_bytes(content)
        number += sum(refused(call) for call in calls)
    assert number


@pytest.mark.parametrize("label_format", ["auto", "multihot", "counts", "id", "ids"])
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_lists(tmp_path: Path, tries: Tries, label_format: Any, suffix: str) -> None:
    file = tmp_path / f"train{suffix}"
    calls = [lambda: read_list(file, None, label_format), lambda: read_list(file, 2, label_format)]
    found(calls, file, LISTS, tries(60, 2_000))


@pytest.mark.parametrize("label_format", ["auto", "multihot", "counts", "id", "ids"])
def test_pairs(tmp_path: Path, tries: Tries, label_format: Any) -> None:
    names, labels = tmp_path / "train_img.txt", tmp_path / "train_label.txt"
    names.write_text("".join(f"{name}\n" for name in NAMES))
    call = lambda: read_pair(names, labels, 2, label_format)  # noqa: E731
    found([call], labels, LABELS, tries(60, 2_500))
    labels.write_bytes(LABELS[0])
    found([call, lambda: read_names(names)], names, [names.read_bytes()], tries(60, 2_500))


def test_rows_of_a_split(tmp_path: Path, tries: Tries) -> None:
    file = tmp_path / "split.json"
    rows = {"train": [0, 1, 2], "test": [3], "db": [4, 5]}
    texts = [
        json.dumps({**rows, "test": value}) for value in ({}, [[]], ["x"], [1e300], [10**19], [True], [])
    ]
    originals = [json.dumps(rows).encode(), *(text.encode() for text in texts)]
    found([lambda: read_row_indices(file, 6)], file, originals, tries(300, 10_000))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of which only the names are read."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", ["classes.txt", "train.txt", "database.txt"])
def test_splits_by_lists(images: Path, tries: Tries, name: str) -> None:
    for part, rows in (("train", slice(0, 2)), ("test", slice(2, 4)), ("database", slice(4, 6))):
        (images / f"{part}.txt").write_bytes(b"".join(LISTS[0].splitlines(True)[rows]))
    (images / "classes.txt").write_text("cat\ndog\n")
    plugin = Folder()
    found(
        [lambda: plugin.load(images, "lists")],
        images / name,
        [(images / name).read_bytes()],
        tries(60, 4_000),
    )


def test_tables_of_labels(images: Path, tries: Tries) -> None:
    files = [b"path,label\n" + b"".join(b"%s,cat|dog\n" % name.encode() for name in NAMES)]
    files += [b"path,cat,dog\n" + b"".join(b"%s,1,0\n" % name.encode() for name in NAMES)]
    found(
        [lambda: read_labels(images / "labels.csv"), lambda: Folder(Folder.Options()).load(images, "split")],
        images / "labels.csv",
        files,
        tries(150, 10_000),
    )


def test_names_of_files_and_folders(tmp_path: Path, tries: Tries) -> None:
    root = os.fsencode(tmp_path / "root")
    count = 0
    for place in mutations([b"cat/1.jpg", b"train/cat/1.jpg", b"dog/a/2.png"], tries(150, 10_000)):
        for path in (b"cat/3.jpg", b"cat/4.jpg", b"dog/5.jpg", b"dog/6.jpg", place):
            path = os.path.normpath(os.path.join(root, path.replace(b"\0", b"").lstrip(b"/")))  # noqa: PTH118
            if path.startswith(root):
                try:
                    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
                    open(path, "wb").close()  # noqa: PTH123
                except OSError:  # no name of a file
                    continue
        count += refused(lambda: Folder(Folder.Options()).load(tmp_path / "root", "split"))
        count += refused(lambda: Folder(Folder.Options()).load(tmp_path / "root", "folders"))
        shutil.rmtree(root)
    assert count


def test_annotations_of_coco(tmp_path: Path, tries: Tries) -> None:
    file = tmp_path / "instances_train2014.json"
    content = {
        "images": [{"id": number, "file_name": f"COCO_train2014_{number:012d}.jpg"} for number in range(3)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(coco.CATEGORIES)],
        "annotations": [{"image_id": n % 3, "category_id": n, "segmentation": [[1.5, 2]]} for n in range(4)],
    }
    originals = [
        json.dumps({**content, key: content[key]}, separators=(",", ":")).encode() for key in content
    ]
    for value in ("9" * 5000, 10**19, [[]], {"a": 1}, "\ud800", "x" * 5000, None, -1):
        for key, field in (("images", "id"), ("categories", "name"), ("annotations", "category_id")):
            entries = [{**content[key][0], field: value}, *content[key][1:]]  # type: ignore[dict-item]
            originals.append(json.dumps({**content, key: entries}).encode())
    for original in originals:
        file.write_bytes(original)
        refused(coco.read_annotations, [file])
    found([lambda: coco.read_annotations([file])], file, originals, tries(300, 10_000))


def test_annotations_of_flickr_and_nuswide(tmp_path: Path, tries: Tries) -> None:
    file = tmp_path / "baby.txt"
    call = lambda: flickr25k.read_annotations(tmp_path, ["baby"])  # noqa: E731
    found([call], file, [b"".join(b"%d\n" % number for number in range(1, 99))], tries(60, 10_000))
    call = lambda: nuswide.read_column(file, 6)  # noqa: E731
    found([call], file, [b"0\n1\n0\n0\n1\n1\n"], tries(300, 10_000))


def test_indices_of_packed_copies(tmp_path: Path, tries: Tries) -> None:
    for index in range(4):
        folder = tmp_path / "root" / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 8), 60 * index).save(folder / f"{index}.png")
    dataset = Folder(Folder.Options()).load(tmp_path / "root", "split")
    folder = pack(dataset, tmp_path, 8)
    valid = json.loads((folder / INDEX).read_bytes())

    def read() -> None:
        content = (folder / INDEX).read_bytes()
        (folder / CHECKSUM).write_text(f"{hashlib.sha256(content).hexdigest()}  {INDEX}\n")
        packed = use_packed(dataset, tmp_path)
        if isinstance(images := packed.database.images, PackedImages):
            assert isinstance(packed.options["packed"]["size"], int)
            assert all(images.content(row) for row in range(len(images)))

    originals = [json.dumps(valid).encode()]
    for key in valid:
        for value in (None, -1, 1e300, [], {}, [[]], [None], "x", "../../x", [-1, 1, 2, 3]):
            originals.append(json.dumps({**valid, key: value}).encode())
    originals += [json.dumps({**valid, "ends": valid["ends"][::-1]}).encode(), b"[]", b"1", b'"size"']
    for original in originals[1:]:
        (folder / INDEX).write_bytes(original)
        assert refused(read), original
    found([read], folder / INDEX, originals, tries(300, 10_000))


PLUGINS = [
    b'"""A method."""\nfrom hashbench import HashMethod\nimport a.b, c\n\n\nclass Mine(HashMethod):\n'
    b'    """It."""\n\n\nMETHODS = {"mine": Mine}\nDATASETS: dict = {"a": Mine}\n',
]
HARD = [
    b"x = " + b"(" * 5000,
    b"x = " + b"-" * 100_000 + b"1",
    b"x" + b".x" * 100_000,
    b"x" + b".x" * 100_000 + b" = 1",
    b"x = " + b"x + " * 20_000 + b"1",
    b"x = " + b"not " * 5000 + b"1",
    b"x = [" + b"[" * 150 + b"]" * 151,
    b"x = " + b"9" * 5000,
    b"x = lambda: " * 3000 + b"1",
    b"# -*- coding: " + b"x" * 5000 + b" -*-\n",
    b"\0",
    b"\xff",
    b"x = '\\ud800'",
    b"METHODS = {'" + b"x" * 5000 + b"': X}",
    b"METHODS = {'x': " + b"X" * 5000 + b"}",
    b"METHODS = {'\\ud800': X}",
    b"METHODS = {'\\x1b[2J': X}",
    b'"\\ud800"\nMETHODS = {"x": X}',
]


def test_plugin_files(tmp_path: Path, tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.PLUGIN_FILES, "paths", [])
    file = tmp_path / "mine.py"

    def list_plugins() -> None:
        registry.PLUGIN_FILES.paths.clear()
        registry.add_plugin_file(file)
        for kind in ("method", "dataset"):
            for entry in registry.entries(kind).values():  # type: ignore[arg-type]
                if entry.origin == "file":
                    entry.summary()
                    forget()
                    entry.sources()

    def forget() -> None:
        for cached in (plugin_files.read_source, registry._plugin_digest):
            cached.cache_clear()

    for hard in HARD:
        for content in (hard, hard + b"\n" + PLUGINS[0], PLUGINS[0] + b"\n" + hard):
            file.write_bytes(content)
            refused(list_plugins)
    found([list_plugins], file, PLUGINS, tries(100, 10_000))
