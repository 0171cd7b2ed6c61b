"""A packed copy of a dataset's images: small, in one file, so that no epoch waits for large JPEG files."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashbench.dataset import Dataset, Split
from hashbench.decoding import decode
from hashbench.errors import HashbenchError
from hashbench.image_sets import FileImages, Images
from hashbench.progress import progress

QUALITY = 95  # of JPEG, without chroma subsampling
CHUNK = 256  # images that wait in memory to be written
DATA, INDEX = "images.bin", "index.json"


class PackedImages(Images):
    """Images in a packed copy."""

    def __init__(
        self,
        file: Path,
        spans: NDArray[np.int64],
        ids: Sequence[str],
        *,
        exif: bool = False,
        truncated: bool = False,
    ) -> None:
        """Look at no image yet.

        Args:
            file: Where the images are.
            spans: The first byte of each image and the byte after its last [n, 2].
            ids: One id an image.
            exif: Turn images that are stored as they were, as their EXIF orientation says.
            truncated: Accept images that end too early, if they are stored as they were.
        """
        self.file, self.spans, self.ids = file, spans, tuple(ids)
        self.exif, self.truncated = exif, truncated
        self._bytes: NDArray[np.uint8] | None = None

    def __getitem__(self, index: int) -> Image.Image:
        name = f"{self.ids[index]} in {self.file}"
        return decode(self.content(index), name=name, exif=self.exif, truncated=self.truncated)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}  # a worker maps the file itself

    def content(self, index: int) -> bytes:
        """The bytes of the image as it was packed; see `Images.content`."""
        if self._bytes is None:
            try:
                self._bytes = np.memmap(self.file, np.uint8, mode="r")
            except (OSError, ValueError) as error:  # gone, or empty, since the dataset was loaded
                raise HashbenchError(f"{self.file} cannot be read ({error}); prepare it again") from error
        start, end = self.spans[index]
        return self._bytes[start:end].tobytes()

    def subset(self, indices: NDArray[np.integer[Any]]) -> PackedImages:
        """See `Images.subset`."""
        ids = [self.ids[index] for index in indices]
        return PackedImages(self.file, self.spans[indices], ids, exif=self.exif, truncated=self.truncated)


def packed_folder(dataset: Dataset, root: Path) -> Path:
    """Where the packed copy of a dataset's images is, if there is one."""
    return root / "packed" / f"{dataset.name}@{dataset.protocol}"


def pack(dataset: Dataset, root: Path, size: int) -> Path:
    """Write the packed copy of all images of a dataset, and replace an older one.

    Images are made smaller until the shorter side has `size` pixels, and stored as JPEG of quality 95; files
    of smaller images are stored as they are.

    Args:
        dataset: From `load_dataset`, not packed.
        root: The data root.
        size: Pixels of the shorter side.

    Returns:
        The folder.

    Raises:
        HashbenchError: The images are in memory anyway, one cannot be read, or the copy cannot be written.
    """
    first, *others = _parts(dataset)
    if not isinstance(first, FileImages):
        raise HashbenchError(f"{dataset.name} needs no packed copy; its images are not in files of their own")
    unique = {name: (part, row) for part in (first, *others) for row, name in enumerate(part.ids)}
    folder = packed_folder(dataset, root)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pack-") as temporary:
            partial = Path(temporary, "new")
            partial.mkdir()
            ends, digest = [], hashlib.sha256()
            with (partial / DATA).open("wb") as file:
                for content in _smaller([*unique.values()], size):
                    file.write(content)
                    digest.update(content)
                    ends.append(file.tell())
            index = {"size": size, "sha256": digest.hexdigest(), **_decoding(first)}
            text = json.dumps({**index, "ids": [*unique], "ends": ends})
            (partial / INDEX).write_text(text, encoding="utf-8")
            if folder.exists():
                folder.rename(Path(temporary, "old"))
            partial.rename(folder)
    except OSError as error:
        raise HashbenchError(f"{folder} cannot be written ({error}); make room for it") from error
    return folder


def use_packed(dataset: Dataset, root: Path) -> Dataset:
    """The dataset with its images from the packed copy, if there is one and it fits.

    What it is enters the dataset's options, and so the record of a run.

    Args:
        dataset: From files.
        root: The data root.

    Raises:
        HashbenchError: The packed copy is damaged.
    """
    folder, first = packed_folder(dataset, root), dataset.train
    if not (isinstance(first, FileImages) and folder.is_dir()):
        return dataset
    decoding = _decoding(first)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        made = {name: index[name] for name in decoding}
        packed = {"size": int(index["size"]), "sha256": str(index["sha256"])}
        ends = index["ends"]
        spans = dict(zip(index["ids"], zip([0, *ends[:-1]], ends, strict=True), strict=True))
        if (there := (folder / DATA).stat().st_size) != ends[-1]:
            raise ValueError(f"{DATA} has {there:,} bytes, not {ends[-1]:,}")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise HashbenchError(
            f"the packed copy {folder} is damaged ({error}); delete it, or prepare it again with --pack"
        ) from error
    lacking = {name for part in _parts(dataset) for name in part.ids} - spans.keys()
    if lacking or made != decoding:
        options = ", ".join(f"{name}={value}" for name, value in made.items())
        reason = f"it lacks {len(lacking):,} of the images" if lacking else f"it was made with {options}"
        warning = f"the packed copy {folder} is not used: {reason}; prepare it again with --pack"
        return replace(dataset, warnings=(*dataset.warnings, warning))

    def swap(images: Images) -> PackedImages:
        rows = np.array([spans[name] for name in images.ids], np.int64)
        return PackedImages(folder / DATA, rows, images.ids, **decoding)

    return replace(
        dataset,
        train=swap(first),
        query=Split(swap(dataset.query.images), dataset.query.labels),
        database=Split(swap(dataset.database.images), dataset.database.labels),
        options={**dataset.options, "packed": packed},
    )


def require_size(dataset: Dataset, needed: int) -> None:
    """Refuse a packed copy of smaller images than a run looks at.

    Args:
        dataset: From `load_dataset`.
        needed: Pixels of the shorter side to which images are resized.

    Raises:
        HashbenchError: There is a packed copy, and its images are smaller.
    """
    size = dataset.options.get("packed", {}).get("size", needed)
    if size < needed:
        raise HashbenchError(
            f"the packed copy of {dataset.name}@{dataset.protocol} has images of {size} pixels, the run "
            f"needs {needed}; prepare it again with --pack {needed}, or pass --data packed=false"
        )


def _parts(dataset: Dataset) -> tuple[Images, Images, Images]:
    return dataset.train, dataset.query.images, dataset.database.images


def _decoding(images: FileImages) -> dict[str, bool]:
    """The options that change pixels."""
    return {"exif": images.exif, "truncated": images.truncated}


def _smaller(images: Sequence[tuple[Images, int]], size: int) -> Iterator[bytes]:
    """The content of each image, in order."""

    def smaller(item: tuple[Images, int]) -> bytes:
        part, row = item
        image = part[row]
        scale = size / min(image.size)
        if scale >= 1:
            return part.content(row)
        width, height = (max(size, round(side * scale)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.LANCZOS)
        small.info.clear()  # other formats allow longer comments than JPEG can have
        output = BytesIO()
        small.save(output, "JPEG", quality=QUALITY, subsampling=0)
        return output.getvalue()

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("pack", len(images)) as advance:
        for start in range(0, len(images), CHUNK):
            for content in pool.map(smaller, images[start : start + CHUNK]):
                yield content
                advance(1)
