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
    """An ordered set of images without labels; all that the training of a method sees.

    It must pickle, because worker processes read from copies of it.

    Attributes:
        ids: One id an image, unique within the set and the same on every machine.
    """

    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def __getitem__(self, index: int) -> Image.Image:
        """The image at a position, in RGB.

        Raises:
            IndexError: There is no such position.
            HashbenchError: The image cannot be read.
        """

    @abstractmethod
    def subset(self, indices: NDArray[np.integer[Any]]) -> Self:
        """The images at some positions, in the order given.

        Args:
            indices: Positions, integers [m].
        """

    def content(self, index: int) -> bytes:
        """Bytes that are equal for equal images: those of the file, or of the pixels.

        Raises:
            HashbenchError: The image cannot be read.
        """
        return self[index].tobytes()


class ArrayImages(Images):
    """Images held in memory."""

    def __init__(self, array: NDArray[np.uint8], ids: Sequence[str]) -> None:
        """Keep a reference to the array.

        Args:
            array: Grey [n, height, width] or RGB [n, height, width, 3], uint8.
            ids: One id an image.

        Raises:
            HashbenchError: The array is of another type or shape, or has not one image for each id.
        """
        if array.dtype != np.uint8 or not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] == 3)):
            raise HashbenchError(
                "images in memory must be uint8 [n, height, width] or [n, height, width, 3], "
                f"not {array.dtype} {list(array.shape)}"
            )
        _same_length("images", len(array), "ids", len(ids))
        self._array = array
        self.ids = tuple(ids)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.fromarray(self._array[index]).convert("RGB")

    def digest(self) -> str:
        """A hash of ids and pixels."""
        content = hashlib.blake2b(np.ascontiguousarray(self._array).data, digest_size=16)
        content.update("\n".join(self.ids).encode())
        return content.hexdigest()

    def subset(self, indices: NDArray[np.integer[Any]]) -> ArrayImages:
        """See `Images.subset`."""
        return ArrayImages(self._array[indices], [self.ids[index] for index in indices])


class FileImages(Images):
    """Images in files, each decoded when it is asked for."""

    def __init__(
        self,
        paths: Sequence[str | Path],
        ids: Sequence[str],
        *,
        exif: bool = False,
        truncated: bool = False,
    ) -> None:
        """Look at no file yet.

        Args:
            paths: The file of each image.
            ids: One id an image.
            exif: Turn images as their EXIF orientation says.
            truncated: Accept files that end too early.

        Raises:
            HashbenchError: There is not one path for each id.
        """
        _same_length("paths", len(paths), "ids", len(ids))
        # Strings, since a Path takes several times the memory.
        self.paths = tuple(os.fspath(path) for path in paths)
        self.ids = tuple(ids)
        self.exif, self.truncated = exif, truncated

    def __getitem__(self, index: int) -> Image.Image:
        return decode(Path(self.paths[index]), exif=self.exif, truncated=self.truncated)

    def sizes(self) -> list[tuple[str, int]]:
        """The id of each image, and the bytes that its file has.

        Raises:
            HashbenchError: A file is not there.
        """
        try:
            sizes = [os.stat(path).st_size for path in self.paths]  # noqa: PTH116 - these are strings
            return list(zip(self.ids, sizes, strict=True))
        except OSError as error:
            raise HashbenchError(f"{error.filename} cannot be read: {error.strerror}") from error

    def content(self, index: int) -> bytes:
        """The bytes of the file; see `Images.content`."""
        try:
            return Path(self.paths[index]).read_bytes()
        except OSError as error:
            raise HashbenchError(f"{self.paths[index]} cannot be read: {error.strerror}") from error

    def subset(self, indices: NDArray[np.integer[Any]]) -> FileImages:
        """See `Images.subset`."""
        return FileImages(
            [self.paths[index] for index in indices],
            [self.ids[index] for index in indices],
            exif=self.exif,
            truncated=self.truncated,
        )


def _same_length(what: str, count: int, other: str, other_count: int) -> None:
    if count != other_count:
        raise HashbenchError(f"{count:,} {what} do not go with {other_count:,} {other}")
