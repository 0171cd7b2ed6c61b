"""Download files of known content and unpack them."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from hashbench.errors import LONGEST, HashbenchError, reason
from hashbench.runtime.files import sync, update_hash
from hashbench.runtime.locking import locked
from hashbench.runtime.progress import progress

TIMEOUT_S = 30.0
"""Timeout of a server that sends nothing."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A downloadable file, which may be an archive to unpack.

    Attributes:
        url: URL of the file.
        md5: MD5 of the file, hexadecimal.
        path: Path of the downloaded file, relative to the data root.
        unpacked: Folder to unpack the file into, relative to the data root; None: it is not unpacked.
        size: Size of the file, as text.
    """

    url: str
    md5: str
    path: str
    unpacked: str | None = None
    size: str = ""

    def exists(self, root: Path) -> bool:
        """Return True if the file, or a non-empty folder with its content, is below the data root."""
        result = root / (self.unpacked or self.path)
        return result.is_file() or (result.is_dir() and any(result.iterdir()))

    def ensure(self, root: Path) -> Path:
        """Download and unpack the file if necessary; check a file that the user put there.

        Returns:
            The file, or the folder with its content.

        Raises:
            HashbenchError: The file cannot be downloaded or unpacked, or has another MD5.
        """
        file, result = root / self.path, root / (self.unpacked or self.path)
        if self.exists(root):
            return result
        try:
            with locked(root):
                if not self.exists(root):  # another process may have created it meanwhile
                    self._create(file, result)
        except OSError as error:
            raise HashbenchError(f"cannot write into {root} ({error}); choose another --data-root") from error
        return result

    def _create(self, file: Path, result: Path) -> None:
        if not file.is_file():
            fetch(self.url, file, self.md5)
        elif (found := _md5_of(file)) != self.md5:
            raise HashbenchError(
                f"{file}: expected the MD5 {self.md5} of {self.url}, got {found}; delete the file"
            )
        if self.unpacked is not None:
            unpack(file, result)


def fetch(url: str, path: Path, md5: str) -> None:
    """Download a file atomically, and resume a partial download.

    Args:
        url: URL of the file.
        path: Path to save it to; missing folders are created.
        md5: MD5 of the file, hexadecimal.

    Raises:
        HashbenchError: The file cannot be downloaded or has another MD5.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.exists()
        _receive(url, part)
        found = _md5_of(part)
        if resumed and found != md5:  # the partial download may have been of another file
            part.unlink()
            _receive(url, part)
            found = _md5_of(part)
        if found != md5:
            part.unlink()
            raise HashbenchError(
                f"{url}: expected a file with the MD5 {md5}, got {found}; download it manually and save it "
                f"as {path}"
            )
        sync(part)
        part.replace(path)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: a redirection to an invalid URL
        raise HashbenchError(
            f"cannot download {url} ({str(error)[: 2 * LONGEST]})",
            "next: run the same command again, which resumes the download",
            f"or download it manually and save it as {path} (MD5 {md5})",
        ) from error


def _md5_of(path: Path) -> str:
    return update_hash(hashlib.md5(usedforsecurity=False), path)


def _receive(url: str, part: Path) -> None:
    """Download a file, or the rest of it, into `part`."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "hashbench"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416:  # the file has no more bytes, so it is complete; the caller checks its MD5
            return
        raise
    with response:
        content_range = response.headers.get("Content-Range", "")
        resumed = response.status == 206 and content_range.startswith(f"bytes {start}-")
        start = start if resumed else 0
        length = getattr(response, "length", None)  # None if the header is missing or invalid
        total = None if length is None else start + length
        with part.open("ab" if resumed else "wb") as file, progress("download", total or 0, "MB") as advance:
            advance(start)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
        if total is not None and part.stat().st_size != total:
            raise OSError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file atomically.

    Nothing is written outside of `folder`, whatever paths the archive contains.

    Args:
        archive: The file.
        folder: Folder to create; if the archive contains only a folder of this name, it becomes this one.

    Raises:
        HashbenchError: The archive is damaged or contains a path outside of the folder.
    """
    temporary = folder.with_name(f".{folder.name}.unpack")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # a process that was killed may have left it
        inside = temporary / "content"
        inside.mkdir(parents=True)
        try:
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, inside)
            elif not hasattr(tarfile, "data_filter"):
                raise ValueError("this Python cannot unpack it safely, update it to 3.10.12, 3.11.4 or newer")
            else:
                with tarfile.open(archive) as tar:
                    tar.extractall(inside, filter="data")
                    assert tar.fileobj is not None
                    while tar.fileobj.read(CHUNK):  # gzip's checksum is behind the data that tarfile reads
                        pass
            named = inside / folder.name
            (named if [*inside.iterdir()] == [named] and named.is_dir() else inside).rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (
        *(OSError, EOFError, ValueError, RuntimeError),  # RuntimeError: encryption or an unknown compression
        *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    ) as error:
        raise HashbenchError(
            f"{archive} cannot be unpacked ({reason(error)}); if it is damaged, delete it and get it again"
        ) from error


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        with progress("unpack", len(members)) as advance:
            for member in members:
                file.extract(member, folder)  # removes `..` and a leading `/` from paths
                advance(1)
