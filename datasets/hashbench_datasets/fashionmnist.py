"""Fashion-MNIST: 70,000 grey images of clothes, 28×28 pixels, from https://github.com/zalandoresearch/fashion-mnist."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hashbench.dataset import ArrayImages, Dataset, DatasetPlugin, Split
from hashbench.download import fetch
from hashbench.errors import HashbenchError
from hashbench.protocol import draw_per_class

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
DOWNLOADS = "FashionMNIST/raw"  # where torchvision looks, too
FOLDERS = (DOWNLOADS, "fashionmnist", "")  # below the root, in order of preference

# By name: MD5 of the content, and of the .gz at the mirror; elsewhere the .gz of the same content differ.
MD5 = {
    "train-images-idx3-ubyte": ("f4a8712d7a061bf5bd6d2ca38dc4d50a", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
    "train-labels-idx1-ubyte": ("9018921c3c673c538a1fc5bad174d6f9", "25c81989df183df01b3e8a0aad5dffbe"),
    "t10k-images-idx3-ubyte": ("8181f5470baa50b63fa0f6fddb340f0a", "bef4ecab320f06d8554ea6380940ec79"),
    "t10k-labels-idx1-ubyte": ("15d484375f8d13e6eb1aabb0c3f46965", "bb300cfdad3c16e7a12a480ee83cd310"),
}
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
TRAIN_PER_CLASS = 500
SMALL_QUERIES_PER_CLASS = 100


class FashionMNIST(DatasetPlugin):
    """Fashion-MNIST as distributed; downloaded where it is absent."""

    protocols: ClassVar[Mapping[str, str]] = {
        "official": "the 10,000 test images are queries, the 60,000 others the database; 5,000 of these, "
        "500 a class by a fixed seed, are the training images",
        "small": "1,000 of the test images are queries, 100 a class by a fixed seed; "
        "the training images of `official` are also the database",
    }

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the dataset; see `DatasetPlugin.load`."""
        query, database = _read_part(root, "t10k", "test"), _read_part(root, "train", "train")
        train = _draw(database, TRAIN_PER_CLASS)
        if protocol == "small":
            query, database = _draw(query, SMALL_QUERIES_PER_CLASS), train
        return Dataset.from_splits(
            "fashionmnist",
            protocol,
            CLASSES,
            train=Split(*train),
            query=Split(*query),
            database=Split(*database),
        )


def _draw(
    part: tuple[ArrayImages, NDArray[np.uint8]], per_class: int
) -> tuple[ArrayImages, NDArray[np.uint8]]:
    images, labels = part
    drawn, _ = draw_per_class(labels, [per_class], seed=0)
    return images.subset(drawn), labels[drawn]


def _read_part(root: Path, prefix: str, part: str) -> tuple[ArrayImages, NDArray[np.uint8]]:
    images = _read(root, f"{prefix}-images-idx3-ubyte")
    labels = _read(root, f"{prefix}-labels-idx1-ubyte")
    return ArrayImages(images, [f"{part}/{index:05d}" for index in range(len(images))]), labels


def _read(root: Path, name: str) -> NDArray[np.uint8]:
    """The array in one of the four files, downloaded where it is absent."""
    places = [folder / file for folder in _folders(root) for file in (name, f"{name}.gz")]
    path = next(filter(Path.is_file, places), None)
    content_md5, download_md5 = MD5[name]
    if path is None:
        path = root / DOWNLOADS / f"{name}.gz"
        fetch(f"{MIRROR}{name}.gz", path, download_md5)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != content_md5:
            raise ValueError("its content has another MD5 than the published file")
        return parse_idx(content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise HashbenchError(
            f"{path} is damaged ({error}); delete it, and the next run downloads {MIRROR}{name}.gz"
        ) from error


def _folders(root: Path) -> list[Path]:
    return [*(root / folder for folder in FOLDERS), SYSTEM_FOLDER]


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    Args:
        content: The whole file: two zero bytes, 8 for unsigned bytes, the number of dimensions, each of them
            as a big-endian 32-bit integer, then the values.

    Returns:
        The array, which cannot be written to.

    Raises:
        ValueError: The header is another one, or the values are too few or too many.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    array: NDArray[np.uint8] = np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    return array
