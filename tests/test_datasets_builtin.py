from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.util
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hashbench.dataset import Dataset, DatasetPlugin
from hashbench.errors import HashbenchError
from hashbench_datasets import DATASETS, fashionmnist
from hashbench_datasets.digits import Digits
from hashbench_datasets.fashionmnist import FashionMNIST, parse_idx
from hashbench_datasets.nuswide import NUSWide

README = Path(__file__).parents[1] / "datasets" / "README.md"


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.query.images), len(dataset.train), len(dataset.database.images)


@pytest.mark.parametrize("target", DATASETS.values())
def test_plugins_describe_their_protocols(target: str) -> None:
    module, _, name = target.partition(":")
    plugin = getattr(importlib.import_module(module), name)()
    assert isinstance(plugin, DatasetPlugin)
    assert plugin.protocols
    assert all("\n" not in text for text in plugin.protocols.values())
    assert all(f"`{protocol}`" in README.read_text() for protocol in plugin.protocols)


# digits


def test_digits(tmp_path: Path) -> None:
    dataset = Digits().load(tmp_path, "default")
    assert counts(dataset) == (200, 1597, 1597)
    assert np.bincount(dataset.query.labels).tolist() == [20] * 10
    assert dataset.train.ids == dataset.database.images.ids
    assert not set(dataset.train.ids) & set(dataset.query.images.ids)
    assert dataset.warnings == ()
    assert dataset.fingerprint == "891fc5afd2272543a446f3c5000e567c9c7aa5899c59445520305b349992437c"
    assert not list(tmp_path.iterdir())

    source = load_digits()
    for part in (dataset.query, dataset.database):
        index = int(part.images.ids[7].removeprefix("digits/"))
        assert part.labels[7] == source.target[index]
        image = np.asarray(part.images[7])
        assert image.shape == (8, 8, 3)
        np.testing.assert_array_equal(image[..., 1], np.round(source.images[index] * 255 / 16))


# Fashion-MNIST


