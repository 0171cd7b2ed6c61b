"""A packed copy of a dataset's images: small, in one file, so that no epoch waits for large JPEG files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
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
from hashbench.locking import locked
from hashbench.threads import in_threads

QUALITY = 95  # of JPEG, without chroma subsampling
INDEX = "index.json"


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
        content = self.content(index)
        try:
            return decode(content, exif=self.exif, truncated=self.truncated)
        except HashbenchError as error:
            raise HashbenchError(
                f"the packed copy {self.file} is damaged at {self.ids[index]}; prepare it again with --pack"
            ) from error

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
    """Where the packed copy of a dataset's images is, if there is one; splits of the same files share it."""
    return root / "packed" / f"{dataset.name}-{dataset.options['files']}"


def pack(dataset: Dataset, root: Path, size: int) -> Path:
    """Write the packed copy of all images of a dataset, and replace one of another size.

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
    parts = [part.images for part in dataset.parts().values()]
    first, *_ = parts
    if not isinstance(first, FileImages):
        raise HashbenchError(f"{dataset.name} needs no packed copy; its images are not in files of their own")
    ids = {name for part in parts for name in part.ids}
    files = {file for part in parts if isinstance(part, FileImages) for file in part.sizes()}
    if len(files) != len(ids):
        raise HashbenchError(
            f"{dataset.name}: {len(files) - len(ids):,} ids are of different files in two parts, so that no "
            "copy can have both; `hashbench data verify` names them"
        )
    unique = {name: (part, row) for part in parts for row, name in enumerate(part.ids)}
    folder = packed_folder(dataset, root)
    partial = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    try:
        with locked(folder.parent):
            if _made(dataset, root, size):
                return folder
            for leftover in (partial, old):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            partial.mkdir()
            ends, digest = [], hashlib.sha256()
            with (partial / "data").open("wb") as file:
                for content in _smaller([*unique.values()], size):
                    file.write(content)
                    digest.update(content)
                    ends.append(file.tell())
            sha256 = digest.hexdigest()
            # By its content, so that a run with the old copy never reads the new one by the old index.
            (partial / "data").rename(partial / f"{sha256}.bin")
            index = {"size": size, "sha256": sha256, **_decoding(first)}
            text = json.dumps({**index, "ids": [*unique], "ends": ends})
            (partial / INDEX).write_text(text, encoding="utf-8")
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise HashbenchError(
            f"{folder} cannot be written ({error}); make room, or choose another --data-root"
        ) from error
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
    first = dataset.train
    if not isinstance(first, FileImages):
        return dataset
    folder = packed_folder(dataset, root)
    if not folder.is_dir():
        others = [*folder.parent.glob(f"{dataset.name}-{'[0-9a-f]' * 16}")]
        warning = f"no packed copy in {folder.parent} is of these images; make one by data prepare --pack"
        return replace(dataset, warnings=(*dataset.warnings, warning)) if others else dataset
    decoding = _decoding(first)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        packed = {"size": int(index["size"]), "sha256": str(index["sha256"])}
        data = folder / f"{packed['sha256']}.bin"
        ends = index["ends"]
        spans = dict(zip(index["ids"], zip([0, *ends[:-1]], ends, strict=True), strict=True))
        if (there := data.stat().st_size) != ends[-1]:
            raise ValueError(f"{data.name} has {there:,} bytes, not {ends[-1]:,}")
        made = {name: index[name] for name in decoding}
        parts = {
            name: Split(
                PackedImages(
                    data, np.array([spans[i] for i in part.images.ids], np.int64), part.images.ids, **decoding
                ),
                part.labels,
            )
            for name, part in dataset.parts().items()
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise HashbenchError(
            f"the packed copy {folder} is damaged ({error}); delete it, or prepare it again with --pack"
        ) from error
    if made != decoding:
        options = ", ".join(f"{name}={value}" for name, value in made.items())
        warning = (
            f"the packed copy {folder} is not used: it was made with {options}; prepare it again with --pack"
        )
        return replace(dataset, warnings=(*dataset.warnings, warning))

    return replace(
        dataset,
        train=parts["train"].images,
        query=parts["query"],
        database=parts["database"],
        options={**dataset.options, "packed": packed},
    )


def _made(dataset: Dataset, root: Path, size: int) -> bool:
    """Whether there is a sound packed copy of that size."""
    try:
        packed = use_packed(dataset, root).options.get("packed")
    except HashbenchError:
        return False
    return packed is not None and packed["size"] == size and check_packed(dataset, root) is None


def check_packed(dataset: Dataset, root: Path) -> str | None:
    """What is wrong with the packed copy of a dataset's images, if there is one; reads all of it.

    Args:
        dataset: From files.
        root: The data root.
    """
    try:
        images = use_packed(dataset, root).train
        if isinstance(images, PackedImages):
            with images.file.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            if digest.hexdigest() != images.file.stem:
                raise HashbenchError(f"the packed copy {images.file} has changed since it was written")
    except (HashbenchError, OSError) as error:
        return str(error)
    return None


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

    return in_threads("pack", smaller, images)
