from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import sys
import tarfile
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from helpers.cifar_files import PER_BATCH, Global, batch, pixel, python2_call, python2_pickle
from PIL import Image

from hashbench.data.dataset import Dataset, Split
from hashbench.data.download import Archive
from hashbench.errors import HashbenchError, UsageError
from hashbench.images.image_sets import ArrayImages
from hashbench_datasets import cifar10
from hashbench_datasets.cifar10 import CIFAR10, FIXED, draw_split

SEEDED = ("54k", "59k", "50k")
FOLDER = "cifar-10-batches-py"


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.query.images), len(dataset.train), len(dataset.database.images)


# files


def place(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def md5_of(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.md5(files[name]).hexdigest() for name in cifar10.MD5}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Write the files of a CIFAR-10 with 50 + 10 images, which the plugin accepts."""
    files = {name: python2_pickle(batch(number)) for number, name in enumerate(cifar10.MD5)}
    files["batches.meta"] = python2_pickle({"label_names": list(cifar10.CLASSES)})
    monkeypatch.setattr(cifar10, "MD5", md5_of(files))
    monkeypatch.setattr(cifar10, "TRAIN_IMAGES", 5 * PER_BATCH)
    monkeypatch.setattr(CIFAR10, "downloads", ())  # nothing to fall back on
    return files


def test_the_files_are_those_of_torchvision() -> None:
    theirs = torchvision.datasets.CIFAR10
    assert list(cifar10.MD5.items()) == [(name, md5) for name, md5 in theirs.train_list + theirs.test_list]
    (archive,) = CIFAR10.downloads
    assert (archive.url, archive.path, archive.md5) == (theirs.url, theirs.filename, theirs.tgz_md5)
    assert archive.unpacked == theirs.base_folder == FOLDER


@pytest.mark.parametrize("folder", [FOLDER, f"cifar10/{FOLDER}"])
def test_files_that_are_there_are_read(tmp_path: Path, small: dict[str, bytes], folder: str) -> None:
    place(tmp_path / folder, small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = CIFAR10().load(tmp_path, "spq")
    assert (dataset.name, dataset.protocol, dataset.class_names) == ("cifar10", "spq", cifar10.CLASSES)
    assert counts(dataset) == (10, 50, 50)
    assert dataset.query.images.ids == tuple(f"test/{i:05d}" for i in range(10))
    assert dataset.database.images.ids == dataset.train.ids == tuple(f"train/{i:05d}" for i in range(50))
    assert dataset.query.labels.dtype == np.int64
    assert dataset.query.labels.tolist() == batch(5)["labels"]
    assert dataset.database.labels[20:30].tolist() == batch(2)["labels"]
    assert dataset.warnings == ()
    assert dataset.fingerprint == "cc2884795de8c3bb37b78d57e5c3fe021e96d5273d31dd530c3055faf6d4ce78"

    for images, index, number in ((dataset.train, 23, 23), (dataset.query.images, 4, 54)):
        shown = np.asarray(images[index])
        assert shown.shape == (32, 32, 3)
        for row, column in ((0, 0), (0, 31), (31, 0), (17, 5)):
            expected = [pixel(number, channel, row, column) for channel in range(3)]
            assert shown[row, column].tolist() == expected


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda content: content[:-100], "expected the MD5 {md5}, got {found}"),
        (lambda content: content.replace(b"picture_4", b"picture_5"), "expected the MD5 {md5}, got {found}"),
        (lambda content: b"<html>", "expected the MD5 {md5}, got {found}"),
        (None, "No such file or directory"),
    ],
    ids=["truncated", "changed", "web page", "missing"],
)
def test_a_damaged_batch_is_named(
    tmp_path: Path, small: dict[str, bytes], name: str, harm: Any, reason: str
) -> None:
    folder = place(tmp_path / FOLDER, small)
    path = folder / name
    if harm:
        path.write_bytes(harm(small[name]))
        reason = reason.format(found=hashlib.md5(path.read_bytes()).hexdigest(), md5=cifar10.MD5[name])
    else:
        path.unlink()
    message = (
        rf"^{re.escape(str(path))} is not the published batch of CIFAR-10 \(.*{reason}.*\); "
        r"delete or move all batches there, and the next run downloads them$"
    )
    with pytest.raises(HashbenchError, match=message):
        CIFAR10().load(tmp_path, "spq")


class Runs:
    """An object that is pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


ALIEN = {
    "no labels": (
        python2_pickle({"data": batch(0)["data"], "fine_labels": [3] * 10, "coarse_labels": [1] * 10}),
        "expected the key labels, got coarse_labels, data, fine_labels",
    ),
    "a command": (
        pickle.dumps({"data": Runs(os.system, "touch run"), "labels": []}, protocol=2),
        rf"it refers to {os.system.__module__}\.system, which could execute any code",
    ),
    "Python 2's eval": (
        b"\x80\x02" + python2_call(Global("__builtin__", "eval"), "open('run', 'w')") + b".",
        r"it refers to __builtin__\.eval, which",
    ),
    "other NumPy": (
        b"\x80\x02" + python2_call(Global("numpy", "save"), "run", 0) + b".",
        r"it refers to numpy\.save, which",
    ),
    "a method by its name": (
        pickle.dumps(Runs(np.ndarray.tofile, np.zeros(1), "run"), protocol=4),
        r"it refers to builtins\.getattr, which",
    ),
}


@pytest.mark.parametrize(("content", "reason"), ALIEN.values(), ids=ALIEN.keys())
def test_an_alien_pickle_of_the_right_md5_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, bytes], content: bytes, reason: str
) -> None:
    small["data_batch_2"] = content
    monkeypatch.setattr(cifar10, "MD5", md5_of(small))
    place(tmp_path / "data" / FOLDER, small)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HashbenchError, match=rf"/data_batch_2 is not the published batch .*\({reason}"):
        CIFAR10().load(tmp_path / "data", "spq")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# other forms and folders


