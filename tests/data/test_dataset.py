from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.caching import NullCache
from PIL import Image

from hashbench.data.dataset import Dataset, Split
from hashbench.data.load import default_root, load_dataset
from hashbench.data.options import DataOptions
from hashbench.data.protocol import Overlaps, Protocol, fingerprint
from hashbench.data.verify import verify
from hashbench.encoding.feature_cache import cache_folder
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation.counts.kernels import compiled
from hashbench.images.image_sets import ArrayImages, FileImages, Images


def grey(ids: list[str]) -> ArrayImages:
    return ArrayImages(np.arange(len(ids) * 6, dtype=np.uint8).reshape(-1, 2, 3), ids)


def make(options: DataOptions | None = None, **parts: Any) -> Dataset:
    """Create a dataset of two classes; each part is (ids, labels)."""
    usual = {"train": (["t1", "t2"], [0, 1]), "query": (["q1"], [0]), "database": (["d1", "d2"], [1, 0])}
    splits = {name: Split(grey(ids), np.array(labels)) for name, (ids, labels) in (usual | parts).items()}
    return Dataset.from_splits(
        "toy",
        "default",
        ["cat", "dog"],
        train=splits["train"],
        query=splits["query"],
        database=splits["database"],
        options=options,
    )


def test_array_images_give_rgb() -> None:
    images = grey(["a", "b"])
    assert len(images) == 2
    assert images[1].mode == "RGB"
    assert images[1].size == (3, 2)
    np.testing.assert_array_equal(np.asarray(images[1])[..., 2], [[6, 7, 8], [9, 10, 11]])
    colour = ArrayImages(np.full((1, 2, 2, 3), (1, 2, 3), np.uint8), ["c"])
    assert colour[0].getpixel((1, 1)) == (1, 2, 3)
    with pytest.raises(IndexError):
        images[2]


def test_subsets_keep_the_order_asked_for(tmp_path: Path) -> None:
    for index in range(3):
        Image.new("L", (4, 4), index * 100).save(tmp_path / f"{index}.png")
    files = FileImages([tmp_path / f"{index}.png" for index in range(3)], ["a", "b", "c"])
    arrays = ArrayImages(np.repeat(np.array([0, 100, 200], np.uint8), 16).reshape(3, 4, 4), ["a", "b", "c"])
    for images in (files.subset(np.array([2, 0])), arrays.subset(np.array([2, 0]))):
        assert images.ids == ("c", "a")
        assert [images[index].getpixel((0, 0)) for index in range(2)] == [(200,) * 3, (0,) * 3]


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    with pytest.raises(HashbenchError, match=r"a\.jpg"):
        FileImages([tmp_path / "a.jpg"], ["a"])[0]


@pytest.mark.parametrize("array", [np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2, 4), np.uint8)])
def test_arrays_of_another_kind_are_errors(array: Any) -> None:
    with pytest.raises(HashbenchError, match="expected uint8"):
        ArrayImages(array, ["a"])


def test_images_and_ids_go_together() -> None:
    with pytest.raises(HashbenchError, match="expected as many images as ids, got 1 images and 2 ids"):
        ArrayImages(np.zeros((1, 2, 2), np.uint8), ["a", "b"])
    with pytest.raises(HashbenchError, match="expected as many paths as ids, got 1 paths and 2 ids"):
        FileImages([Path("a")], ["a", "b"])


def test_training_images_carry_no_labels() -> None:
    dataset = make()
    assert isinstance(dataset.train, Images)
    assert not hasattr(dataset.train, "labels")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.overlaps == Overlaps(0, 0, 0)
    assert dataset.warnings == ()
    assert dataset.query.labels.dtype == np.int64
    assert dataset.fingerprint == fingerprint(
        (["t1", "t2"], np.array([0, 1])), (["q1"], np.array([0])), (["d1", "d2"], np.array([1, 0]))
    )


def test_labels_of_training_images_enter_the_fingerprint() -> None:
    assert make().fingerprint != make(train=(["t1", "t2"], [1, 1])).fingerprint


