"""CIFAR-10: 60,000 colour images of 10 classes, 32×32 pixels."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hashbench.data.dataset import About, Dataset, DatasetPlugin, Split
from hashbench.data.download import Archive
from hashbench.data.image_index import with_subfolders
from hashbench.data.protocol import Protocol, draw_per_class
from hashbench.errors import HashbenchError, UsageError, reason
from hashbench.images.decoding import decode
from hashbench.images.image_sets import ArrayImages

FOLDER = "cifar-10-batches-py"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
# SHA-1 of the binary batches, which have a class id and then the pixels for each image; as in MXNet's
# `gluon.data.vision.CIFAR10`.
SHA1 = {
    "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
}
TRAIN_IMAGES = 50_000  # the official training images, which precede the test images
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FIXED = ("cibhash", "bihalf-1", "bihalf-2", "spq")
"""Protocols without a seed: the split of the authors, or the official one."""

SIZE = (32, 32)
ROW = 1 + 3 * 32 * 32  # bytes of an image in a binary batch: its class id and its color planes

Rows = NDArray[np.int64]
Batch = NDArray[np.uint8]
"""Class id and pixels of each image [n, ROW], one color plane after the other."""


class CIFAR10(DatasetPlugin):
    """CIFAR-10 under the protocols of four official codes; it is downloaded if necessary.

    The codes are RosieYuu/WCH at d93c756, `utils/tools.py`; zexuanqiu/CIBHash at 4c896ee, `utils/data.py`;
    BiHalf, liyunqianggyn/Deep-Unsupervised-Image-Hashing at 1cd671a, `ImageHashing/Cifar10_I.py` and
    `ImageHashing/Cifar(II)_bihalf.py`; youngkyunJang/SPQ at 6908f54, `main_SPQ.py`.
    """

    protocols: ClassVar[Mapping[str, Protocol]] = {
        "54k": Protocol(
            "100 queries and 500 training images per class, drawn by the seed from all 60,000; the remaining "
            "images are the database (WCH's default)",
            1_000,
            5_000,
            54_000,
        ),
        "59k": Protocol(
            "the queries and training images of 54k; all images but the queries are the database",
            1_000,
            5_000,
            59_000,
        ),
        "50k": Protocol(
            "1,000 queries per class, drawn by the seed from all 60,000; the others are both training images "
            "and database",
            10_000,
            50_000,
            50_000,
        ),
        "cibhash": Protocol(
            "the split of CIBHash's code: half of the test images are queries, all official training images "
            "the database, 500 of these per class the training images",
            5_000,
            5_000,
            50_000,
        ),
        "bihalf-1": Protocol(
            "the split of BiHalf's code, setting I: 1,000 queries per class from all 60,000; the others are "
            "both training images and database",
            10_000,
            50_000,
            50_000,
        ),
        "bihalf-2": Protocol(
            "the split of BiHalf's code, setting II: as bihalf-1, with 500 training images per class from "
            "the database",
            10_000,
            5_000,
            50_000,
        ),
        "spq": Protocol(
            "the official split: the test images are queries, all others both training images and database",
            10_000,
            50_000,
            50_000,
        ),
    }
    about: ClassVar[About] = About(
        licence="none stated; cite the technical report (Krizhevsky 2009)",
        source="https://www.cs.toronto.edu/~kriz/cifar.html",
        size="163 MB",
        layout=(
            f"{FOLDER}/ (as in torchvision), cifar10/{FOLDER}/ or the root itself",
            "├── data_batch_1 to data_batch_5",
            "└── test_batch",
            "or cifar-10-batches-bin/, the binary version",
            "├── data_batch_1.bin to data_batch_5.bin",
            "└── test_batch.bin",
            "or cifar10/, the Parquet files of Hugging Face",
            "└── plain_text/",
            "    ├── train-00000-of-00001.parquet",
            "    └── test-00000-of-00001.parquet",
        ),
        notes=(
            "WCH's code calls 54k cifar10, 59k cifar10-1 and 50k cifar10-2; it sets no seed, so the splits "
            "of its authors cannot be reproduced.",
            "In cibhash, the other half of the test images is for validation: its code selects the epoch by "
            "them, as --set selection=best-val does.",
            "The code of bihalf-2 reports mAP@all, all other codes report mAP@1000.",
        ),
    )
    downloads: ClassVar[Sequence[Archive]] = (
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            "cifar-10-python.tar.gz",
            unpacked=FOLDER,
            size="163 MB",
        ),
    )

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the dataset; see `DatasetPlugin.load`."""
        seed = self.options.seed
        if protocol in FIXED and seed:
            seeded = ", ".join(name for name in self.protocols if name not in FIXED)
            raise UsageError(
                f"cifar10: {protocol} is a fixed split, which seed={seed} cannot change; omit the seed, or "
                f"choose one of the protocols {seeded}"
            )
        levels = with_subfolders([root / FOLDER, root / "cifar10" / FOLDER, root, root / "cifar10"])
        folder = next((folder for level in levels for folder in level if _form(folder)), None)
        everything = read_batches(folder or self.downloads[0].ensure(root))
        query_rows, train_rows, database_rows = draw_split(everything.labels, protocol, seed)
        database = everything.subset(database_rows)
        unused_rows = np.setdiff1d(np.arange(TRAIN_IMAGES, len(everything.labels)), query_rows)
        return Dataset.from_splits(
            "cifar10",
            protocol,
            CLASSES,
            train=database if train_rows is database_rows else everything.subset(train_rows),
            query=everything.subset(query_rows),
            database=database,
            validation=everything.subset(unused_rows) if protocol == "cibhash" else None,
            options=self.options,
        )


