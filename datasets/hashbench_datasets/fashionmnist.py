"""Fashion-MNIST: 70,000 grayscale images of clothes, 28×28 pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import ClassVar

from hashbench.data.dataset import About, Dataset, DatasetPlugin
from hashbench.data.download import Archive
from hashbench.data.idx import official_split, read_idx_parts
from hashbench.data.image_index import with_subfolders
from hashbench.data.protocol import Protocol, draw_per_class

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # from Debian's package dataset-fashion-mnist
RAW = "FashionMNIST/raw"  # as in torchvision

# MD5 of the content of each file, since the `.gz` files differ between hosts.
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
TRAIN_PER_CLASS = 500
SMALL_QUERIES_PER_CLASS = 100


class FashionMNIST(DatasetPlugin):
    """Fashion-MNIST; it is downloaded if necessary."""

    protocols: ClassVar[Mapping[str, Protocol]] = {
        "official": Protocol(
            "the test images are queries, all others the database; 500 of these per class, drawn by the "
            "seed, are the training images",
            10_000,
            5_000,
            60_000,
        ),
        "small": Protocol(
            "100 test images per class, drawn by the seed, are queries; the training images of `official` "
            "are also the database",
            1_000,
            5_000,
            5_000,
        ),
    }
    about: ClassVar[About] = About(
        licence="MIT",
        source="https://github.com/zalandoresearch/fashion-mnist",
        size="30 MB",
        layout=(
            f"{RAW}/ (as in torchvision), fashionmnist/ or the root itself: the four IDX files, plain or .gz",
            f"or {SYSTEM_FOLDER}, from Debian's package dataset-fashion-mnist",
        ),
        notes=("There is no common split in hashing papers; use it for offline runs.",),
    )
    downloads: ClassVar[Sequence[Archive]] = tuple(
        Archive(f"{MIRROR}{name}.gz", md5, f"{RAW}/{name}.gz", size=size)
        for name, md5, size in (
            ("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "26 MB"),
            ("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe", "30 kB"),
            ("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79", "4 MB"),
            ("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310", "5 kB"),
        )
    )

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the dataset; see `DatasetPlugin.load`."""
        deeper = chain.from_iterable(with_subfolders([root / "FashionMNIST", root / "fashionmnist"]))
        folders = [root / RAW, root / "fashionmnist", root, *deeper, SYSTEM_FOLDER]
        everything = read_idx_parts(root, folders, self.downloads, MD5)
        seed = self.options.seed
        parts = official_split(everything, TRAIN_PER_CLASS, seed)
        if protocol == "small":
            query = parts["query"]
            drawn, _ = draw_per_class(query.labels, [SMALL_QUERIES_PER_CLASS], seed)
            parts |= {"query": query.subset(drawn), "database": parts["train"]}
        return Dataset.from_splits(
            "fashionmnist", protocol, CLASSES, **parts, options=self.options, warnings=()
        )
