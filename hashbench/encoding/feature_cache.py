"""Features kept on disk: each set whole, checked whenever it is read, and known by all that it depends on."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from io import BytesIO
from itertools import chain
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from hashbench.runtime.console import warn
from hashbench.runtime.files import SILENT_S, atomic_write, sha256_of, sync

ROOM = 1 << 30
"""Bytes of the disk that are left to everything else."""

# A name is the key; behind it, of features, the beginning of their SHA-256, and of a file that is still
# written, something random.
_OWN = re.compile(r"([0-9a-f]{32})(?:\.json|-[0-9a-f]{16}\.npy|-[0-9a-f]{8}\.part)")


class FeatureMetadata(BaseModel):
    """What features are of, for people.

    Attributes:
        backbone: Name of the network.
        image_size: Height and width of the images, in pixels.
        images: Their number.
        dimensions: Of a feature.
        device: That computed them.
        versions: Of the libraries that did, and of hashbench.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    image_size: int
    images: int
    dimensions: int
    device: str
    versions: dict[str, str]


class _Index(BaseModel):
    """The file that makes features count: without it they are not there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    sha256: str
    created: datetime
    facts: FeatureMetadata


@dataclass(frozen=True)
class CacheEntry:
    """What is in the cache under one key.

    Attributes:
        key: The key.
        files: Its files, the index first.
        size: Their bytes.
        used: When the features were last used.
        created: When they were written; None as `facts`.
        facts: What they are; None for what a process that was killed has left, or for a damaged index.
    """

    key: str
    files: tuple[Path, ...]
    size: int
    used: datetime
    created: datetime | None
    facts: FeatureMetadata | None


def cache_folder() -> Path | None:
    """The folder of the features: `$HASHBENCH_CACHE`, else `~/.cache/hashbench/features`.

    Returns:
        None, if the variable is `off`, or if there is no home.
    """
    named = os.environ.get("HASHBENCH_CACHE", "").strip()  # one that is empty counts as unset
    try:
        return None if named == "off" else Path(named or "~/.cache/hashbench/features").expanduser()
    except RuntimeError:
        return None


def load(folder: Path, key: str) -> NDArray[np.float32] | None:
    """Features from the disk, after all of their bytes were checked; what is damaged is said.

    Args:
        folder: Of the cache.
        key: Of the features, 32 hexadecimal digits.

    Returns:
        [N, F], mapped from the file: what is changed stays in this process. None, if they are not there, or
        damaged.
    """
    index = folder / f"{key}.json"
    try:
        text = index.read_bytes()
    except OSError:
        return None
    try:
        found = _Index.model_validate_json(text)
        file = _features(folder, key, found.sha256)
        if found.key != key or sha256_of(file) != found.sha256:
            raise ValueError("it has changed since it was written")
        features: NDArray[np.float32] = np.load(file, mmap_mode="c")
        if features.shape != (found.facts.images, found.facts.dimensions):
            raise ValueError("its shape is not what its index says")
    except (OSError, ValueError):
        warn(f"features in the cache are damaged ({index}); they are computed again")
        return None
    with suppress(OSError):  # of another user
        os.utime(index)
    return features


def store(
    folder: Path, key: str, facts: FeatureMetadata, rows: Iterable[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Write features as they come, whole or not at all; never more of them than `rows` gives is in memory.

    If two processes write the same features, the last one's stay, and both go on with their own.

    Args:
        folder: Of the cache; made if it is missing.
        key: Of the features, 32 hexadecimal digits.
        facts: What they are.
        rows: The features [n, F], piece by piece.

    Returns:
        [N, F], mapped from the file: what is changed stays in this process.

    Raises:
        OSError: They cannot be written, the disk would be full, or there are more or fewer than `facts` says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _clean(folder, "", ".part")
    shape = (facts.images, facts.dimensions)
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    size = len(header.getvalue()) + 4 * facts.images * facts.dimensions
    if shutil.disk_usage(folder).free < size + ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    partial = folder / f"{key}-{uuid4().hex[:8]}.part"
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as out:
            if hasattr(os, "posix_fallocate"):  # a quota is met now, not after hours
                os.posix_fallocate(out.fileno(), 0, size)
            for piece in chain(
                [header.getvalue()], (row.astype("<f4", copy=False).tobytes() for row in rows)
            ):
                out.write(piece)
                digest.update(piece)
            if out.tell() != size:
                raise OSError(f"{out.tell():,} bytes of features came, not {size:,}")
        sync(partial)
        sha256 = digest.hexdigest()
        file = _features(folder, key, sha256)
        partial.replace(file)
        index = _Index(key=key, sha256=sha256, created=datetime.now(timezone.utc), facts=facts)
        with atomic_write(folder / f"{key}.json") as named:
            named.write_text(index.model_dump_json(indent=2), encoding="utf-8")
    finally:
        partial.unlink(missing_ok=True)
    _clean(folder, key, ".npy", besides=file)  # what the index named before
    features: NDArray[np.float32] = np.load(file, mmap_mode="c")
    return features


def stored(folder: Path) -> list[CacheEntry]:
    """What is in the cache, the last used first; nothing, if there is no folder."""
    found = []
    for key, files in _own_files(folder).items():
        first, *_ = files
        index: _Index | None = None
        with suppress(OSError, ValueError):
            index = _Index.model_validate_json(first.read_bytes()) if first.suffix == ".json" else None
        found.append(
            CacheEntry(
                key=key,
                files=tuple(files),
                size=sum(state.st_size for state in files.values()),
                used=datetime.fromtimestamp(files[first].st_mtime, timezone.utc),
                created=None if index is None else index.created,
                facts=None if index is None else index.facts,
            )
        )
    return sorted(found, key=lambda one: one.used, reverse=True)


def remove(one: CacheEntry) -> None:
    """Remove what is under a key. A process that uses it now goes on with it.

    Raises:
        OSError: A file cannot be removed.
    """
    for file in one.files:
        file.unlink(missing_ok=True)


def _features(folder: Path, key: str, sha256: str) -> Path:
    """The file of features; its name has its content, so that an index never goes with another's features."""
    return folder / f"{key}-{sha256[:16]}.npy"


def _clean(folder: Path, key: str, suffix: str, besides: Path | None = None) -> None:
    """Remove the cache's files with a key that begins so, and a suffix; not if they are of another user."""
    for name, files in _own_files(folder).items():
        for file in files:
            if name.startswith(key) and file.suffix == suffix and file != besides:
                with suppress(OSError):
                    file.unlink()


def _own_files(folder: Path) -> dict[str, dict[Path, os.stat_result]]:
    """The cache's files by key, the index first; without those that a process may still write."""
    found: dict[str, dict[Path, os.stat_result]] = {}
    for path in sorted(folder.glob("*"), reverse=True):
        name = _OWN.fullmatch(path.name)
        with suppress(FileNotFoundError):  # renamed or removed by another process
            if name and not (path.suffix == ".part" and time.time() - path.stat().st_mtime < SILENT_S):
                found.setdefault(name[1], {})[path] = path.stat()
    return found
