"""ImageNet-100: folders of synsets, and list files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.trees import imagenet_100, photo

from hashbench import load_dataset
from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError
from hashbench_datasets.imagenet100 import SYNSETS


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a small copy with three images per synset."""
    imagenet_100(tmp_path / "data", monkeypatch)
    return tmp_path / "data"


def test_the_synsets() -> None:
    assert len(SYNSETS) == 100
    assert list(SYNSETS) == sorted(set(SYNSETS))
    # Of published lists: a line of class 33, of class 43 and of class 31.
    assert [SYNSETS.index(name) for name in ("n02256656", "n02834397", "n02113023")] == [33, 43, 31]


@pytest.mark.parametrize("folder", ["imagenet", "imagenet100", ".", "downloads/ILSVRC"])
def test_the_class_is_the_place_of_the_synset(root: Path, folder: str) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    if folder != "imagenet":
        for part in ("train", "val"):
            (root / "imagenet" / part).rename(root / folder / part)
    dataset = load_dataset("imagenet100", "13k", root)
    assert dataset.class_names == SYNSETS
    assert dataset.query.labels.tolist() == list(range(100))
    assert dataset.database.labels.tolist() == [label for label in range(100) for _ in range(2)]
    assert np.bincount(dataset.train_labels).tolist() == [1] * 100
    assert dataset.query.images.ids[7] == "ILSVRC2012_val_00000007.JPEG"
    assert dataset.database.images.ids[15] == f"{SYNSETS[7]}_1.JPEG"
    assert set(dataset.train.ids) < set(dataset.database.images.ids)


def test_other_synsets_do_not_matter(root: Path) -> None:
    before = load_dataset("imagenet100", None, root).fingerprint
    for path in ("train/n01440764/n01440764_1.JPEG", "val/n15075141/ILSVRC2012_val_00000001.JPEG"):
        photo(root / "imagenet" / path, 0, 0)
    photo(root / "imagenet/train/stray.JPEG", 0, 0)
    assert load_dataset("imagenet100", None, root).fingerprint == before


@pytest.mark.parametrize(("part", "what"), [("train", "database images"), ("val", "query images")])
def test_missing_synsets_are_named(root: Path, part: str, what: str) -> None:
    for label in (41, 7):
        shutil.rmtree(root / "imagenet" / part / SYNSETS[label])
    message = rf"^imagenet100: 2 of 100 synsets have no {what} in {root}/imagenet, such as {SYNSETS[7]}$"
    with pytest.raises(HashbenchError, match=message):
        load_dataset("imagenet100", None, root)


def test_a_class_with_too_few_training_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashbench_datasets.imagenet100.TRAIN_PER_CLASS", {"13k": 3})
    with pytest.raises(
        HashbenchError,
        match=r"draws 300 labelled images, and there are 200 \(3 per class, and class 0 has 2\)",
    ):
        load_dataset("imagenet100", "13k", root)


def test_validation_images_without_folders(root: Path) -> None:
    for path in list((root / "imagenet/val").glob("*/*")):
        path.rename(root / "imagenet/val" / path.name)
    message = (
        rf"{root}/imagenet/val has no images; expected one folder per class, such as .*/val/n01514668/1\.jpg"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("imagenet100", None, root)


def test_how_to_get_it(tmp_path: Path) -> None:
    message = (
        rf"^imagenet100: no train/n01514668/ in {tmp_path}, nor .*\n[^$]*image-net\.org, after you agree"
    )
    with pytest.raises(HashbenchError, match=message):
        load_dataset("imagenet100", None, tmp_path)


@pytest.mark.parametrize("queries", ["query", "test"])
def test_folders_decide(root: Path, queries: str) -> None:
    folder = root / "imagenet"
    (folder / "val").rename(folder / queries)
    (folder / "train").rename(folder / "database")
    for label in (3, 50):
        name = f"{SYNSETS[label]}_1.JPEG"
        (folder / "train" / SYNSETS[label]).mkdir(parents=True)
        shutil.copy(folder / "database" / SYNSETS[label] / name, folder / "train" / SYNSETS[label] / name)
    dataset = load_dataset("imagenet100", "folders", root)
    assert dataset.train.ids == tuple(f"{SYNSETS[n]}_1.JPEG" for n in (3, 50))
    assert dataset.train_labels.tolist() == [3, 50]
    assert dataset.overlaps.train_database == 2
    assert (len(dataset.query.images), len(dataset.database.images)) == (100, 200)


def test_queries_that_are_in_the_database_folder_are_found(root: Path) -> None:
    folder = root / "imagenet"
    (folder / "val").rename(folder / "query")
    shutil.copytree(folder / "train", folder / "database")
    query = next((folder / "query" / SYNSETS[5]).iterdir())
    shutil.copy(query, folder / "database" / SYNSETS[5] / query.name)
    dataset = load_dataset("imagenet100", "folders", root)
    assert dataset.overlaps.query_database == 1
    assert dataset.overlaps.train_database == 200


def write_lists(root: Path, folder: Path, *, one_hot: bool) -> Dataset:
    """Write lists with flat folders, as in HashNet's archive, and return their dataset."""
    dataset = load_dataset("imagenet100", "13k", root)
    (root / "imagenet/image").mkdir()
    (root / "imagenet/val_image").mkdir()
    folder.mkdir()
    for part, images, labels in (
        ("train", dataset.train, dataset.train_labels),
        ("test", dataset.query.images, dataset.query.labels),
        ("database", dataset.database.images, dataset.database.labels),
    ):
        flat = "val_image" if part == "test" else "image"
        lines = []
        for path, label in zip(images.ids, labels.tolist(), strict=True):
            name = Path(path).name
            if part != "train":
                (file,) = (root / "imagenet").glob(f"*/*/{name}")
                file.rename(root / "imagenet" / flat / name)
            row = " ".join("1" if column == label else "0" for column in range(100))
            lines.append(f"./data/imagenet/{flat}/{name} {row if one_hot else label}\n")
        (folder / f"{part}.txt").write_text("".join(lines))
    return dataset


@pytest.mark.parametrize("one_hot", [True, False])
def test_lists(root: Path, tmp_path: Path, one_hot: bool) -> None:
    dataset = write_lists(root, tmp_path / "lists", one_hot=one_hot)
    shown = load_dataset("imagenet100", "lists", root, lists=tmp_path / "lists")
    assert shown.class_names == SYNSETS
    for part, other in ((shown.query, dataset.query), (shown.database, dataset.database)):
        assert [Path(path).name for path in part.images.ids] == [Path(path).name for path in other.images.ids]
        np.testing.assert_array_equal(part.labels.argmax(axis=1), other.labels)
        assert (part.labels.sum(axis=1) == 1).all()
    assert shown.fingerprint == dataset.fingerprint
    assert shown.overlaps.train_database == 100
    assert shown.train[0].size == (20, 16)


@pytest.mark.parametrize("label", ["100", "-1", "n01514668"])
def test_a_class_id_that_is_none(root: Path, tmp_path: Path, label: str) -> None:
    write_lists(root, tmp_path / "lists", one_hot=False)
    file = tmp_path / "lists/test.txt"
    file.write_text(file.read_text().replace("00000004.JPEG 4\n", f"00000004.JPEG {label}\n"))
    with pytest.raises(
        HashbenchError, match=rf"{file}, line 5: expected a class id from 0 to 99, got '{label}'"
    ):
        load_dataset("imagenet100", "lists", root, lists=tmp_path / "lists")
