"""Small copies of the datasets, in the layouts and formats that they are distributed in.

Most images show the colour of their first class, so that there is something to learn. Each function writes
files below a data root and adapts the plugin to the smaller numbers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from helpers.cifar_files import batch, python2_pickle
from helpers.forked import first_digits
from PIL import Image

from hashbench.data.dataset import DatasetPlugin
from hashbench.data.protocol import Protocol
from hashbench_datasets import cifar10, coco, fashionmnist, flickr25k, imagenet100, mnist, nuswide
from hashbench_datasets.digits import Digits

COLOURS = np.random.RandomState(0).randint(0, 256, (100, 3))


def photo(path: Path, first_class: int, number: int, size: tuple[int, int] = (40, 32)) -> None:
    """Write an image of a class; `number` makes it different from the others."""
    width, height = size
    noise = np.random.RandomState(number).randint(-20, 21, (height, width, 3))
    pixels = (COLOURS[first_class] + noise).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix == ".png" else "JPEG")


def set_counts(
    monkeypatch: pytest.MonkeyPatch,
    plugin: type[DatasetPlugin],
    counts: Mapping[str, tuple[int | None, int | None, int | None]],
) -> None:
    """Set the numbers (query, train, database) of a plugin's protocols to those of a small copy."""
    small = {name: Protocol(p.definition, *counts.get(name, ())) for name, p in plugin.protocols.items()}
    monkeypatch.setattr(plugin, "protocols", small)


def digits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the first 300 images, of which 200 are queries; write nothing."""
    images = first_digits(300)
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: images)
    set_counts(monkeypatch, Digits, {"default": (200, 100, 100)})


def idx_files(train: int, test: int) -> dict[str, bytes]:
    """Return the content of four files like those of MNIST; the class of image i is i % 10."""
    files = {}
    for prefix, count in (("train", train), ("t10k", test)):
        classes = np.arange(count) % 10
        noise = np.random.RandomState(count).randint(0, 20, (count, 28, 28))
        pixels = (classes[:, None, None] * 20 + noise).astype(np.uint8).tobytes()
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, count, 28, 28) + pixels
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, count) + bytes(classes.tolist())
    return files


def write_idx(folder: Path, files: Mapping[str, bytes], suffix: str = ".gz") -> None:
    """Write IDX files, gzipped or plain."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)


def expect_idx(monkeypatch: pytest.MonkeyPatch, module: object, files: Mapping[str, bytes]) -> None:
    """Adapt a plugin to the given files."""
    monkeypatch.setattr(module, "MD5", {n: hashlib.md5(content).hexdigest() for n, content in files.items()})
    monkeypatch.setattr(module, "TRAIN_PER_CLASS", 2)


def fashion_mnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write 30 training and 20 test images."""
    files = idx_files(30, 20)
    expect_idx(monkeypatch, fashionmnist, files)
    monkeypatch.setattr(fashionmnist, "SYSTEM_FOLDER", Path("/nonexistent"))
    monkeypatch.setattr(fashionmnist, "SMALL_QUERIES_PER_CLASS", 1)
    set_counts(monkeypatch, fashionmnist.FashionMNIST, {"official": (20, 20, 30), "small": (10, 20, 20)})
    write_idx(root / "FashionMNIST/raw", files)


def mnist_(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write 50 training and 20 test images."""
    files = idx_files(50, 20)
    expect_idx(monkeypatch, mnist, files)
    monkeypatch.setattr(mnist, "QUERIES_PER_CLASS", {"69k": 1, "60k": 2, "60k-all": 2})
    counts = {"69k": (10, 20, 60), "60k": (20, 20, 50), "60k-all": (20, 50, 50), "official": (20, 20, 50)}
    set_counts(monkeypatch, mnist.MNIST, counts)
    write_idx(root / "MNIST/raw", files)


