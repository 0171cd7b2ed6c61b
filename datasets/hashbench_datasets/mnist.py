"""MNIST: 70,000 grayscale images of handwritten digits, 28×28 pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np

from hashbench.data.dataset import About, Dataset, DatasetPlugin
from hashbench.data.download import Archive
from hashbench.data.idx import official_split, read_idx_parts
from hashbench.data.image_index import with_subfolders
from hashbench.data.protocol import Protocol, draw_per_class

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
RAW = "MNIST/raw"  # as in torchvision

# MD5 of the content of each file.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
TRAIN_PER_CLASS = 500
QUERIES_PER_CLASS = {"69k": 100, "60k": 1_000, "60k-all": 1_000}


class MNIST(DatasetPlugin):
    """MNIST under the protocols of kamwoh/sdc at 9981beb, the only hashing code with protocols for it."""

    protocols: ClassVar[Mapping[str, Protocol]] = {
        "69k": Protocol(
            "100 queries and 500 training images per class, drawn by the seed from all 70,000; all but the "
            "queries are the database (ep 1 of sdc)",
            1_000,
            5_000,
            69_000,
        ),
        "60k": Protocol(
            "as 69k with 1,000 queries per class (ep 2 of sdc)",
            10_000,
            5_000,
            60_000,
        ),
        "60k-all": Protocol(
            "as 60k, and all database images are training images (ep 3 of sdc)",
            10_000,
            60_000,
            60_000,
        ),
        "official": Protocol(
            "the test images are queries, all others the database; 500 of these per class, drawn by the "
            "seed, are the training images",
            10_000,
            5_000,
            60_000,
        ),
    }
    about: ClassVar[About] = About(
        licence="none stated; cite LeCun et al. 1998",
        source="http://yann.lecun.com/exdb/mnist/, which is offline; the files are mirrored",
        size="12 MB",
        layout=(f"{RAW}/ (as in torchvision), mnist/ or the root itself: the four IDX files, plain or .gz",),
        notes=(
            "The splits have the sizes of sdc's, but other images: its random numbers depend on its code.",
        ),
    )
    downloads: ClassVar[Sequence[Archive]] = tuple(
        Archive(f"{MIRROR}{name}.gz", md5, f"{RAW}/{name}.gz", size=size)
        for name, md5, size in (
            ("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "10 MB"),
            ("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "29 kB"),
            ("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2 MB"),
            ("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "5 kB"),
        )
    )

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the dataset; see `DatasetPlugin.load`."""
        # The files of Fashion-MNIST have the same names, so a root with both datasets needs two folders.
        deeper = chain.from_iterable(with_subfolders([root / "MNIST", root / "mnist"]))
        everything = read_idx_parts(root, [root / RAW, root / "mnist", root, *deeper], self.downloads, MD5)
        seed = self.options.seed
        if protocol == "official":
            parts = official_split(everything, TRAIN_PER_CLASS, seed)
        else:
            quotas = [QUERIES_PER_CLASS[protocol], TRAIN_PER_CLASS]
            query_rows, train_rows, _ = draw_per_class(everything.labels, quotas, seed)
            database = everything.subset(np.setdiff1d(np.arange(len(everything.labels)), query_rows))
            parts = {
                "train": database if protocol == "60k-all" else everything.subset(train_rows),
                "query": everything.subset(query_rows),
                "database": database,
            }
        return Dataset.from_splits(
            "mnist", protocol, tuple("0123456789"), **parts, options=self.options, warnings=()
        )