def test_multi_hot_labels_become_bytes() -> None:
    dataset = make(train=(["t"], [[True, False]]), query=(["q"], [[1.0, 0.0]]), database=(["d"], [[1, 1]]))
    assert dataset.query.labels.dtype == dataset.database.labels.dtype == np.uint8
    assert dataset.query.labels.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"query": ([], [])}, "toy: query has no images"),
        ({"query": (["q"], [0, 1])}, "toy: query has 1 images, but 2 rows of labels"),
        ({"database": (["d", "d"], [0, 1])}, "toy: database has the id 'd' 2 times"),
        ({"train": (["t"], [2])}, "toy: train: expected class ids from 0 to 1, got 2 to 2"),
        ({"train": (["t"], [-1])}, "expected class ids from 0 to 1, got -1 to -1"),
        ({"query": (["q"], [0.5])}, "expected integers as class ids, got float64"),
        ({"query": (["q"], [[0, 1, 0]])}, r"expected labels of shape \[n\] or \[n, 2\], got \[1, 3\]"),
        ({"query": (["q"], [[0, 2]])}, "expected 0 or 1 in multi-hot labels, got 2"),
        ({"query": (["q"], [[0, float("nan")]])}, "expected 0 or 1 in multi-hot labels, got nan"),
        ({"query": (["q"], [[0, 1]])}, "some parts have class ids and some multi-hot labels"),
    ],
)
def test_what_does_not_fit_is_an_error(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(HashbenchError, match=message):
        make(**parts)


def test_images_without_labels_are_counted_in_warnings() -> None:
    dataset = make(
        train=(["t"], [[0, 0]]),
        query=(["q1", "q2"], [[0, 0], [1, 0]]),
        database=(["d1", "d2", "d3"], [[0, 0], [0, 0], [1, 1]]),
    )
    assert dataset.warnings == (
        "1 of 2 queries have no label, so no database image is relevant to them",
        "2 of 3 database images have no label, so they are relevant to no query",
    )


def test_queries_seen_in_training_are_a_warning() -> None:
    (warning,) = make(query=(["t2", "q"], [0, 1])).warnings
    assert warning.startswith("1 of 2 queries are also training images")


def test_queries_in_the_database_are_refused_on_request() -> None:
    make().require_disjoint_queries()
    dataset = make(query=(["q", "d2", "d1"], [0, 1, 1]))
    assert dataset.overlaps.query_database == 2
    with pytest.raises(HashbenchError, match=r"2 of 3 queries .* such as 'd2'.*--allow-overlap"):
        dataset.require_disjoint_queries()


LEAKING = {
    "train": (["t"], [[1, 0]]),
    "query": (["q", "d2", "bare"], [[0, 1], [1, 1], [0, 0]]),
    "database": (["d1", "d2", "none"], [[1, 0], [1, 1], [0, 0]]),
}


def test_queries_are_taken_out_of_the_database_on_request() -> None:
    kept, dropped = make(**LEAKING), make(DataOptions(leaks="drop"), **LEAKING)
    assert kept.overlaps.query_database == 1
    assert dropped.overlaps.query_database == 0
    assert dropped.database.images.ids == ("d1", "none")
    assert dropped.database.labels.tolist() == [[1, 0], [0, 0]]
    assert dropped.query.images.ids == kept.query.images.ids
    assert dropped.warnings[0] == "1 database images that are also queries are left out"
    assert dropped.fingerprint != kept.fingerprint
    assert dropped.options["leaks"] == "drop"


def test_images_without_labels_are_left_out_on_request() -> None:
    dropped = make(DataOptions(unlabelled="drop"), **LEAKING)
    assert dropped.query.images.ids == ("q", "d2")
    assert dropped.database.images.ids == ("d1", "d2")
    assert dropped.warnings == (
        "1 queries without a label are left out",
        "1 database images without a label are left out",
    )
    with pytest.raises(HashbenchError, match="toy: 1 of 3 queries have no label; remove them or pass"):
        make(DataOptions(unlabelled="error"), **LEAKING)
    assert make(DataOptions(unlabelled="error", leaks="drop")).warnings == ()


def test_dropping_all_is_an_error() -> None:
    with pytest.raises(HashbenchError, match="toy: only queries without a label were found"):
        make(
            DataOptions(unlabelled="drop"),
            train=(["t"], [[1, 0]]),
            query=(["q"], [[0, 0]]),
            database=(["d"], [[1, 0]]),
        )


def test_datasets_pickle() -> None:
    dataset = make()
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.fingerprint == dataset.fingerprint
    assert copy.train.ids == dataset.train.ids
    assert copy.train[1].tobytes() == dataset.train[1].tobytes()


def test_the_root_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASHBENCH_DATA", "/somewhere")
    assert default_root() == Path("/somewhere")
    monkeypatch.delenv("HASHBENCH_DATA")
    assert default_root() == Path.home() / ".cache/hashbench/data"


def test_describing_datasets_imports_no_torch() -> None:
    code = (
        "import sys, hashbench.data.list_files, hashbench_datasets.digits, hashbench_datasets.fashionmnist, "
        "hashbench_datasets.nuswide, hashbench_datasets.cifar10, hashbench_datasets.folder; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_in_memory_are_told_apart_by_their_pixels() -> None:
    one, same = make(), make()
    assert one.options["files"] == same.options["files"]
    other = Split(ArrayImages(np.full((1, 2, 3), 9, np.uint8), ["q1"]), np.array([0]))
    changed = Dataset.from_splits(
        "toy",
        "default",
        ["cat", "dog"],
        train=Split(one.train, one.train_labels),
        query=other,
        database=one.database,
    )
    assert changed.fingerprint == one.fingerprint
    assert changed.options["files"] != one.options["files"]


@pytest.mark.parametrize("image_id", ["/data/1.jpg", "\\\\server\\1.jpg"])
def test_a_path_of_this_machine_is_no_id(image_id: str) -> None:
    with pytest.raises(HashbenchError, match="an absolute path; make it relative"):
        make(query=([image_id], [0]))


def test_images_without_labels() -> None:
    part = Split(grey(["a"]), np.zeros((1, 0), np.uint8))
    dataset = Dataset.from_splits("toy", "p", [], train=part, query=part, database=part)
    assert dataset.warnings == (
        "1 of 1 queries are also training images, so the results say little about unseen images",
    )
    options = DataOptions(unlabelled="error")
    with pytest.raises(HashbenchError, match="toy: 1 of 1 queries have no label; remove them"):
        Dataset.from_splits("toy", "p", [], train=part, query=part, database=part, options=options)
    part = Split(grey(["a"]), np.zeros(1, np.int64))
    with pytest.raises(HashbenchError, match=r"toy: train has no classes; .* labels of shape \[n, 0\]"):
        Dataset.from_splits("toy", "p", [], train=part, query=part, database=part)


@pytest.mark.parametrize("labels", [[0, 0], [[1], [1]]])
def test_a_single_class_is_an_error(labels: Any) -> None:
    part = Split(grey(["a", "b"]), np.array(labels))
    message = "toy: all queries and all database images have the class 'cat', the only one, so any code"
    with pytest.raises(HashbenchError, match=message):
        Dataset.from_splits("toy", "p", ["cat"], train=part, query=part, database=part)


def test_a_single_class_that_not_all_images_have_is_measured() -> None:
    part = Split(grey(["a", "b"]), np.array([[1], [0]]))
    dataset = Dataset.from_splits("toy", "p", ["cat"], train=part, query=part, database=part)
    assert not [warning for warning in dataset.warnings if "any code" in warning]


@pytest.mark.parametrize("labels", [[0, 0], [[1, 1], [1, 0]], [[1, 0], [1, 0]]])
def test_a_class_that_all_images_have_is_a_warning(labels: Any) -> None:
    warning = "all queries and all database images have the class 'cat', so any code has mAP 1"
    rows = (["a", "b"], labels)
    assert make(train=rows, query=(["q", "r"], labels), database=rows).warnings == (warning,)
    other = [1, 0] if np.ndim(labels) == 1 else [[1, 0], [0, 1]]
    assert make(train=rows, query=(["q", "r"], labels), database=(["a", "b"], other)).warnings == ()


@pytest.mark.parametrize("value", ["", "  ", None])
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("HASHBENCH_DATA", raising=False)
    monkeypatch.delenv("HASHBENCH_CACHE", raising=False)
    expected = default_root(), cache_folder()
    if value is not None:
        monkeypatch.setenv("HASHBENCH_DATA", value)
        monkeypatch.setenv("HASHBENCH_CACHE", value)
    assert (default_root(), cache_folder()) == expected
    assert default_root() == Path("~/.cache/hashbench/data").expanduser()


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a user without a home folder, as in a container."""
    pwd = pytest.importorskip("pwd")

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    for variable in ("HOME", "HASHBENCH_DATA", "HASHBENCH_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_a_root_is_asked_for_only_when_needed(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "this user has no home folder; set the data root with --data-root DIR or $HASHBENCH_DATA"
    assert len(load_dataset("digits").train) == 1597
    assert cli("data", "info", "digits").code == 0
    assert cache_folder() is None
    with pytest.raises(UsageError, match=re.escape(line)):
        load_dataset("cifar10")
    for command in (["run", "--method", "lsh", "--dataset", "cifar10"], ["data", "prepare", "digits"]):
        done = cli(*command)
        assert (done.code, done.err) == (2, f"hashbench: error: {line}\n")
    monkeypatch.setenv("HASHBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(UsageError, match=re.escape(f"the folder {tmp_path / 'data'} does not exist")):
        load_dataset("folder")


@pytest.mark.usefixtures("no_home")
def test_without_a_home_folder_numba_makes_none() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    loop: Any = compiled(add)
    assert isinstance(loop._cache, NullCache)
    assert loop(1, 2) == 3


@pytest.mark.parametrize("root", ["", " "])
def test_an_empty_root_is_not_the_current_folder(root: str) -> None:
    with pytest.raises(UsageError, match="root is empty"):
        load_dataset("digits", root=root)


# training images without labels, and fractions


def test_training_images_need_no_labels() -> None:
    bare: dict[str, Any] = {"train": (["t1", "d1"], np.zeros((2, 0)))}
    by_id = make(**bare, query=(["q1"], [1]))
    several = make(**bare, query=(["q1"], [[0, 1]]), database=(["d1", "d2"], [[0, 1], [1, 0]]))
    for dataset in (by_id, several):
        assert dataset.train_labels.shape == (2, 0)
        assert dataset.overlaps == Overlaps(0, 0, 1)
        assert dataset.warnings == ()
        found = verify(dataset, Protocol("", 1, 2, 2))
        assert (found.problems, found.unlabelled) == ([], {"train": 2, "query": 0, "database": 0})
        assert found.duplicates.conflicting == []
    rows = np.zeros((2, 2), np.uint8)
    parts = (["t1", "d1"], rows), (["q1"], np.array([1])), (["d1", "d2"], np.array([1, 0]))
    assert by_id.fingerprint == fingerprint(*parts)
    with pytest.raises(HashbenchError, match=r"toy: query: expected labels of shape \[n\] or \[n, 2\]"):
        make(query=(["q1"], np.zeros((1, 0))))


@pytest.mark.parametrize("limit", [0, -1, "5", 2.5, True, 10**9])
def test_a_limit_is_a_number_of_images(limit: Any) -> None:
    with pytest.raises(UsageError, match="limit: expected a number of images from 1 to 999,999,999, got"):
        load_dataset("digits", limit=limit)
    with pytest.raises(UsageError, match="default-limit7 has another limit than 8; omit one of them"):
        load_dataset("digits", "default-limit7", limit=8)
    assert len(load_dataset("digits", "default-limit7", limit=7).query.images) == 7


def test_a_fraction_of_each_part() -> None:
    ids = [f"i{number:02d}" for number in range(20)]
    labels = [number % 2 for number in range(20)]
    parts = {
        "train": (ids, labels),
        "query": ([f"q{n}" for n in range(10)], labels[:10]),
        "database": (ids, labels),
    }
    whole = make(**parts)
    part = make(DataOptions(fraction=0.3), **parts)
    drawn = np.sort(np.random.RandomState(0).permutation(20)[:6])
    assert part.train.ids == part.database.images.ids == tuple(ids[row] for row in drawn)
    assert part.database.labels.tolist() == (drawn % 2).tolist()
    assert len(part.query.images) == 3
    assert part.overlaps.train_database == 6
    assert part.fingerprint != whole.fingerprint
    assert part.options["fraction"] == 0.3
    assert part.options["files"] != whole.options["files"]
    assert part.warnings == ("limited to a fraction of 0.3 of each part, for a first try only",)
    assert make(DataOptions(fraction=0.3, seed=1), **parts).fingerprint != part.fingerprint
    assert Protocol("", 10, None, 3).scaled(0.05).counts == {"query": 1, "train": None, "database": 1}
