"""Published lists."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashbench.data.list_files import read_list, read_names, read_pair
from hashbench.data.list_splits import dataset_from_lists
from hashbench.data.options import LabelFormat, ListOptions
from hashbench.errors import HashbenchError

# Copies of lists that public repositories have, or of their first lines. They are not shipped with hashbench,
# since they are not ours to give away; these tests run only where the copies lie beside the repository.
LISTS = Path(__file__).parents[3] / "shared" / "lists"

pytestmark = pytest.mark.skipif(not LISTS.is_dir(), reason="the published lists are not here")


@pytest.mark.parametrize(
    ("name", "rows", "classes", "mean", "bare"),
    [
        ("deephash_pytorch/nuswide_21/test.txt", 2_100, 21, 3.315, 0),
        ("deephash_pytorch/nuswide_21/train.head500.txt", 500, 21, None, 0),
        ("deephash_pytorch/nuswide_21_m/test.txt", 2_100, 21, 2.898, 0),
        ("deephash_pytorch/nuswide_21_m/train.head500.txt", 500, 21, None, 0),
        ("deephash_pytorch/nuswide_81_m/test.head500.txt", 500, 81, None, 0),
        ("deephash_pytorch/nuswide_81_m/train.head500.txt", 500, 81, None, 0),
        ("deephash_pytorch/coco/test.txt", 5_000, 80, 2.951, 0),
        ("deephash_pytorch/coco/train.head500.txt", 500, 80, None, 0),
        ("deephash_pytorch/mirflickr/test.txt", 1_000, 38, 4.613, 19),
        ("deephash_pytorch/mirflickr/train.head500.txt", 500, 38, None, None),
        ("deephash_pytorch/mirflickr/database.head500.txt", 500, 38, None, None),
        ("deephash_pytorch/imagenet/test.txt", 5_000, 100, 1, 0),
        ("deephash_pytorch/imagenet/train.head500.txt", 500, 100, 1, 0),
        ("sdc/nuswide/test.txt", 2_100, 21, 3.309, 0),
        ("sdc/nuswide/train.head500.txt", 500, 21, None, 0),
        ("sdc/coco/test.head200.txt", 200, 80, None, 0),
        ("bihalf/Nuswide_I/test_sett1.txt", 2_100, 21, 3.330, 0),
        ("bihalf/Nuswide_II/test_sett2.txt", 5_000, 10, 1.774, 0),
        ("bihalf/Nuswide_II/train_sett2.head500.txt", 500, 10, None, 0),
        ("bihalf/Mscoco/test_coco.head200.txt", 200, 80, None, 0),
        ("hashnet/nuswide_81/test.head500.txt", 500, 81, None, None),
        ("hashnet/coco_overlap/test0.head100.txt", 100, 80, None, 0),
        ("hashnet/coco_overlap/database0.head200.txt", 200, 80, None, 0),
        ("hashnet/imagenet/database0.head100.txt", 100, 100, 1, 0),
        ("dpchash_baselines/mirflickr24/test.txt", 2_000, 24, 3.761, 35),
        ("dpchash_baselines/nuswide_10/test.txt", 5_000, 10, 2.339, 0),
        ("dpchash_baselines/nuswide_10/train.head500.txt", 500, 10, None, 0),
        ("deephashing_flickr25k/allannots.head500.txt", 500, 24, None, 0),
        ("odd/hhf_coco_no_final_newline/test.tail5.txt", 5, 80, None, 0),
        ("odd/csv/nuswide_81_test.head100.csv", 100, 81, None, None),
    ],
)
def test_multihot_lists(name: str, rows: int, classes: int, mean: float | None, bare: int | None) -> None:
    """The numbers of labels per row and of rows without labels are known for whole files."""
    entry = read_list(LISTS / name, None)
    assert len(entry.paths) == len(set(entry.paths)) == rows
    assert all(path.lower().endswith((".jpg", ".jpeg")) for path in entry.paths)
    assert entry.labels.shape == (rows, classes)
    if mean is not None:
        assert round(float(entry.labels.sum(axis=1).mean()), 3) == mean
    if bare is not None:
        assert (~entry.labels.any(axis=1)).sum() == bare


def test_imagenet_lists_have_as_many_images_of_each_class() -> None:
    one_hot = read_list(LISTS / "deephash_pytorch/imagenet/test.txt", 100)
    ids = read_list(LISTS / "sdc/imagenet/test.txt", 100)
    for entry in (one_hot, ids):
        assert (entry.labels.sum(axis=0) == 50).all()
    names = [[path.rpartition("/")[2] for path in entry.paths] for entry in (one_hot, ids)]
    labels = [
        dict(zip(paths, entry.labels.argmax(axis=1), strict=True))
        for paths, entry in zip(names, (one_hot, ids), strict=True)
    ]
    assert labels[0] == labels[1]


def test_imagenet_ids_are_places_among_the_synsets() -> None:
    synsets = read_names(LISTS / "imagenet100.synsets.txt")
    assert len(synsets) == 100
    entry = read_list(LISTS / "sdc/imagenet/train.head500.txt", 100)
    assert entry.labels.shape == (500, 100)
    for path, label in zip(entry.paths, entry.labels.argmax(axis=1), strict=True):
        assert path.rpartition("/")[2].startswith(f"{synsets[label]}_")


def test_class_ids_need_the_number_of_classes() -> None:
    with pytest.raises(HashbenchError, match=r"test\.txt has one value per line, .* label_format=id"):
        read_list(LISTS / "sdc/imagenet/test.txt", None)
    with pytest.raises(
        HashbenchError, match=r"test\.txt, line \d+: expected a class id from 0 to 98, got '99'"
    ):
        read_list(LISTS / "sdc/imagenet/test.txt", 99)


@pytest.mark.parametrize(
    ("names", "labels", "classes", "label_format", "rows", "mean"),
    [
        ("bihalf/Flickr25k/img.head500", "bihalf/Flickr25k/targets.head500", 24, "auto", 500, None),
        ("nuswide_tc21_split/test_img", "nuswide_tc21_split/test_label_onehot", 21, "auto", 2_100, 3.340),
        ("nuswide_tc21_split/test_img", "nuswide_tc21_split/test_label", 21, "auto", 2_100, 3.340),
        ("nuswide_tc21_split/test_img", "nuswide_tc21_split/test_label", 21, "ids", 2_100, 3.340),
        ("adsh_cifar10/test_img", "adsh_cifar10/test_label", 10, "auto", 1_000, 1),
    ],
)
def test_images_and_labels_apart(
    names: str, labels: str, classes: int, label_format: LabelFormat, rows: int, mean: float | None
) -> None:
    entry = read_pair(LISTS / f"{names}.txt", LISTS / f"{labels}.txt", classes, label_format)
    assert len(set(entry.paths)) == rows
    assert entry.labels.shape == (rows, classes)
    if mean is not None:
        assert round(float(entry.labels.sum(axis=1).mean()), 3) == mean
        assert entry.labels.any(axis=1).all()


@pytest.mark.parametrize(
    ("ids", "one_hot", "classes"),
    [
        ("test_label.txt", "test_label_onehot.txt", 21),
        ("targets_tc10.head500.txt", "targets_onehot_tc10.head500.txt", 10),
    ],
)
def test_ids_and_one_hot_rows_say_the_same(tmp_path: Path, ids: str, one_hot: str, classes: int) -> None:
    folder = LISTS / "nuswide_tc21_split"
    rows = len((folder / ids).read_text().splitlines())
    names = tmp_path / "img.txt"
    names.write_text("".join(f"{row}.jpg\n" for row in range(rows)))
    by_id = read_pair(names, folder / ids, classes, "ids")
    np.testing.assert_array_equal(by_id.labels, read_pair(names, folder / one_hot, classes).labels)
    assert by_id.labels.any(axis=1).all()


def test_ids_alone_are_counted_one_by_one(tmp_path: Path) -> None:
    labels = LISTS / "nuswide_tc21_split/database_label.head500.txt"
    names = tmp_path / "img.txt"
    names.write_text("".join(f"{row}.jpg\n" for row in range(500)))
    entry = read_pair(names, labels, 21, "ids")
    count = Counter(map(int, labels.read_text().split()))
    assert entry.labels.sum(axis=0).tolist() == [count[label] for label in range(21)]


def test_cifar_ids_are_in_each_class_as_often() -> None:
    folder = LISTS / "adsh_cifar10"
    entry = read_pair(folder / "test_img.txt", folder / "test_label.txt", 10)
    assert entry.labels.sum(axis=0).tolist() == [100] * 10
    assert entry.paths[:2] == ("test_img/1.png", "test_img/2.png")


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        (
            "odd/deephash_cifar10_no_labels/test.txt",
            10,
            "line 1: expected a path and labels, which the evaluation needs, got only a path",
        ),
        (
            "odd/nuswide_backslash/TestImagelist.head500.txt",
            None,
            "line 1: expected a path and labels, which the evaluation needs, got only a path",
        ),
        ("odd/mlmo_coco_counts/test.head200.txt", 80, "line 1: expected labels 0 or 1, got '3'; .*=counts"),
        ("odd/cmaeh_coco_truncated/test.tail5.txt", 80, "line 5: expected 80 labels, got 51 labels"),
        ("odd/cmaeh_coco_truncated/test.tail5.txt", None, "line 5: expected 80 labels, got 51 labels"),
        ("dpchash_baselines/nuswide_10/test.txt", 21, "line 1: expected 21 labels, got 10 labels"),
    ],
)
def test_odd_lists_are_refused(name: str, classes: int | None, message: str) -> None:
    with pytest.raises(HashbenchError, match=f"{Path(name).name}, {message}"):
        read_list(LISTS / name, classes)


def test_counts_are_read_if_they_are_said_to_be_counts() -> None:
    file = LISTS / "odd/mlmo_coco_counts/test.head200.txt"
    entry = read_list(file, 80, "counts")
    values = [[int(value) for value in line.split()[1:]] for line in file.read_text().splitlines()]
    assert max(map(max, values)) > 1
    np.testing.assert_array_equal(entry.labels, np.array(values) > 0)


def test_backslashes_are_folders() -> None:
    file = LISTS / "odd/nuswide_backslash/TestImagelist.head500.txt"
    assert file.read_text().count("\\") == 500
    labels = LISTS / "bihalf/Flickr25k/targets.head500.txt"  # of other images, but as many
    paths = read_pair(file, labels, 24).paths
    assert all(path.count("/") == 1 and "\\" not in path for path in paths)
    assert len(set(paths)) == 500


def copies(folder: Path, **lists: str) -> Path:
    """Copy lists under other names, and write an empty file for each image."""
    (folder / "images").mkdir()
    for name, source in lists.items():
        shutil.copy(LISTS / source, folder / f"{name}.txt")
        for path in read_list(folder / f"{name}.txt", None).paths:
            (folder / "images" / path.rpartition("/")[2]).touch()
    return folder


def load(folder: Path, **options: Any) -> Any:
    return dataset_from_lists("published", ListOptions(**options), [folder])


def test_hashnets_coco_queries_are_in_the_database(tmp_path: Path) -> None:
    overlap = "hashnet/coco_overlap"
    copies(
        tmp_path,
        test0=f"{overlap}/test0.head100.txt",
        database0=f"{overlap}/database0.head200.txt",
    )
    queries, database = (
        {line.split()[0] for line in (tmp_path / f"{name}0.txt").read_text().splitlines()}
        for name in ("test", "database")
    )
    assert len(queries) == 100
    assert queries < database
    (tmp_path / "train.txt").write_text((tmp_path / "database0.txt").read_text())
    dataset = load(tmp_path)
    assert dataset.overlaps.query_database == len(dataset.query.images) == 100
    assert dataset.overlaps.query_train == 100
    with pytest.raises(HashbenchError, match="100 of 100 queries are also in the database"):
        dataset.require_disjoint_queries()
    dataset = load(tmp_path, leaks="drop")
    assert dataset.overlaps.query_database == 0
    assert len(dataset.database.images) == 100
    assert "100 database images that are also queries are left out" in dataset.warnings


def test_one_list_under_three_prefixes_has_one_fingerprint(tmp_path: Path) -> None:
    """HashNet, BiHalf and sdc have the same queries; their paths only differ before `val2014/`."""
    sources = (
        "hashnet/coco_overlap/test0.head100.txt",
        "bihalf/Mscoco/test_coco.head200.txt",
        "sdc/coco/test.head200.txt",
    )
    made = []
    for place, source in enumerate(sources):
        folder = tmp_path / str(place)
        folder.mkdir()
        copies(folder, database=source)
        first = (folder / "database.txt").read_text().splitlines(keepends=True)[:100]
        for part in ("train", "test", "database"):
            (folder / f"{part}.txt").write_text("".join(first))
        made.append(load(folder))
    assert made[0].query.images.ids[0] == "val2014/COCO_val2014_000000477705.jpg"
    assert len({dataset.fingerprint for dataset in made}) == 1


def test_hashnets_unlabelled_queries_are_counted(tmp_path: Path) -> None:
    name = "hashnet/nuswide_81/test.head500.txt"
    bare = sum("1" not in line.split()[1:] for line in (LISTS / name).read_text().splitlines())
    assert bare > 50
    copies(tmp_path, train=name, test=name, database=name)
    warning = f"{bare:,} of 500 queries have no label, so no database image is relevant to them"
    assert warning in load(tmp_path).warnings
    assert len(load(tmp_path, unlabelled="drop").query.images) == 500 - bare
    with pytest.raises(HashbenchError, match=f"{bare} of 500 queries have no label; remove them"):
        load(tmp_path, unlabelled="error")


def test_as_many_unlabelled_queries_as_hashnets_whole_list_has(tmp_path: Path) -> None:
    """1,131 of its 5,000 queries have no label."""
    (tmp_path / "images").mkdir()
    rows = [f"./data/nuswide_81/images/{row}_m.jpg {int(row >= 1_131)} 0 0\n" for row in range(5_000)]
    for row in range(5_000):
        (tmp_path / f"images/{row}_m.jpg").touch()
    (tmp_path / "test.txt").write_text("".join(rows))
    for part in ("train", "database"):
        (tmp_path / f"{part}.txt").write_text("".join(rows[-100:]))
    warnings = load(tmp_path).warnings
    assert any(warning.startswith("1,131 of 5,000 queries have no label") for warning in warnings)
