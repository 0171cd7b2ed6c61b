"""Small copies of the datasets of torchvision, in its layouts.

Each function writes files below a data root, and adapts torchvision where it checks their MD5. It returns
the classes of the images that are not test images and of the test images, in order; for VOC, sets of classes.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from helpers.trees import idx_files, photo, set_counts
from torchvision import datasets

from hashbench_datasets import torchvision_sets

Classes = tuple[list[Any], list[Any]]
SIZE = (12, 8)


def _pixels(count: int, side: int, seed: int) -> Any:
    return np.random.RandomState(seed).randint(0, 256, (count, 3, side, side)).astype(np.uint8)


def _write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def cifar100(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder, md5 = root / "cifar-100-python", {}
    classes = [number % 3 for number in range(18)], [2, 1, 0] * 2
    for seed, (name, labels) in enumerate(zip(("train", "test"), classes, strict=True)):
        data = _pixels(len(labels), 32, seed).reshape(len(labels), -1)
        md5[name] = _write(folder / name, pickle.dumps({"data": data, "fine_labels": labels}))
    names = {"fine_label_names": ["apple", "bear", "can"]}
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", md5["test"]]])
    meta = {**datasets.CIFAR100.meta, "md5": _write(folder / "meta", pickle.dumps(names))}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)
    return classes


def fashion_mnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    for name, content in idx_files(30, 20).items():
        _write(root / "FashionMNIST/raw" / name, content)
    return [number % 10 for number in range(30)], [number % 10 for number in range(20)]


def svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    classes, files = ([0, 1, 2] * 4, [2, 0, 1]), {}
    for seed, (name, labels) in enumerate(zip(("train", "test"), classes, strict=True)):
        path = root / f"{name}_32x32.mat"
        stored = [[label or 10] for label in labels]  # the digit 0 is stored as 10
        scipy.io.savemat(path, {"X": _pixels(len(labels), 32, seed).transpose(2, 3, 1, 0), "y": stored})
        files[name] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", files)
    return classes


def stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    classes, folder = ([0, 1, 2] * 4, [2, 0, 1]), root / "stl10_binary"
    md5 = []
    for seed, (name, labels) in enumerate(zip(("train", "test"), classes, strict=True)):
        md5.append(
            [f"{name}_X.bin", _write(folder / f"{name}_X.bin", _pixels(len(labels), 96, seed).tobytes())]
        )
        md5.append([f"{name}_y.bin", _write(folder / f"{name}_y.bin", bytes(label + 1 for label in labels))])
    md5.append(["unlabeled_X.bin", _write(folder / "unlabeled_X.bin", b"")])
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\n")
    monkeypatch.setattr(datasets.STL10, "train_list", [*md5[:2], md5[4]])
    monkeypatch.setattr(datasets.STL10, "test_list", md5[2:4])
    return classes


def _photos(folder: Path, names: Sequence[str], labels: Sequence[int]) -> None:
    for number, (name, label) in enumerate(zip(names, labels, strict=True)):
        photo(folder / name, label, number, SIZE)


def food101(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    names = {part: [f"{dish}/{n}" for dish in ("pie", "soup") for n in numbers]
             for part, numbers in (("train", range(6)), ("test", range(6, 8)))}  # fmt: skip
    for part, paths in names.items():
        by_dish = {dish: [path for path in paths if path.startswith(dish)] for dish in ("pie", "soup")}
        _write(root / f"food-101/meta/{part}.json", json.dumps(by_dish).encode())
        _photos(root / "food-101/images", [f"{path}.jpg" for path in paths], [len(p) % 2 for p in paths])
    return [0] * 6 + [1] * 6, [0] * 2 + [1] * 2


def flowers102(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder = root / "flowers-102"
    _photos(
        folder / "jpg", [f"image_{number:05d}.jpg" for number in range(1, 13)], [n % 2 for n in range(12)]
    )
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": [[1 + n % 2 for n in range(12)]]})
    ids = {"trnid": [[5, 1, 2, 3]], "valid": [[4, 6, 7, 8]], "tstid": [[9, 10, 12, 11]]}
    scipy.io.savemat(folder / "setid.mat", ids)
    files = {key: (name, hashlib.md5((folder / name).read_bytes()).hexdigest())
             for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))}  # fmt: skip
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", files)
    return [(n - 1) % 2 for n in (5, 1, 2, 3, 4, 6, 7, 8)], [(n - 1) % 2 for n in (9, 10, 12, 11)]


def oxford_pet(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder, classes = root / "oxford-iiit-pet", ([0] * 4 + [1] * 4, [0, 1, 0, 1])
    for part, labels in zip(("trainval", "test"), classes, strict=True):
        names = [f"{('Abyssinian', 'boxer')[label]}_{part}{n}" for n, label in enumerate(labels)]
        _photos(folder / "images", [f"{name}.jpg" for name in names], labels)
        lines = [f"{name} {label + 1} 1 1\n" for name, label in zip(names, labels, strict=True)]
        _write(folder / f"annotations/{part}.txt", "".join(lines).encode())
    return classes


def caltech101(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder = root / "caltech101/101_ObjectCategories"
    for label, name in enumerate(("ant", "bonsai", "BACKGROUND_Google")):
        _photos(folder / name, [f"image_{number:04d}.jpg" for number in range(1, 7)], [label] * 6)
    return [0] * 6 + [1] * 6, []


def caltech256(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder = root / "caltech256/256_ObjectCategories"
    for label, name in enumerate(("001.ak47", "002.flag")):
        _photos(folder / name, [f"{label + 1:03d}_{number:04d}.jpg" for number in range(1, 7)], [label] * 6)
    _write(folder / "002.flag/RENAME2", b"")
    return [0] * 6 + [1] * 6, []


def eurosat(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    for label, name in enumerate(("Forest", "River")):
        _photos(root / "eurosat/2750" / name, [f"{name}_{number}.jpg" for number in range(6)], [label] * 6)
    return [0] * 6 + [1] * 6, []


def fgvc_aircraft(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder, classes = root / "fgvc-aircraft-2013b/data", ([1, 0] * 4, [0, 1, 1, 0])
    _write(folder / "variants.txt", b"707-320\nAn-12\n")
    for start, part, labels in zip((0, 8), ("trainval", "test"), classes, strict=True):
        names = [f"{number:07d}" for number in range(start, start + len(labels))]
        _photos(folder / "images", [f"{name}.jpg" for name in names], labels)
        lines = [f"{name} {('707-320', 'An-12')[label]}\n" for name, label in zip(names, labels, strict=True)]
        _write(folder / f"images_variant_{part}.txt", "".join(lines).encode())
    return classes


def dtd(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder = root / "dtd/dtd"
    for start, part in enumerate(("train", "val", "test")):
        names = [
            f"{name}/{name}_{4 * start + number}.jpg" for name in ("banded", "woven") for number in range(4)
        ]
        _photos(folder / "images", names, [0] * 4 + [1] * 4)
        _write(folder / f"labels/{part}1.txt", "".join(f"{name}\n" for name in names).encode())
    return ([0] * 4 + [1] * 4) * 2, [0] * 4 + [1] * 4


def voc(root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    folder = root / "VOCdevkit/VOC2007"
    classes = [{"cat"}, {"cat", "dog"}, {"dog"}] * 6, [{"dog"}, {"cat", "person"}, {"person"}] * 2
    for part, sets in zip(("trainval", "test"), classes, strict=True):
        first = {"trainval": 0, "test": 100}[part]
        for number, names in enumerate(sets, start=first):
            photo(folder / f"JPEGImages/{number:06d}.jpg", len(min(names)), number, (24, 20))
            objects = "".join(
                f"<object><name>{name}</name><difficult>{n}</difficult><part><name>head</name></part></object>"
                * 2
                for n, name in enumerate(sorted(names))
            )
            _write(folder / f"Annotations/{number:06d}.xml", f"<annotation>{objects}</annotation>".encode())
        lines = "".join(f"{number:06d}\n" for number in range(first, first + len(sets)))
        _write(folder / f"ImageSets/Main/{part}.txt", lines.encode())
    return classes


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Classes]] = {
    "CIFAR100": cifar100,
    "FashionMNIST": fashion_mnist,
    "SVHN": svhn,
    "STL10": stl10,
    "Food101": food101,
    "Flowers102": flowers102,
    "OxfordIIITPet": oxford_pet,
    "Caltech101": caltech101,
    "Caltech256": caltech256,
    "EuroSAT": eurosat,
    "FGVCAircraft": fgvc_aircraft,
    "DTD": dtd,
    "VOCDetection": voc,
}


def write(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Classes:
    """Write a small copy of a dataset, and adapt its plugin to the numbers of images."""
    root.mkdir(exist_ok=True)
    train, test = WRITERS[name](root, monkeypatch)
    plugin = getattr(torchvision_sets, name)
    monkeypatch.setattr(plugin, "counts", (len(train), len(test)))
    set_counts(monkeypatch, plugin, {"official": (len(test), len(train), len(train))})
    return train, test