def in_binary_form(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the content of the small dataset's binary batches, which the plugin accepts."""
    contents = {}
    for number, name in enumerate(cifar10.MD5):
        one = batch(number)
        rows = zip(one["labels"], one["data"], strict=True)
        contents[name] = b"".join(bytes([label]) + pixels.tobytes() for label, pixels in rows)
    digests = {name: hashlib.sha1(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(cifar10, "SHA1", digests)
    return contents


def write_parquet(folder: Path, batches: dict[str, list[int]], image: str = "img") -> None:
    """Write Parquet files like those of Hugging Face, with the batches of each file in the given order."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True)
    for name, numbers in batches.items():
        images, labels = [], []
        for number in numbers:
            one = batch(number)
            labels += one["labels"]
            for pixels in one["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                images.append({"bytes": buffer.getvalue(), "path": None})
        (folder / name).parent.mkdir(exist_ok=True)
        parquet.write_table(pyarrow.table({image: images, "label": labels}), folder / name)


# The order of Hugging Face is that of the batches in the published archive.
PUBLISHED_PARQUET = {"train-00000-of-00001.parquet": [3, 2, 1, 4, 0], "test-00000-of-00001.parquet": [5]}


def require_same_run(dataset: Dataset) -> None:
    """Check that a run on the dataset is the same as one on the pickled batches."""
    assert dataset.fingerprint == "cc2884795de8c3bb37b78d57e5c3fe021e96d5273d31dd530c3055faf6d4ce78"
    assert dataset.options["files"] == "d1d44e225bded813"
    assert dataset.query.labels.tolist() == batch(5)["labels"]
    assert dataset.train.ids[23] == "train/00023"
    assert np.asarray(dataset.train[23])[31, 5].tolist() == [
        pixel(23, channel, 31, 5) for channel in range(3)
    ]
    assert dataset.warnings == ()


@pytest.mark.parametrize(
    "folder",
    [
        "cifar-10-python/cifar-10-batches-py",
        ".",
        f"{FOLDER}/{FOLDER}",
        "cifar10",
        "downloads/cifar",
        "cifar10/a/b",
    ],
)
def test_batches_that_lie_elsewhere_are_found(tmp_path: Path, small: dict[str, bytes], folder: str) -> None:
    place(tmp_path / "data" / folder, small)
    require_same_run(CIFAR10().load(tmp_path / "data", "spq"))


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "cifar-10-binary/cifar-10-batches-bin", "."])
def test_the_binary_version_is_the_same_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, bytes], folder: str
) -> None:
    contents = in_binary_form(monkeypatch)
    place(tmp_path / "data" / folder, {f"{name}.bin": content for name, content in contents.items()})
    require_same_run(CIFAR10().load(tmp_path / "data", "spq"))


@pytest.mark.parametrize("harm", [lambda content: content[:-1], lambda content: b"\1" + content[1:], None])
def test_a_damaged_binary_batch_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, bytes], harm: Any
) -> None:
    contents = {f"{name}.bin": content for name, content in in_binary_form(monkeypatch).items()}
    content = contents.pop("data_batch_4.bin")
    folder = place(tmp_path / "cifar-10-batches-bin", contents)
    if harm:
        (folder / "data_batch_4.bin").write_bytes(harm(content))
    problem = f"expected the SHA1 {cifar10.SHA1['data_batch_4']}, got" if harm else ".*No such file"
    message = rf"^{folder}/data_batch_4\.bin is not the published batch of CIFAR-10 \({problem}"
    with pytest.raises(HashbenchError, match=message):
        CIFAR10().load(tmp_path, "spq")


@pytest.mark.parametrize(
    ("folder", "files", "image"),
    [
        ("cifar10/plain_text", PUBLISHED_PARQUET, "img"),
        ("uoft-cs--CIFAR-10", PUBLISHED_PARQUET, "image"),
        (
            "cifar10",
            {"train/0000.parquet": [0, 1, 2], "train/0001.parquet": [3, 4], "test/0000.parquet": [5]},
            "img",
        ),
    ],
)
def test_parquet_files_are_the_same_dataset(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: dict[str, bytes],
    folder: str,
    files: dict[str, list[int]],
    image: str,
) -> None:
    in_binary_form(monkeypatch)
    write_parquet(tmp_path / "data" / folder, files, image)
    require_same_run(CIFAR10().load(tmp_path / "data", "spq"))


@pytest.mark.parametrize("numbers", [[3, 2, 1, 4], [3, 2, 1, 4, 6], [0, 0, 1, 2, 3]])
def test_other_images_in_parquet_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, bytes], numbers: list[int]
) -> None:
    in_binary_form(monkeypatch)
    write_parquet(tmp_path / "cifar10", {"train.parquet": numbers, "test.parquet": [5]})
    message = (
        rf"^{tmp_path}/cifar10 is not .* \(its Parquet files have other images or another order than data_"
    )
    with pytest.raises(HashbenchError, match=message):
        CIFAR10().load(tmp_path, "spq")


def test_damaged_parquet_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, bytes]
) -> None:
    in_binary_form(monkeypatch)
    write_parquet(tmp_path / "cifar10", PUBLISHED_PARQUET)
    file = tmp_path / "cifar10/test-00000-of-00001.parquet"
    for content in (b"<html>", b"", file.read_bytes()[:-200]):
        file.write_bytes(content)
        with pytest.raises(HashbenchError, match=rf"^{file} is not the published batch of CIFAR-10 \("):
            CIFAR10().load(tmp_path, "spq")


def test_pyarrow_is_named_if_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, bytes]
) -> None:
    place(tmp_path / "cifar10/plain_text", dict.fromkeys(PUBLISHED_PARQUET, b""))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = (
        f"^{tmp_path}/cifar10/plain_text has CIFAR-10 in Parquet files, which need pyarrow; "
        r"pip install 'hashbench\[parquet\]'$"
    )
    with pytest.raises(HashbenchError, match=message):
        CIFAR10().load(tmp_path, "spq")


@pytest.mark.parametrize("folder", ["data/mnist", "data/cifar100", "cifar10/a/b/data/mnist"])
def test_parquet_files_of_other_datasets_are_not_read(tmp_path: Path, published: Path, folder: str) -> None:
    root = place(tmp_path / folder, dict.fromkeys(PUBLISHED_PARQUET, b"")).parent
    assert counts(CIFAR10().load(root, "spq")) == (10, 50, 50)  # downloaded


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, small: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve the archive of the small dataset on this machine for the plugin."""
    folder = place(tmp_path / "site" / FOLDER, small)
    file = tmp_path / "site" / "cifar-10-python.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(folder, FOLDER)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(file.parent))) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{http.server_port}/{file.name}"
        monkeypatch.setattr(CIFAR10, "downloads", (Archive(url, md5, file.name, unpacked=FOLDER),))
        yield file
        http.shutdown()


def test_what_is_absent_is_downloaded_once(tmp_path: Path, published: Path) -> None:
    root = tmp_path / "data"
    first = CIFAR10().load(root, "spq")
    assert counts(first) == (10, 50, 50)
    assert {path.name for path in root.glob("[!.]*")} == {FOLDER, published.name}
    published.unlink()
    (root / published.name).unlink()
    assert CIFAR10().load(root, "spq").fingerprint == first.fingerprint


# draws


@pytest.fixture(scope="module")
def labels() -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return class ids as in CIFAR-10: 5,000 training images per class, then 1,000 test images per class."""
    random = np.random.RandomState(31)
    return np.concatenate([random.permutation(np.repeat(np.arange(10), n)) for n in (5_000, 1_000)])


def per_class(labels: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> list[int]:
    return np.bincount(labels[rows], minlength=10).tolist()


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize(
    ("protocol", "query", "train", "database", "trained_in_database"),
    [("54k", 100, 500, 5_400, 0), ("59k", 100, 500, 5_900, 5_000), ("50k", 1_000, 5_000, 5_000, 50_000)],
)
def test_seeded_draws(
    labels: np.ndarray[Any, Any],
    seed: int,
    protocol: str,
    query: int,
    train: int,
    database: int,
    trained_in_database: int,
) -> None:
    parts = draw_split(labels, protocol, seed)
    assert [per_class(labels, rows) for rows in parts] == [[query] * 10, [train] * 10, [database] * 10]
    assert all((np.diff(rows) > 0).all() for rows in parts)
    assert not np.isin(parts[0], parts[1]).any()
    assert not np.isin(parts[0], parts[2]).any()
    assert np.isin(parts[1], parts[2]).sum() == trained_in_database
    assert parts[0].min() < 50_000 < parts[0].max()  # of the training and of the test images
    assert len(np.unique(np.concatenate(parts))) == 60_000

    for again, rows, other in zip(
        draw_split(labels, protocol, seed), parts, draw_split(labels, protocol, seed + 1), strict=True
    ):
        np.testing.assert_array_equal(again, rows)
        assert not np.array_equal(other, rows)


def test_54k_and_59k_differ_by_the_training_images_alone(labels: np.ndarray[Any, Any]) -> None:
    (query, train, without), (other_query, other_train, with_train) = (
        draw_split(labels, protocol, 3) for protocol in ("54k", "59k")
    )
    np.testing.assert_array_equal(query, other_query)
    np.testing.assert_array_equal(train, other_train)
    np.testing.assert_array_equal(np.setdiff1d(with_train, without), train)


def test_the_draw_of_cibhash(labels: np.ndarray[Any, Any]) -> None:
    official, testing = labels[:50_000], labels[50_000:]
    np.random.seed(0)  # noqa: NPY002 - as the authors' script draws
    train: list[int] = []
    for class_id in range(10):
        members = [row for row, label in enumerate(official) if label == class_id]
        order = np.random.permutation(len(members))  # noqa: NPY002
        train += [members[position] for position in order[:500]]
    rows = list(range(len(testing)))
    np.random.shuffle(rows)  # noqa: NPY002
    queries = [50_000 + row for row in rows[5_000:]]

    query, drawn, database = draw_split(labels, "cibhash", 0)
    assert query.tolist() == queries
    assert drawn.tolist() == train
    assert database.tolist() == list(range(50_000))
    assert len(set(queries)) == len(set(train)) == 5_000


@pytest.mark.parametrize(("protocol", "end_of_train"), [("bihalf-1", 6_000), ("bihalf-2", 1_500)])
def test_the_draws_of_bihalf(labels: np.ndarray[Any, Any], protocol: str, end_of_train: int) -> None:
    query: list[int] = []
    train: list[int] = []
    database: list[int] = []
    for class_id in range(10):
        members = [row for row, label in enumerate(labels) if label == class_id]
        np.random.seed(0)  # noqa: NPY002 - as the authors' script draws
        order = [members[position] for position in np.random.permutation(6_000)]  # noqa: NPY002
        query += order[:1_000]
        train += order[1_000:end_of_train]
        database += order[1_000:6_000]

    found = draw_split(labels, protocol, 0)
    assert [rows.tolist() for rows in found] == [query, train, database]
    assert len(set(query + database)) == 60_000


def test_spq_is_the_official_split(labels: np.ndarray[Any, Any]) -> None:
    query, train, database = draw_split(labels, "spq", 0)
    assert query.tolist() == list(range(50_000, 60_000))
    assert train.tolist() == database.tolist() == list(range(50_000))


@pytest.mark.parametrize("protocol", CIFAR10.protocols)
def test_parts_have_the_images_of_the_draw_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: np.ndarray[Any, Any], protocol: str
) -> None:
    ids = [f"train/{row:05d}" for row in range(50_000)] + [f"test/{row:05d}" for row in range(10_000)]
    images = ArrayImages(np.zeros((60_000, 1, 1), np.uint8), ids)
    monkeypatch.setattr(cifar10, "read_batches", lambda folder: Split(images, labels))
    place(tmp_path / FOLDER, {"test_batch": b""})
    seed = 4 if protocol in SEEDED else 0

    dataset = CIFAR10(CIFAR10.Options(seed=seed)).load(tmp_path, protocol)
    assert CIFAR10.protocols[protocol].differences(*counts(dataset)) == []
    assert dataset.options["seed"] == seed
    assert dataset.warnings == ()
    assert dataset.overlaps.query_database == dataset.overlaps.query_train == 0
    query, train, database = draw_split(labels, protocol, seed)
    assert dataset.train.ids == tuple(ids[row] for row in train)
    assert dataset.query.images.ids == tuple(ids[row] for row in query)
    assert dataset.database.images.ids == tuple(ids[row] for row in database)
    np.testing.assert_array_equal(dataset.train_labels, labels[train])
    np.testing.assert_array_equal(dataset.query.labels, labels[query])
    np.testing.assert_array_equal(dataset.database.labels, labels[database])


def test_protocols_are_seeded_or_fixed_and_54k_is_the_default() -> None:
    assert tuple(CIFAR10.protocols) == SEEDED + FIXED


@pytest.mark.parametrize("protocol", FIXED)
def test_a_fixed_split_takes_no_seed(tmp_path: Path, protocol: str) -> None:
    message = (
        rf"^cifar10: {protocol} is a fixed split, which seed=7 cannot change; omit the seed, or "
        "choose one of the protocols 54k, 59k, 50k$"
    )
    with pytest.raises(UsageError, match=message):
        CIFAR10(CIFAR10.Options(seed=7)).load(tmp_path / "absent", protocol)