def cifar_10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write six batches of 10 images."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    md5 = {}
    for number, name in enumerate(cifar10.MD5):
        content = python2_pickle(batch(number))
        (folder / name).write_bytes(content)
        md5[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(cifar10, "MD5", md5)
    monkeypatch.setattr(cifar10, "TRAIN_IMAGES", 50)
    set_counts(monkeypatch, cifar10.CIFAR10, {"spq": (10, 50, 50)})


def nuswide_(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    r"""Write 126 labelled images, the last two of one photograph, and 5 others, listed with `\` and CRLF."""
    monkeypatch.setattr(nuswide, "QUOTAS", {"21": (2, 1), "10": (2, 1)})
    monkeypatch.setattr(nuswide, "DRAWN_OF_81", (20, 10))
    set_counts(monkeypatch, nuswide.NUSWide, {"21": (21, 42, 105), "10": (10, 20, 56), "81": (10, 20, 116)})
    folder = root / "nuswide"
    names = [f"{('actor', 'zebra_fish')[i % 2]}\\{i:04d}_{2124494179 + i}.jpg" for i in range(131)]
    names[125] = names[124].replace("actor", "abbey").replace("0124", "0001")
    labels = np.zeros((131, 81), int)
    for row in range(126):
        classes = (row % 21, row * row % 21) if row % 3 == 0 else (row % 21,)
        labels[row, [nuswide.CONCEPTS.index(nuswide.FREQUENT[index]) for index in classes]] = 1
    for row, name in enumerate(names):
        photo(folder / "Flickr" / name.replace("\\", "/"), row % 21, row)
    (folder / "ImageList").mkdir()
    (folder / "ImageList/Imagelist.txt").write_bytes("".join(f"{name}\r\n" for name in names).encode())
    (folder / "Groundtruth/AllLabels").mkdir(parents=True)
    for column, concept in enumerate(nuswide.CONCEPTS):
        text = "".join(f"{label}\n" for label in labels[:, column])
        (folder / f"Groundtruth/AllLabels/Labels_{concept}.txt").write_text(text)


def coco_(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write 60 images with objects and 3 without, annotated as in 2014."""
    monkeypatch.setattr(coco, "QUERIES", 10)
    monkeypatch.setattr(coco, "TRAIN", 20)
    set_counts(monkeypatch, coco.COCO, {"117k": (10, 20, 50), "107k": (10, 20, 30)})
    write_coco(root / "coco", "2014")


COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def write_coco(folder: Path, year: str) -> None:
    """Write the same 63 images and annotations in the layout of 2014 or 2017."""
    (folder / "annotations").mkdir(parents=True)
    categories = [{"id": i, "name": name} for i, name in zip(COCO_IDS, coco.CATEGORIES, strict=True)]
    for part, numbers in (("train", range(40)), ("val", range(40, 63))):
        prefix = f"COCO_{part}2014_" if year == "2014" else ""
        images, annotations = [], []
        for number in numbers:
            name = f"{prefix}{number * 7 + 9:012d}.jpg"
            images.append({"id": number * 7 + 9, "file_name": name, "width": 40, "height": 32})
            photo(folder / f"{part}{year}" / name, number % 5, number)
            annotations += [
                {
                    "id": 100 * number + nth,
                    "image_id": number * 7 + 9,
                    "category_id": COCO_IDS[index],
                    "segmentation": [[1.5, 2.5, 3.5]],
                    "bbox": [1, 2, 3, 4],
                    "iscrowd": 0,
                }
                for nth, index in enumerate(
                    () if number % 21 == 20 else (number % 5, number % 5, *((79,) if number < 50 else ()))
                )
            ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"annotations/instances_{part}{year}.json").write_text(json.dumps(content))


def flickr_25k(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write 60 images, of which number 60 has no label."""
    monkeypatch.setattr(flickr25k, "IMAGES", 60)
    monkeypatch.setattr(flickr25k, "DRAWN", {"24": (20, 10), "38": (20, 10)})
    counts = {
        "24": (10, 20, 50),
        "24-labelled": (10, 20, 49),
        "38": (10, 20, 30),
        "38-labelled": (10, 20, 29),
    }
    set_counts(monkeypatch, flickr25k.Flickr25k, counts)
    folder = root / "flickr25k"
    for number in range(1, 61):
        photo(folder / f"mirflickr/im{number}.jpg", number % 4, number)
    (folder / flickr25k.ANNOTATIONS).mkdir()
    (folder / flickr25k.ANNOTATIONS / "README.txt").write_text("What the labels mean.\n")
    for column, name in enumerate(flickr25k.ALL):
        members = [n for n in range(1, 60) if n % 4 == column % 4 or n % 38 == column]
        text = "".join(f"{number}\n" for number in members)
        (folder / flickr25k.ANNOTATIONS / f"{name}.txt").write_text(text)


def imagenet_100(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write two training images and one validation image per synset."""
    monkeypatch.setattr(imagenet100, "TRAIN_PER_CLASS", {"13k": 1, "10k": 1})
    counts = {"13k": (100, 100, 200), "10k": (100, 100, 200)}
    set_counts(monkeypatch, imagenet100.ImageNet100, counts)
    for label, synset in enumerate(imagenet100.SYNSETS):
        folder = root / "imagenet"
        for number in range(2):
            photo(folder / f"train/{synset}/{synset}_{number}.JPEG", label, 3 * label + number, (20, 16))
        photo(folder / f"val/{synset}/ILSVRC2012_val_{label:08d}.JPEG", label, 3 * label + 2, (20, 16))


def own_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write three classes of 12 images in files of three formats."""
    for label, name in enumerate(("cat", "dog", "hen")):
        for number in range(12):
            suffix = (".jpg", ".png", ".JPEG")[number % 3]
            photo(root / name / f"{number}{suffix}", label, 12 * label + number)


Writer = Callable[[Path, pytest.MonkeyPatch], None]

TREES: dict[str, Writer] = {
    "digits": digits,
    "fashionmnist": fashion_mnist,
    "mnist": mnist_,
    "cifar10": cifar_10,
    "nuswide": nuswide_,
    "coco": coco_,
    "flickr25k": flickr_25k,
    "imagenet100": imagenet_100,
    "folder": own_folder,
}
PROTOCOLS = {"cifar10": "spq"}  # the default needs 600 images per class