def draw_split(labels: Rows, protocol: str, seed: int) -> tuple[Rows, Rows, Rows]:
    """Return the images of each part of a protocol, in order.

    Args:
        labels: Class id of each image [60000], beginning with the official training images.
        protocol: A key of `CIFAR10.protocols`.
        seed: Random seed; the protocols in `FIXED` do not use it.

    Returns:
        Indices of the queries, the training images and the database; the last two are the same object if they
        are the same images.
    """
    everything = np.arange(len(labels))
    if protocol in ("54k", "59k"):
        query, train, rest = draw_per_class(labels, [100, 500], seed)
        return query, train, rest if protocol == "54k" else np.setdiff1d(everything, query)
    if protocol == "cibhash":
        return _draw_cibhash(labels)
    if protocol.startswith("bihalf"):
        query, database = _draw_bihalf(labels, 0, 1_000), _draw_bihalf(labels, 1_000, 6_000)
        return query, database if protocol == "bihalf-1" else _draw_bihalf(labels, 1_000, 1_500), database
    if protocol == "50k":
        query, database = draw_per_class(labels, [1_000], seed)
    else:
        query, database = everything[TRAIN_IMAGES:], everything[:TRAIN_IMAGES]
    return query, database, database


def _draw_cibhash(labels: Rows) -> tuple[Rows, Rows, Rows]:
    # The authors use NumPy's global generator, which their blur module seeds with 0 when it is imported.
    random = np.random.RandomState(0)
    database = np.arange(TRAIN_IMAGES)
    train = []
    for class_id in range(len(CLASSES)):
        members = np.flatnonzero(labels[:TRAIN_IMAGES] == class_id)
        train.append(members[random.permutation(len(members))][:500])
    test = list(range(TRAIN_IMAGES, len(labels)))
    random.shuffle(test)
    return np.array(test[len(test) // 2 :]), np.concatenate(train), database


def _draw_bihalf(labels: Rows, start: int, stop: int) -> Rows:
    """Return a range of each class in the authors' order; they set the seed to 0 for each class."""
    drawn = []
    for class_id in range(len(CLASSES)):
        members = np.flatnonzero(labels == class_id)
        drawn.append(members[np.random.RandomState(0).permutation(len(members))][start:stop])
    return np.concatenate(drawn)


def read_batches(folder: Path) -> Split:
    """Read all images, beginning with the official training batches.

    Args:
        folder: Folder of the batches, pickled or binary, or of Parquet files with the same images.

    Returns:
        Images with the ids `train/00000`, … and `test/00000`, …, and class ids, the same for each form.

    Raises:
        HashbenchError: A file is missing, damaged or another one, or pyarrow is not installed.
    """
    read = _form(folder) or _read_pickled
    rows = np.concatenate(read(folder))
    ids = [f"train/{row:05d}" for row in range(TRAIN_IMAGES)]
    ids += [f"test/{row:05d}" for row in range(len(rows) - TRAIN_IMAGES)]
    pixels = rows[:, 1:].reshape(-1, 3, *SIZE).transpose(0, 2, 3, 1)
    return Split(ArrayImages(np.ascontiguousarray(pixels), ids), rows[:, 0].astype(np.int64))


def _form(folder: Path) -> Callable[[Path], list[Batch]] | None:
    """Return the function that reads the batches in a folder; None if there are none."""
    if any((folder / name).is_file() for name in MD5):
        return _read_pickled
    if any((folder / f"{name}.bin").is_file() for name in SHA1):
        return _read_binary
    # Parquet files of other datasets have the same names, so a folder must be named after this one.
    named = re.search(r"cifar-?10(?!0)", "/".join(folder.absolute().parts[-4:]), re.IGNORECASE)
    return _read_parquet if named and any(_parquet_files(folder).values()) else None


def _parquet_files(folder: Path) -> dict[str, list[Path]]:
    """Return the Parquet files by part, in order: `train-….parquet`, or `….parquet` in a folder `train`."""
    return {
        part: sorted([*folder.glob(f"*{part}*.parquet"), *folder.glob(f"{part}/*.parquet")])
        for part in ("train", "test")
    }


def _error(path: Path, problem: object) -> HashbenchError:
    return HashbenchError(
        f"{path} is not the published batch of CIFAR-10 ({problem}); delete or move all batches there, and "
        "the next run downloads them"
    )


def _content(path: Path, algorithm: str, expected: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != expected:
        raise ValueError(f"expected the {algorithm.upper()} {expected}, got {found}")
    return content


def _read_pickled(folder: Path) -> list[Batch]:
    return [_read_batch(folder / name, md5) for name, md5 in MD5.items()]


def _read_batch(path: Path, md5: str) -> Batch:
    try:
        batch = _Unpickler(BytesIO(_content(path, "md5", md5)), encoding="latin1").load()
        if "labels" not in batch:
            raise ValueError(f"expected the key labels, got {', '.join(sorted(batch))}")
        return np.column_stack([np.array(batch["labels"], np.uint8), batch["data"]])
    except (OSError, ValueError, pickle.UnpicklingError) as error:
        raise _error(path, error) from error


def _read_binary(folder: Path) -> list[Batch]:
    batches = []
    for name, sha1 in SHA1.items():
        path = folder / f"{name}.bin"
        try:
            batches.append(np.frombuffer(_content(path, "sha1", sha1), np.uint8).reshape(-1, ROW))
        except (OSError, ValueError) as error:
            raise _error(path, error) from error
    return batches


def _read_parquet(folder: Path) -> list[Batch]:
    """Read the batches from Parquet files, which have them in another order."""
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError:
        raise HashbenchError(
            f"{folder} has CIFAR-10 in Parquet files, which need pyarrow; pip install 'hashbench[parquet]'"
        ) from None
    count = TRAIN_IMAGES // 5
    batches: dict[str, Batch] = {}
    for files in _parquet_files(folder).values():
        rows: list[bytes] = []
        for file in files:
            try:
                table = parquet.read_table(file).to_pydict()
                rows += map(_row, table["img" if "img" in table else "image"], table["label"])
            except (OSError, KeyError, TypeError, ValueError, ArrowException, HashbenchError) as error:
                raise _error(file, reason(error)) from error
        for start in range(0, len(rows), count):
            content = b"".join(rows[start : start + count])
            sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            batches[sha1] = np.frombuffer(content, np.uint8).reshape(-1, ROW)
    absent = [name for name, sha1 in SHA1.items() if sha1 not in batches]
    if absent:
        raise _error(folder, f"its Parquet files have other images or another order than {absent[0]}")
    return [batches[sha1] for sha1 in SHA1.values()]


def _row(image: Mapping[str, bytes], label: int) -> bytes:
    """Return an image as in the binary batches."""
    pixels = np.asarray(decode(image["bytes"]))
    if pixels.shape != (*SIZE, 3) or not 0 <= label < len(CLASSES):
        raise ValueError(f"expected images of 32×32 pixels in 10 classes, got {pixels.shape} in {label}")
    return bytes([label]) + pixels.transpose(2, 0, 1).tobytes()


class _Unpickler(pickle.Unpickler):
    """Unpickler that only reads byte arrays as pickled by Python 2, and executes no other code."""

    # Some NumPy releases have moved one of the original functions, or warn about the arguments of another.
    _ALLOWED: ClassVar[Mapping[tuple[str, str], Callable[..., Any]]] = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: np.empty(0, np.uint8),
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): lambda *_: np.dtype(np.uint8, copy=True),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which could execute any code")
        return self._ALLOWED[module, name]
