"""Ordered sets of images without labels, in memory or in files."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashbench.errors import HashbenchError
from hashbench.images.decoding import decode

if TYPE_CHECKING:
    from typing_extensions import Self


class Images(ABC):
    """An ordered set of images without labels, the only input of training.

    It must be picklable, because worker processes read from copies of it.

    Attributes:
        ids: One id per image, unique within the set and the same on all machines.
    """

    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> Image.Image:
        """Return an image in RGB.

        Raises:
            IndexError: The index is out of range.
            HashbenchError: The image cannot be read.
        """

    @abstractmethod
    def subset(self, indices: NDArray[np.integer[Any]]) -> Self:
        """Return the images with the given indices, in their order.

        Args:
            indices: Integers [m].
        """

    def content(self, index: int) -> bytes:
        """Return bytes that are equal for equal images: the content of the file, or the pixels.

        Raises:
            HashbenchError: The image cannot be read.
        """
        return self[index].tobytes()


class ArrayImages(Images):
    """Images held in memory."""

    def __init__(self, array: NDArray[np.uint8], ids: Sequence[str]) -> None:
        """Store a reference to the array.

        Args:
            array: Grey [n, height, width] or RGB [n, height, width, 3], uint8.
            ids: One id per image.

        Raises:
            HashbenchError: The type or shape of the array is wrong, or its length is not the number of ids.
        """
        if array.dtype != np.uint8 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
            raise HashbenchError(
                "images in memory: expected uint8 [n, height, width] or [n, height, width, 3], got "
                f"{array.dtype} {list(array.shape)}"
            )
        _check_length("images", len(array), ids)
        self._array = array
        self.ids = tuple(ids)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self._array[index]).convert("RGB")

    def digest(self) -> str:
        """Return a hash of ids and pixels."""
        content = hashlib.blake2b(np.ascontiguousarray(self._array).data, digest_size=16)
        content.update("\n".join(self.ids).encode())
        return content.hexdigest()

    def subset(self, indices: NDArray[np.integer[Any]]) -> ArrayImages:
        """Return the images with the given indices; see `Images.subset`."""
        return ArrayImages(self._array[indices], [self.ids[index] for index in indices])


class FileImages(Images):
    """Images in files, which are decoded on access."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        ids: Sequence[str],
        *,
        exif: bool = False,
        truncated: bool = False,
    ) -> None:
        """Store the paths; no file is read yet.

        Args:
            paths: The file of each image.
            ids: One id per image.
            exif: Rotate images according to their EXIF orientation.
            truncated: Accept files that end too early.

        Raises:
            HashbenchError: The numbers of paths and ids differ.
        """
        _check_length("paths", len(paths), ids)
        # Strings, since a Path takes several times the memory.
        self.paths = tuple(os.fspath(path) for path in paths)
        self.ids = tuple(ids)
        self.exif, self.truncated = exif, truncated

    def __getitem__(self, index: int) -> Image.Image:
        return decode(Path(self.paths[index]), exif=self.exif, truncated=self.truncated)

    def sizes(self) -> list[tuple[str, int]]:
        """Return the id and the file size in bytes of each image.

        Raises:
            HashbenchError: A file is missing.
        """
        try:
            sizes = [os.stat(path).st_size for path in self.paths]  # noqa: PTH116 - these are strings
            return list(zip(self.ids, sizes, strict=True))
        except OSError as error:
            raise HashbenchError(f"{error.filename} cannot be read: {error.strerror}") from error

    def content(self, index: int) -> bytes:
        """Return the content of the file; see `Images.content`."""
        try:
            return Path(self.paths[index]).read_bytes()
        except OSError as error:
            raise HashbenchError(f"{self.paths[index]} cannot be read: {error.strerror}") from error

    def subset(self, indices: NDArray[np.integer[Any]]) -> FileImages:
        """Return the images with the given indices; see `Images.subset`."""
        return FileImages(
            [self.paths[index] for index in indices],
            [self.ids[index] for index in indices],
            exif=self.exif,
            truncated=self.truncated,
        )


def _check_length(what: str, count: int, ids: Sequence[str]) -> None:
    if count != len(ids):
        raise HashbenchError(f"expected as many {what} as ids, got {count:,} {what} and {len(ids):,} ids")
