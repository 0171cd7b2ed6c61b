"""A packed copy of a dataset's images: small, in one file, so that no epoch waits for large JPEG files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashbench.data.dataset import Dataset, Split
from hashbench.data.download import file_digest
from hashbench.errors import HashbenchError
from hashbench.images.decoding import decode
from hashbench.images.image_sets import FileImages, Images
from hashbench.runtime.files import put_back, put_in_place, set_aside, where
from hashbench.runtime.json_files import parse_json
from hashbench.runtime.locking import locked
from hashbench.runtime.preemption import PreemptionError
from hashbench.runtime.progress import in_threads

QUALITY = 95  # of JPEG, without chroma subsampling
INDEX = "index.json"
CHECKSUM = "index.sha256"  # of the index, as sha256sum writes it; the index has those of the images
PIECE = 1 << 22  # bytes that are hashed at once

_INDEX_TYPES = {
    **{"size": int, "sha256": str, "exif": bool, "truncated": bool},
    **{"pieces": list, "ids": list, "ends": list},
}


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
        except PreemptionError:
            raise
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
    try:
        with locked(folder.parent):
            put_back(folder)
            for leftover in folder.parent.glob(".*.new"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            if _made(dataset, root, size):
                return folder
            with tempfile.TemporaryDirectory(prefix=".", suffix=".new", dir=folder.parent) as temporary:
                copy = Path(temporary, folder.name)  # the temporary folder itself is closed to other users
                copy.mkdir()
                _write(copy, unique, size, _decoding(first))
                put_in_place(copy, folder)
    except OSError as error:
        raise HashbenchError(
            f"{folder} cannot be written ({error}); make room, or choose another --data-root"
        ) from error
    return folder


def _write(folder: Path, images: dict[str, tuple[Images, int]], size: int, decoding: dict[str, bool]) -> None:
    """Write a copy of images, by their ids, into an empty folder."""
    ends, digest = [], hashlib.sha256()
    with (folder / "data").open("wb") as file:
        for content in _smaller([*images.values()], size):
            file.write(content)
            digest.update(content)
            ends.append(file.tell())
    sha256 = digest.hexdigest()
    # By its content, so that a run with the old copy never reads the new one by the old index.
    (folder / "data").rename(folder / f"{sha256}.bin")
    pieces = _piece_digests(folder / f"{sha256}.bin")
    index = {"size": size, "sha256": sha256, "pieces": pieces, **decoding}
    text = json.dumps({**index, "ids": [*images], "ends": ends})
    (folder / INDEX).write_text(text, encoding="utf-8")
    (folder / CHECKSUM).write_text(f"{file_digest(folder / INDEX, 'sha256')}  {INDEX}\n")


def use_packed(dataset: Dataset, root: Path) -> Dataset:
    """The dataset with its images from the packed copy, if there is one and it fits.

    All of the copy is read and checked. What it is enters the dataset's options, and so the record of a run.

    Args:
        dataset: From files.
        root: The data root.

    Raises:
        HashbenchError: The packed copy has changed since it was written, or has no checksum.
    """
    first = dataset.train
    if not isinstance(first, FileImages):
        return dataset
    folder = packed_folder(dataset, root)
    if set_aside(folder).is_dir():  # a process was killed, or will soon have replaced it
        with suppress(OSError), locked(folder.parent):
            put_back(folder)
    folder = where(folder)
    if not folder.is_dir():
        others = [*folder.parent.glob(f"{dataset.name}-{'[0-9a-f]' * 16}")]
        warning = f"no packed copy in {folder.parent} is of these images; make one by data prepare --pack"
        return replace(dataset, warnings=(*dataset.warnings, warning)) if others else dataset
    if (folder / INDEX).is_file() and not (folder / CHECKSUM).is_file():
        raise HashbenchError(
            f"the packed copy {folder} cannot be checked: it has no {CHECKSUM}, as an older hashbench wrote "
            "none; prepare it again with --pack, or pass --data packed=false"
        )
    decoding = _decoding(first)
    before = _inode(folder)
    try:
        text = (folder / INDEX).read_bytes()
        index_sha256 = hashlib.sha256(text).hexdigest()
        if (folder / CHECKSUM).read_bytes() != f"{index_sha256}  {INDEX}\n".encode():
            raise ValueError(f"{INDEX} has changed since it was written")
        index = _parse_index(text)
        made = {name: index[name] for name in decoding}
        if made != decoding:
            options = ", ".join(f"{name}={value}" for name, value in made.items())
            warning = (
                f"the packed copy {folder} is not used: it was made with {options}; prepare it again with "
                "--pack"
            )
            return replace(dataset, warnings=(*dataset.warnings, warning))
        packed = {"size": index["size"], "sha256": index["sha256"], "index_sha256": index_sha256}
        data = folder / f"{index['sha256']}.bin"
        # Of the processes that train together on a machine, the first checks for all.
        if os.environ.get("LOCAL_RANK", "0") == "0" and _piece_digests(data) != index["pieces"]:
            raise ValueError(f"{data.name} has changed since it was written")
        ends = index["ends"]
        if ends[-1:] != [data.stat().st_size]:
            raise ValueError(f"{INDEX} does not end where {data.name} does")
        spans = dict(zip(index["ids"], zip([0, *ends[:-1]], ends, strict=True), strict=True))
        parts = {
            name: Split(
                PackedImages(
                    data, np.array([spans[i] for i in part.images.ids], np.int64), part.images.ids, **decoding
                ),
                part.labels,
            )
            for name, part in dataset.parts().items()
        }
    except (OSError, ValueError, KeyError) as error:
        if _inode(folder) != before:  # replaced while it was read
            return use_packed(dataset, root)
        raise HashbenchError(
            f"the packed copy {folder} is damaged ({error}); prepare it again with --pack, or pass "
            "--data packed=false"
        ) from error

    return replace(
        dataset,
        train=parts["train"].images,
        query=parts["query"],
        database=parts["database"],
        options={**dataset.options, "packed": packed},
    )


def _inode(folder: Path) -> int | None:
    """Return the number by which a folder is known to its disk; None: it is not there."""
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _parse_index(text: bytes) -> dict[str, Any]:
    """Parse an index, which may be anything, since a checksum says nothing about who wrote it."""
    index = parse_json(text)
    if not (
        isinstance(index, dict)
        and all(type(index.get(name)) is expected for name, expected in _INDEX_TYPES.items())
        and index["size"] > 0
        and re.fullmatch("[0-9a-f]{64}", index["sha256"])
        and all(type(image_id) is str for image_id in index["ids"])
        and all(type(end) is int for end in index["ends"])
        and [0, *index["ends"]] == sorted([0, *index["ends"]])
    ):
        raise ValueError(f"{INDEX} is not the index of a packed copy")
    return index


def _piece_digests(file: Path) -> list[str]:
    """Hash a file piece by piece in threads, since a core takes a second for each GB."""

    def digest(start: int) -> str:
        with file.open("rb") as opened:
            opened.seek(start)
            return hashlib.sha256(opened.read(PIECE)).hexdigest()

    return [*in_threads("check", digest, range(0, file.stat().st_size, PIECE))]


def _made(dataset: Dataset, root: Path, size: int) -> bool:
    """Whether there is a sound packed copy of that size."""
    try:
        return bool(use_packed(dataset, root).options.get("packed", {}).get("size") == size)
    except HashbenchError:
        return False


def check_packed(dataset: Dataset, root: Path) -> str | None:
    """What is wrong with the packed copy of a dataset's images, if there is one.

    Args:
        dataset: From files.
        root: The data root.
    """
    try:
        use_packed(dataset, root)
    except HashbenchError as error:
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