@pytest.mark.skipif(not fashionmnist.SYSTEM_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
@pytest.mark.parametrize(
    ("protocol", "sizes", "fingerprint"),
    [
        (
            "official",
            (10_000, 5_000, 60_000),
            "29910962aac9dc6b345a3d070fd0b06a073e22d807ee14d10d8a69b86cfcbcc0",
        ),
        ("small", (1_000, 5_000, 5_000), "6a53488b590769378b8daf4cc2d6430673877cbcdbca79efc8d318c5b2e50084"),
    ],
)
def test_fashionmnist_as_distributed(
    tmp_path: Path, protocol: str, sizes: tuple[int, int, int], fingerprint: str
) -> None:
    dataset = FashionMNIST().load(tmp_path, protocol)
    assert counts(dataset) == sizes
    assert dataset.overlaps.train_database == 5_000
    assert dataset.overlaps.query_database == dataset.overlaps.query_train == 0
    assert set(np.bincount(dataset.query.labels)) == {sizes[0] // 10}
    assert set(np.bincount(dataset.database.labels)) == {sizes[2] // 10}
    assert dataset.warnings == ()
    assert dataset.fingerprint == fingerprint
    assert dataset.train[0].size == (28, 28)
    assert dataset.class_names[dataset.query.labels[0]] == "Ankle boot" or protocol == "small"


FASHION_NAMES = tuple(fashionmnist.MD5)


@pytest.fixture
def small_fashion(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four files like those of Fashion-MNIST, of 30 + 20 images; the plugin is set for them."""
    files = {}
    for prefix, count in (("train", 30), ("t10k", 20)):
        pixels = (np.arange(count * 784) % 251).astype(np.uint8).tobytes()
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, count, 28, 28) + pixels
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, count) + bytes(
            i % 10 for i in range(count)
        )
    md5 = {name: (hashlib.md5(content).hexdigest(), "0" * 32) for name, content in files.items()}
    monkeypatch.setattr(fashionmnist, "MD5", md5)
    monkeypatch.setattr(fashionmnist, "SYSTEM_FOLDER", Path("/nonexistent"))
    monkeypatch.setattr(fashionmnist, "MIRROR", "http://127.0.0.1:9/")
    monkeypatch.setattr(fashionmnist, "TRAIN_PER_CLASS", 2)
    monkeypatch.setattr(fashionmnist, "SMALL_QUERIES_PER_CLASS", 1)
    return files


def write_fashion(folder: Path, files: dict[str, bytes], suffix: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = gzip.compress(content) if suffix else content
        (folder / f"{name}{suffix}").write_bytes(data)


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "fashionmnist", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_fashionmnist_is_found(
    tmp_path: Path, small_fashion: dict[str, bytes], folder: str, suffix: str
) -> None:
    write_fashion(tmp_path / folder, small_fashion, suffix)
    official = FashionMNIST().load(tmp_path, "official")
    assert counts(official) == (20, 20, 30)
    assert official.query.images.ids[:2] == ("test/00000", "test/00001")
    assert official.database.images.ids[-1] == "train/00029"
    assert np.asarray(official.query.images[1])[0, :3, 0].tolist() == [784 % 251 + i for i in range(3)]

    small = FashionMNIST().load(tmp_path, "small")
    assert counts(small) == (10, 20, 20)
    assert small.train.ids == official.train.ids == small.database.images.ids


@pytest.mark.parametrize("harm", ["cut gzip", "cut", "changed", "no gzip"])
def test_a_damaged_file_is_named(tmp_path: Path, small_fashion: dict[str, bytes], harm: str) -> None:
    suffix = ".gz" if "gzip" in harm else ""
    write_fashion(tmp_path, small_fashion, suffix)
    path = tmp_path / f"t10k-labels-idx1-ubyte{suffix}"
    data = path.read_bytes()
    path.write_bytes({"changed": b"\1" + data[1:], "no gzip": b"<html>"}.get(harm, data[:-3]))
    message = rf"{re.escape(str(path))} is damaged \(.*\); delete it, and the next run downloads http"
    with pytest.raises(HashbenchError, match=message):
        FashionMNIST().load(tmp_path, "official")


def test_fashionmnist_is_downloaded_when_absent(
    tmp_path: Path, small_fashion: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(url: str, path: Path, md5: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(small_fashion[url.rpartition("/")[2].removesuffix(".gz")]))

    monkeypatch.setattr(fashionmnist, "fetch", fetch)
    assert counts(FashionMNIST().load(tmp_path, "official")) == (20, 20, 30)
    files = sorted(path.name for path in (tmp_path / "FashionMNIST/raw").iterdir())
    assert files == sorted(f"{name}.gz" for name in FASHION_NAMES)


def test_fashionmnist_out_of_reach(tmp_path: Path, small_fashion: dict[str, bytes]) -> None:
    message = r"cannot download .*t10k-images.*save it as .*FashionMNIST/raw/t10k-images-idx3-ubyte\.gz"
    with pytest.raises(HashbenchError, match=message):
        FashionMNIST().load(tmp_path, "official")


def test_idx_files_are_parsed_strictly() -> None:
    content = struct.pack(">III", 0x802, 2, 3) + bytes(range(6))
    assert parse_idx(content).tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in (b"", b"\0\0", b"\0\0\x0d" + content[3:], content[:-1], content + b"\0", content[:7]):
        with pytest.raises(ValueError, match=r".+"):
            parse_idx(wrong)


# NUS-WIDE


@pytest.mark.parametrize("folder", ["nuswide", "nuswide_21", "NUS-WIDE", "."])
def test_nuswide(nuswide_tree: Callable[..., Path], folder: str) -> None:
    root = nuswide_tree(folder=folder)
    dataset = NUSWide().load(root, "21")
    assert counts(dataset) == (21, 42, 84)
    assert len(dataset.class_names) == len(set(dataset.class_names)) == 21
    assert dataset.query.images.ids[2] == "images/0002_1544502942.jpg"
    assert dataset.query.labels.shape == (21, 21)
    assert np.flatnonzero(dataset.query.labels[2]).tolist() == [2, 4]
    assert dataset.overlaps.train_database == 42
    assert dataset.warnings == (
        "the lists have 21 queries, 42 training images and a database of 84; "
        "the usual split has 2,100 queries, 10,500 training images and a database of 193,734",
    )
    assert dataset.database.images[0].size == (40, 32)
    assert pickle.loads(pickle.dumps(dataset)).database.images[83].mode == "RGB"


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
def test_nuswide_images_may_be_in_other_folders(
    nuswide_tree: Callable[..., Path], stored: str, listed: str
) -> None:
    dataset = NUSWide().load(nuswide_tree(stored=stored, listed=listed), "21")
    assert dataset.train[3].mode == "RGB"


def test_nuswide_ids_do_not_depend_on_the_machine(nuswide_tree: Callable[..., Path], tmp_path: Path) -> None:
    root = nuswide_tree()
    before = NUSWide().load(root, "21").fingerprint
    (root / "nuswide/images").rename(root / "nuswide/Flickr")
    assert NUSWide().load(root.rename(tmp_path / "moved"), "21").fingerprint == before


def test_nuswide_absent(tmp_path: Path) -> None:
    with pytest.raises(HashbenchError) as raised:
        NUSWide().load(tmp_path / "none", "21")
    for part in ("agreement form", "lms.comp.nus.edu.sg", "DeepHash-pytorch", str(tmp_path / "none/nuswide")):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nuswide_with_a_list_missing(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree()
    (root / "nuswide/database.txt").unlink()
    with pytest.raises(HashbenchError, match=r"nuswide lacks database\.txt; all of train\.txt, test\.txt"):
        NUSWide().load(root, "21")


def test_nuswide_with_images_missing(nuswide_tree: Callable[..., Path]) -> None:
    root = nuswide_tree()
    for path in sorted((root / "nuswide/images").iterdir())[:3]:
        path.unlink()
    message = r"3 of 147 listed images .*the first is 'images/0000_1544502940\.jpg' \(.*test\.txt, line 1\)"
    with pytest.raises(HashbenchError, match=message):
        NUSWide().load(root, "21")


def test_nuswide_with_queries_in_the_database(nuswide_tree: Callable[..., Path]) -> None:
    folder = nuswide_tree() / "nuswide"
    leak = (folder / "test.txt").read_text().splitlines(keepends=True)[4]
    with (folder / "database.txt").open("a") as file:
        file.write(leak)
    dataset = NUSWide().load(folder.parent, "21")
    assert dataset.overlaps.query_database == 1
    with pytest.raises(HashbenchError, match=r"1 of 21 queries .*images/0004_1544502944\.jpg"):
        dataset.require_disjoint_queries()


# the guide


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "shapes.py").write_text(code)
    spec = importlib.util.spec_from_file_location("shapes", tmp_path / "shapes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plugin = module.DATASETS["shapes"]()

    with pytest.raises(HashbenchError, match="no images in"):
        plugin.load(tmp_path, "default")
    for name in ("circle", "square"):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (8, 8), "red").save(tmp_path / "shapes" / name / f"{index}.png")
    dataset = plugin.load(tmp_path, "default")
    assert counts(dataset) == (4, 6, 6)
    assert dataset.class_names == ("circle", "square")
    assert dataset.query.images.ids[0].startswith("circle/")
    assert dataset.train[0].getpixel((0, 0)) == (255, 0, 0)
