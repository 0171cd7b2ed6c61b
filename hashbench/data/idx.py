"""IDX files, the format of MNIST: plain or gzipped, checked by the MD5 of their content."""

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

# Five times the largest file of MNIST; a gzipped file may unpack to a thousand times its size.
MAX_BYTES = 1 << 28


def read_idx(path: Path, md5: str) -> NDArray[np.uint8]:
    """Read a file of unsigned bytes.

    Args:
        path: The file; gzipped if its suffix is `.gz`.
        md5: MD5 of its content, unpacked, since the same content is gzipped differently by different hosts.

    Raises:
        HashbenchError: It is damaged or another file.
    """
    try:
        with gzip.GzipFile(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES)  # what is longer has another MD5
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise ValueError("its content has another MD5 than the published file")
        return parse_idx(content)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise HashbenchError(
            f"{path} is damaged or of another dataset ({error}); move it away or delete it, and the next run "
            "downloads it"
        ) from error


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


def read_idx_parts(
    root: Path, folders: Sequence[Path], downloads: Sequence[Archive], md5: Mapping[str, str]
) -> Split:
    """The images of a dataset like MNIST: those of the training files, then those of the test files.

    Args:
        root: The data root.
        folders: Where the four files may be, in order of preference.
        downloads: Where each of them is published, to fetch it if it is in none of the folders.
        md5: MD5 of the content of each file, by name: training images and labels, test images and labels.

    Returns:
        Images with the ids `train/00000`, … and `test/00000`, …, and class ids.

    Raises:
        HashbenchError: A file is damaged or cannot be downloaded.
    """
    arrays = []
    for (name, content_md5), archive in zip(md5.items(), downloads, strict=True):
        places = [folder / file for folder in folders for file in (name, f"{name}.gz")]
        path = next(filter(Path.is_file, places), None) or archive.ensure(root)
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
    """The test images as queries, the others as database, and some of these a class as training images.

    Args:
        everything: From `read_idx_parts`.
        train_per_class: How many training images to draw of each class.
        seed: Seed of the draw.

    Returns:
        The parts by name.
    """
    testing = np.char.startswith(everything.images.ids, "test/")
    query, database = (everything.subset(np.flatnonzero(part)) for part in (testing, ~testing))
    drawn, _ = draw_per_class(database.labels, [train_per_class], seed)
    return {"train": database.subset(drawn), "query": query, "database": database}
