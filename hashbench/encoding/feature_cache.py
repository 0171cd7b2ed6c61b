"""Cache of features on disk. Entries are written atomically, and verified whenever they are read."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
from hashbench.runtime.locking import owned

MIN_FREE_BYTES = 1 << 30
"""Free space that the cache leaves on the disk."""

_POLL_S = 0.1  # between two looks at features that another process computes

# A name starts with the key. Next comes the SHA-256 of features, or random digits for a partial file.
_FILE_NAME = re.compile(r"([0-9a-f]{32})(?:\.json|-[0-9a-f]{16}\.npy|-[0-9a-f]{8}\.part)")


class FeatureMetadata(BaseModel):
    """Description of cached features for the user.

    Attributes:
        backbone: Name of the network.
        image_size: Height and width of the images, in pixels.
        images: Number of images.
        dimensions: Dimension of a feature.
        device: Device that computed the features.
        versions: Versions of hashbench and of the libraries that computed them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    image_size: int
    images: int
    dimensions: int
    device: str
    versions: dict[str, str]


class _Index(BaseModel):
    """Content of the index file, without which an entry does not exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    sha256: str
    created: datetime
    facts: FeatureMetadata
    seconds: float = 0.0  # as older versions wrote no time
    """Time that it took to compute and write the features."""


@dataclass(frozen=True)
class CacheEntry:
    """Files in the cache under one key.

    Attributes:
        key: The key.
        files: The files, the index first.
        size: Their size in bytes.
        used: Time of the last use.
        created: Time of writing; None if `facts` is None.
        facts: Description of the features; None if the index is damaged, or missing after a killed process.
    """

    key: str
    files: tuple[Path, ...]
    size: int
    used: datetime
    created: datetime | None
    facts: FeatureMetadata | None


def cache_folder() -> Path | None:
    """Return the folder of the cache: `$HASHBENCH_CACHE`, or `~/.cache/hashbench/features` if it is unset.

    Returns:
        None if the variable is `off`, or if there is no home directory.
    """
    named = os.environ.get("HASHBENCH_CACHE", "").strip()  # empty counts as unset
    try:
        return None if named == "off" else Path(named or "~/.cache/hashbench/features").expanduser()
    except RuntimeError:
        return None


def load(folder: Path, key: str) -> tuple[NDArray[np.float32], float] | None:
    """Load features after a check of their hash; warn if they are damaged.

    Returns:
        [N, F], memory-mapped copy-on-write, and the seconds that they took; None if there are none or they
        are damaged.
    """
    index = folder / f"{key}.json"
    try:
        text = index.read_bytes()
    except OSError:
        return None
    try:
        found = _Index.model_validate_json(text)
        file = _features_path(folder, key, found.sha256)
        if found.key != key or sha256_of(file) != found.sha256:
            raise ValueError("hash mismatch")
        features: NDArray[np.float32] = np.load(file, mmap_mode="c")
        if features.shape != (found.facts.images, found.facts.dimensions):
            raise ValueError("shape mismatch")
    except (OSError, ValueError):
        warn(f"features in the cache are damaged ({index}); they will be recomputed")
        return None
    with suppress(OSError):  # a file of another user
        os.utime(index)
    return features, found.seconds


@contextmanager
def computing(folder: Path, key: str) -> Iterator[bool]:
    """Let one process at a time compute features; the others wait until it has stored them or ended.

    Yields:
        True if this process had to wait.

    Raises:
        OSError: The folder cannot be written.
    """
    waited = False
    with ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        while not stack.enter_context(owned(folder / f".{key}.lock")):
            stack.close()
            waited = True
            time.sleep(_POLL_S)
        yield waited


def store(
    folder: Path, key: str, facts: FeatureMetadata, rows: Iterable[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Write features atomically, with one item of `rows` in memory at a time.

    If two processes write the same key, the last one wins, and each continues with its own features.

    Returns:
        [N, F], memory-mapped copy-on-write.

    Raises:
        OSError: The features cannot be written, the disk would be full, or their size does not match `facts`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_files(folder, "", ".part")
    shape = (facts.images, facts.dimensions)
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    size = len(header.getvalue()) + 4 * facts.images * facts.dimensions
    if shutil.disk_usage(folder).free < size + MIN_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    start = time.monotonic()
    partial = folder / f"{key}-{uuid4().hex[:8]}.part"
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as out:
            if hasattr(os, "posix_fallocate"):  # fails now and not after hours if a quota is exceeded
                os.posix_fallocate(out.fileno(), 0, size)
            for piece in chain(
                [header.getvalue()], (row.astype("<f4", copy=False).tobytes() for row in rows)
            ):
                out.write(piece)
                digest.update(piece)
            if out.tell() != size:
                raise OSError(f"expected {size:,} bytes of features, got {out.tell():,}")
        sync(partial)
        sha256 = digest.hexdigest()
        file = _features_path(folder, key, sha256)
        partial.replace(file)
        seconds = time.monotonic() - start
        now = datetime.now(timezone.utc)
        index = _Index(key=key, sha256=sha256, created=now, facts=facts, seconds=seconds)
        with atomic_write(folder / f"{key}.json") as named:
            named.write_text(index.model_dump_json(indent=2), encoding="utf-8")
    finally:
        partial.unlink(missing_ok=True)
    _remove_files(folder, key, ".npy", keep=file)  # features of an earlier index
    features: NDArray[np.float32] = np.load(file, mmap_mode="c")
    return features


def stored(folder: Path) -> list[CacheEntry]:
    """Return the entries of a cache, the last used first; an empty list if there is no folder."""
    found = []
    for key, files in _find_files(folder).items():
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
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def remove(entry: CacheEntry) -> None:
    """Remove an entry. A process that has loaded it can still use it.

    Raises:
        OSError: A file cannot be removed.
    """
    for file in entry.files:
        file.unlink(missing_ok=True)


def _features_path(folder: Path, key: str, sha256: str) -> Path:
    """Return the path of features, whose hash ties them to their index."""
    return folder / f"{key}-{sha256[:16]}.npy"


def _remove_files(folder: Path, key: str, suffix: str, keep: Path | None = None) -> None:
    """Remove the files with a suffix whose keys start with `key`, except those of other users."""
    for name, files in _find_files(folder).items():
        for file in files:
            if name.startswith(key) and file.suffix == suffix and file != keep:
                with suppress(OSError):
                    file.unlink()


def _find_files(folder: Path) -> dict[str, dict[Path, os.stat_result]]:
    """Return the cache's files by key, the index first, without those that a process may still write."""
    found: dict[str, dict[Path, os.stat_result]] = {}
    for path in sorted(folder.glob("*"), reverse=True):
        name = _FILE_NAME.fullmatch(path.name)
        with suppress(FileNotFoundError):  # renamed or removed by another process
            if name and not (path.suffix == ".part" and time.time() - path.stat().st_mtime < SILENT_S):
                found.setdefault(name[1], {})[path] = path.stat()
    return found
