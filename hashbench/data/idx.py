"""Read IDX files, the format of MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashbench.data.dataset import Split
from hashbench.data.download import Archive
from hashbench.data.protocol import draw_per_class
from hashbench.errors import HashbenchError
from hashbench.images.image_sets import ArrayImages

# Five times the largest file of MNIST: a gzipped file may expand to a thousand times its size.
MAX_BYTES = 1 << 28


def read_idx(path: Path, md5: str) -> NDArray[np.uint8]:
    """Read a file of unsigned bytes.

    Args:
        path: The file; gzipped if its suffix is `.gz`.
        md5: MD5 of the uncompressed content, since hosts compress the same content differently.

    Raises:
        HashbenchError: The file is damaged or has another MD5.
    """
    try:
        with gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES)  # a longer file has another MD5
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise ValueError("its content has another MD5 than the published file")
        return parse_idx(content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise HashbenchError(
            f"{path} is damaged or belongs to another dataset ({error}); move or delete it, and the next run "
            "downloads it"
        ) from error


def parse_idx(content: bytes) -> NDArray[np.uint8]:
    """Parse an IDX file of unsigned bytes.

    Args:
        content: The whole file: two zero bytes, 8 for unsigned bytes, the number of dimensions, each of them
            as a big-endian 32-bit integer, then the values.

    Returns:
        The array, which is read-only.

    Raises:
        ValueError: The header is wrong, or there are too few or too many values.
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError("not an IDX file of unsigned bytes")
    start = 4 + 4 * content[3]
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    array: NDArray[np.uint8] = np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
    return array


def read_idx_parts(
    root: Path, folders: Sequence[Path], downloads: Sequence[Archive], md5: Mapping[str, str]
) -> Split:
    """Read the training images and then the test images of a dataset in the format of MNIST.

    Args:
        root: The data root.
        folders: Folders that may contain the four files, in order of preference.
        downloads: The downloads of the four files, for files that are in none of the folders.
        md5: Name of each file -> MD5 of its content: training images and labels, test images and labels.

    Returns:
        Images with the ids `train/00000`, … and `test/00000`, …, and class ids.

    Raises:
        HashbenchError: A file is damaged or cannot be downloaded.
    """
    arrays = []
    for (name, content_md5), archive in zip(md5.items(), downloads, strict=True):
        candidates = [folder / file for folder in folders for file in (name, f"{name}.gz")]
        path = next(filter(Path.is_file, candidates), None) or archive.ensure(root)
        arrays.append(read_idx(path, content_md5))
    train_images, train_labels, test_images, test_labels = arrays
    ids = [
        f"{part}/{row:05d}"
        for part, images in (("train", train_images), ("test", test_images))
        for row in range(len(images))
    ]
    return Split(
        ArrayImages(np.concatenate([train_images, test_images]), ids),
        np.concatenate([train_labels, test_labels]).astype(np.int64),
    )


def official_split(everything: Split, train_per_class: int, seed: int) -> dict[str, Split]:
    """Split into test images as queries, the rest as database, and training images drawn from the database.

    Returns:
        The parts by name.
    """
    is_test = np.char.startswith(everything.images.ids, "test/")
    query, database = (everything.subset(np.flatnonzero(part)) for part in (is_test, ~is_test))
    drawn, _ = draw_per_class(database.labels, [train_per_class], seed)
    return {"train": database.subset(drawn), "query": query, "database": database}
