"""Packed copies: the resized images of a dataset in one file, which load faster than large JPEG files."""

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
from hashbench.errors import HashbenchError
from hashbench.images.decoding import decode
from hashbench.images.image_sets import FileImages, Images
from hashbench.runtime.files import folder_name, put_back, put_in_place, set_aside, sha256_of, where
from hashbench.runtime.json_files import parse_json
from hashbench.runtime.locking import locked
from hashbench.runtime.preemption import PreemptionError
from hashbench.runtime.progress import in_threads

QUALITY = 95  # of JPEG, without chroma subsampling
INDEX = "index.json"
CHECKSUM = "index.sha256"  # in the format of sha256sum; the index contains the hashes of the images
PIECE = 1 << 22  # bytes that are hashed together

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
        """Store the arguments; no image is read.

        Args:
            file: File with the images.
            spans: Start and end of each image in the file, in bytes [n, 2].
            ids: One id per image.
            exif: Rotate images that were stored unchanged by their EXIF orientation.
            truncated: Accept truncated images that were stored unchanged.
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
        """Return the bytes of the packed image; see `Images.content`."""
        if self._bytes is None:
            try:
                self._bytes = np.memmap(self.file, np.uint8, mode="r")
            except (OSError, ValueError) as error:  # removed or emptied after the dataset was loaded
                raise HashbenchError(f"{self.file} cannot be read ({error}); prepare it again") from error
        start, end = self.spans[index]
        return self._bytes[start:end].tobytes()

    def subset(self, indices: NDArray[np.integer[Any]]) -> PackedImages:
        """Return the images at the given indices; see `Images.subset`."""
        ids = [self.ids[index] for index in indices]
        return PackedImages(self.file, self.spans[indices], ids, exif=self.exif, truncated=self.truncated)


def packed_folder(dataset: Dataset, root: Path) -> Path:
    """Return the folder of a dataset's packed copy, which all splits of the same files share."""
    return root / "packed" / f"{folder_name(dataset.name)}-{dataset.options['files']}"


def pack(dataset: Dataset, root: Path, size: int) -> Path:
    """Write the packed copy of all images of a dataset, replacing one of another size.

    Images are resized so that the shorter side has `size` pixels, and stored as JPEG of quality 95; files of
    smaller images are stored unchanged.

    Args:
        dataset: From `load_dataset` with packed=False.
        root: The data root.
        size: Pixels of the shorter side.

    Returns:
        The folder of the packed copy.

    Raises:
        HashbenchError: The images are in memory, one of them cannot be read, or the copy cannot be written.
    """
    parts = [part.images for part in dataset.parts().values()]
    first, *_ = parts
    if not isinstance(first, FileImages):
        raise HashbenchError(f"{dataset.name} needs no packed copy, since its images are not separate files")
    ids = {name for part in parts for name in part.ids}
    files = {file for part in parts if isinstance(part, FileImages) for file in part.sizes()}
    if len(files) != len(ids):
        raise HashbenchError(
            f"{dataset.name}: {len(files) - len(ids):,} ids belong to different files in two parts, and a "
            "packed copy can have only one file per id; `hashbench data verify` lists them"
        )
    unique = {name: (part, row) for part in parts for row, name in enumerate(part.ids)}
    folder = packed_folder(dataset, root)
    try:
        with locked(folder.parent):
            put_back(folder)
            for leftover in folder.parent.glob(".*.new"):  # from a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            if _is_valid(dataset, root, size):
                return folder
            with tempfile.TemporaryDirectory(prefix=".", suffix=".new", dir=folder.parent) as temporary:
                copy = Path(temporary, folder.name)  # other users cannot read the temporary folder itself
                copy.mkdir()
                _write(copy, unique, size, _decoding(first))
                put_in_place(copy, folder)
    except OSError as error:
        raise HashbenchError(
            f"{folder} cannot be written ({error}); free disk space, or choose another --data-root"
        ) from error
    return folder


def _write(folder: Path, images: dict[str, tuple[Images, int]], size: int, decoding: dict[str, bool]) -> None:
    """Write a packed copy of images, given by id, into an empty folder."""
    ends, digest = [], hashlib.sha256()
    with (folder / "data").open("wb") as file:
        for content in _resized([*images.values()], size):
            file.write(content)
            digest.update(content)
            ends.append(file.tell())
    sha256 = digest.hexdigest()
    # Named by its content, so that a run with the old index never reads the new copy.
    (folder / "data").rename(folder / f"{sha256}.bin")
    pieces = _piece_digests(folder / f"{sha256}.bin")
    index = {"size": size, "sha256": sha256, "pieces": pieces, **decoding}
    text = json.dumps({**index, "ids": [*images], "ends": ends})
    (folder / INDEX).write_text(text, encoding="utf-8")
    (folder / CHECKSUM).write_text(f"{sha256_of(folder / INDEX)}  {INDEX}\n")


