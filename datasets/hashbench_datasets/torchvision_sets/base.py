"""How the datasets of torchvision are read: it finds, checks and downloads their files."""

from __future__ import annotations

import os
import shlex
import sys
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hashbench.data.dataset import About, Dataset, DatasetPlugin, Split
from hashbench.data.download import Archive
from hashbench.data.image_index import find_folder, missing_data
from hashbench.data.options import FileOptions, RatioOptions
from hashbench.data.protocol import BY_RATIO, SPLIT, Protocol, draw_by_ratio
from hashbench.errors import HashbenchError, MissingDataError, UsageError, reason
from hashbench.images.image_sets import ArrayImages, FileImages
from hashbench.runtime.locking import locked

OFFICIAL = "official"
DEFINITION = (
    "the test images of torchvision are queries, all others (train, and val where there is one) both "
    "training images and database"
)
Found = tuple[Split, int, Sequence[str], list[str]]
"""All images, how many of them precede the test images, the names of the classes, and warnings."""


class TorchvisionSet(DatasetPlugin):
    """Base class: a dataset that torchvision has a class of the same name for, in its layout.

    Attributes:
        name: Name of the dataset in hashbench.
        parts: Arguments of torchvision's class: for each part of training images, for each of test images.
        counts: Number of images that are not test images, and of test images.
        folder: The folder with the data below the data root, or one of the files.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[list[Any], list[Any]]]
    counts: ClassVar[tuple[int, int]]
    folder: ClassVar[str]
    options: Any

    def __init_subclass__(
        cls,
        *,
        parts: tuple[list[Any], list[Any]] | None = None,
        counts: tuple[int, int] = (0, 0),
        folder: str = "",
        licence: str = "",
        source: str = "",
        size: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        """Describe a dataset, unless the class is another base class."""
        super().__init_subclass__()
        if parts is None:
            return
        train, test = counts
        official = {OFFICIAL: Protocol(DEFINITION, test, train, train)} if test else {}
        cls.name, cls.parts, cls.counts, cls.folder = f"torchvision:{cls.__name__}", parts, counts, folder
        cls.protocols = {**official, SPLIT: BY_RATIO}
        cls.about = About(licence, source, size, (f"{folder}, as in torchvision",), notes)
        cls.downloads = (Archive(source, "", folder, size=size),)

    def download(self, root: Path) -> None:
        """Let torchvision download what is missing or damaged; see `DatasetPlugin.download`."""
        try:
            with locked(root), redirect_stdout(sys.stderr):
                for arguments in (*self.parts[0], *self.parts[1]):
                    self._open(root, download=True, **arguments)
        except Exception as error:  # of any of the libraries that it downloads and unpacks with
            raise HashbenchError(
                f"torchvision cannot download {self.name} ({reason(error)}); get it from {self.about.source} "
                f"and put it into {root / self.folder}"
            ) from error

    def load(self, root: Path, protocol: str) -> Dataset:
        """Read the dataset; see `DatasetPlugin.load`."""
        self._check_options(protocol)
        found = find_folder([root], lambda folder: (folder / self.folder).exists())
        if found is None:
            raise missing_data(self.name, self, root, self.folder, protocol)
        try:
            opened = [[self._open(found, **arguments) for arguments in several] for several in self.parts]
            everything, trained, classes, warnings = self._read(found / self.folder, *opened)
        except HashbenchError:
            raise
        except Exception as error:  # damaged files cause errors of any kind
            raise MissingDataError(
                f"{self.name}: torchvision does not accept the files in {found / self.folder} "
                f"({reason(error)}); next: hashbench data prepare {self.name} --data-root "
                f"{shlex.quote(str(found))}"
            ) from error
        if protocol == OFFICIAL:
            train, query = map(everything.subset, np.split(np.arange(len(everything.labels)), [trained]))
            parts = {"train": train, "query": query, "database": train}
        else:
            ratios = self.options.query_ratio, self.options.train_ratio, self.options.seed
            drawn = draw_by_ratio(everything.labels, *ratios)
            parts = {part: everything.subset(rows) for part, rows in drawn.items()}
        return Dataset.from_splits(
            self.name, protocol, classes, **parts, options=self.options, warnings=warnings
        )

    def _check_options(self, protocol: str) -> None:
        """Reject options that cannot change the official split."""
        fixed = ("query_ratio", "train_ratio", *(("seed",) if self.options.fraction == 1 else ()))
        for key in fixed if protocol == OFFICIAL else ():
            value = getattr(self.options, key)
            if value != self.Options.model_fields[key].default:
                raise UsageError(
                    f"{self.name}: {OFFICIAL} is a fixed split, which {key}={value} cannot change; omit "
                    f"it, or pass --protocol {SPLIT}"
                )

    def _open(self, root: Path, **arguments: Any) -> Any:
        from torchvision import datasets

        return getattr(datasets, type(self).__name__)(str(root), **arguments)

    @abstractmethod
    def _read(self, base: Path, train: list[Any], test: list[Any]) -> Found:
        """Read the images and labels.

        Args:
            base: The folder with the data.
            train: The parts of images that are not test images, as torchvision opens them.
            test: The parts of test images.
        """


def _class_names(opened: Any, labels: Sequence[int]) -> Sequence[str]:
    """Return the names that torchvision has for the classes, else their numbers."""
    names = getattr(opened, "classes", None) or getattr(opened, "categories", None)
    return names or [str(number) for number in range(max(labels) + 1)]


class InMemory(TorchvisionSet):
    """Base class of datasets of small images, which are read into memory."""

    Options = RatioOptions

    def _read(self, base: Path, train: list[Any], test: list[Any]) -> Found:
        pixels: list[NDArray[np.uint8]] = []
        labels: list[int] = []
        ids: list[str] = []
        for name, part in (("train", train[0]), ("test", test[0])):
            array = np.asarray(part.data)
            pixels.append(array.transpose(0, 2, 3, 1) if array.shape[1] == 3 else array)  # color planes first
            labels += np.asarray(part.targets if hasattr(part, "targets") else part.labels).tolist()
            ids += [f"{name}/{row:05d}" for row in range(len(array))]
        everything = Split(ArrayImages(np.concatenate(pixels), ids), np.array(labels, np.int64))
        return everything, len(pixels[0]), _class_names(train[0], labels), []


class InFiles(TorchvisionSet):
    """Base class of datasets whose images are files, which are decoded on access."""

    class Options(FileOptions, RatioOptions):
        """Options of datasets whose images are files."""

    def _read(self, base: Path, train: list[Any], test: list[Any]) -> Found:
        listed = [[pair for part in several for pair in self._files(part)] for several in (train, test)]
        pairs = [*listed[0], *listed[1]]
        exists = np.array([os.path.isfile(file) for file, _ in pairs])  # noqa: PTH113 - faster than a Path
        warnings = self._missing(base, int(exists.sum()))
        files = [file for (file, _), there in zip(pairs, exists, strict=True) if there]
        ids = [Path(os.path.relpath(file, base)).as_posix() for file in files]
        options = self.options
        images = FileImages(files, ids, exif=options.exif, truncated=options.truncated)
        labels = np.array([label for _, label in pairs])
        classes = self._class_names(train[0], labels)
        return Split(images, labels[exists]), int(exists[: len(listed[0])].sum()), classes, warnings

    def _missing(self, base: Path, found: int) -> list[str]:
        expected = sum(self.counts)
        if found == expected:
            return []
        text = f"{base} has {found:,} of {expected:,} images"
        if self.options.missing == "skip":
            return [f"{text}, which is a different split"]
        raise HashbenchError(
            f"{self.name}: {text}; delete the folder and run hashbench data prepare {self.name}, or pass "
            "--missing skip to use those, which is a different split"
        )

    def _files(self, part: Any) -> Iterable[tuple[Any, Any]]:
        """Return the file and the label of each image."""
        return zip(part._image_files, part._labels, strict=True)

    def _class_names(self, part: Any, labels: NDArray[Any]) -> Sequence[str]:
        return _class_names(part, labels.tolist())