def use_packed(dataset: Dataset, root: Path) -> Dataset:
    """Return the dataset with its images from the packed copy, if there is one with the same options.

    The whole copy is read and checked. The dataset's options, and so the record of a run, include its hashes.

    Raises:
        HashbenchError: The packed copy has changed since it was written, or has no checksum.
    """
    first = dataset.train
    if not isinstance(first, FileImages):
        return dataset
    folder = packed_folder(dataset, root)
    if set_aside(folder).is_dir():  # a process is replacing it, or was killed while it did
        with suppress(OSError), locked(folder.parent):
            put_back(folder)
    folder = where(folder)
    if not folder.is_dir():
        others = [*folder.parent.glob(f"{folder_name(dataset.name)}-{'[0-9a-f]' * 16}")]
        warning = f"no packed copy in {folder.parent} has these images; create one with data prepare --pack"
        return replace(dataset, warnings=(*dataset.warnings, warning)) if others else dataset
    if (folder / INDEX).is_file() and not (folder / CHECKSUM).is_file():
        raise HashbenchError(
            f"the packed copy {folder} has no {CHECKSUM}, which older versions did not write, so it cannot "
            "be checked; prepare it again with --pack, or pass --data packed=false"
        )
    decoding = _decoding(first)
    inode = _inode(folder)
    try:
        index, index_sha256 = _read_index(folder)
        stored = {name: index[name] for name in decoding}
        if stored != decoding:
            options = ", ".join(f"{name}={value}" for name, value in stored.items())
            warning = (
                f"the packed copy {folder} is not used, since it was created with {options}; prepare it "
                "again with --pack"
            )
            return replace(dataset, warnings=(*dataset.warnings, warning))
        parts = _packed_parts(dataset, folder, index, decoding)
    except (OSError, ValueError, KeyError) as error:
        if _inode(folder) != inode:  # replaced while it was read
            return use_packed(dataset, root)
        raise HashbenchError(
            f"the packed copy {folder} is damaged ({error}); prepare it again with --pack, or pass "
            "--data packed=false"
        ) from error
    packed = {"size": index["size"], "sha256": index["sha256"], "index_sha256": index_sha256}
    return replace(
        dataset,
        train=parts["train"].images,
        query=parts["query"],
        database=parts["database"],
        options={**dataset.options, "packed": packed},
    )


def _packed_parts(
    dataset: Dataset, folder: Path, index: dict[str, Any], decoding: dict[str, bool]
) -> dict[str, Split]:
    """Check the file with the images, and return the parts of the dataset with images from it."""
    file, ends = folder / f"{index['sha256']}.bin", index["ends"]
    # One process per machine checks the file.
    if os.environ.get("LOCAL_RANK", "0") == "0" and _piece_digests(file) != index["pieces"]:
        raise ValueError(f"{file.name} has changed since it was written")
    if ends[-1:] != [file.stat().st_size]:
        raise ValueError(f"{INDEX} does not have the size of {file.name}")
    spans = dict(zip(index["ids"], zip([0, *ends[:-1]], ends, strict=True), strict=True))
    parts = {}
    for name, part in dataset.parts().items():
        ids = part.images.ids
        images = PackedImages(file, np.array([spans[i] for i in ids], np.int64), ids, **decoding)
        parts[name] = Split(images, part.labels)
    return parts


def _inode(folder: Path) -> int | None:
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def _read_index(folder: Path) -> tuple[dict[str, Any], str]:
    """Read an index and its SHA-256, and check its types, since a checksum does not prove who wrote it."""
    text = (folder / INDEX).read_bytes()
    sha256 = hashlib.sha256(text).hexdigest()
    if (folder / CHECKSUM).read_bytes() != f"{sha256}  {INDEX}\n".encode():
        raise ValueError(f"{INDEX} has changed since it was written")
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
    return index, sha256


def _piece_digests(file: Path) -> list[str]:
    """Hash the pieces of a file in threads, since one core takes a second per GB."""

    def digest(start: int) -> str:
        with file.open("rb") as opened:
            opened.seek(start)
            return hashlib.sha256(opened.read(PIECE)).hexdigest()

    return [*in_threads("check", digest, range(0, file.stat().st_size, PIECE))]


def _is_valid(dataset: Dataset, root: Path, size: int) -> bool:
    """Return True if there is an undamaged packed copy of this size."""
    try:
        return bool(use_packed(dataset, root).options.get("packed", {}).get("size") == size)
    except HashbenchError:
        return False


def check_packed(dataset: Dataset, root: Path) -> str | None:
    """Return what is wrong with the packed copy of a dataset; None: it is valid or does not exist."""
    try:
        use_packed(dataset, root)
    except HashbenchError as error:
        return str(error)
    return None


def require_size(dataset: Dataset, needed: int) -> None:
    """Check that the images of a packed copy are large enough for a run.

    Args:
        dataset: From `load_dataset`.
        needed: Pixels of the shorter side after resizing in the run.

    Raises:
        HashbenchError: The dataset uses a packed copy of smaller images.
    """
    size = dataset.options.get("packed", {}).get("size", needed)
    if size < needed:
        raise HashbenchError(
            f"the packed copy of {dataset.name}@{dataset.protocol} has images of {size} pixels, but the run "
            f"needs {needed}; prepare it again with --pack {needed}, or pass --data packed=false"
        )


def _decoding(images: FileImages) -> dict[str, bool]:
    """Return the options that affect the pixels."""
    return {"exif": images.exif, "truncated": images.truncated}


def _resized(images: Sequence[tuple[Images, int]], size: int) -> Iterator[bytes]:
    """Return the content of each resized image, in order."""

    def resize(item: tuple[Images, int]) -> bytes:
        part, row = item
        image = part[row]
        scale = size / min(image.size)
        if scale >= 1:
            return part.content(row)
        width, height = (max(size, round(side * scale)) for side in image.size)
        small = image.resize((width, height), Image.Resampling.LANCZOS)
        small.info.clear()  # other formats allow longer comments than JPEG does
        output = BytesIO()
        small.save(output, "JPEG", quality=QUALITY, subsampling=0)
        return output.getvalue()

    return in_threads("pack", resize, images)
