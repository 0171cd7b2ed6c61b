"""Fetching files of known content, and unpacking them."""

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
from typing import Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from hashbench.errors import LONGEST, HashbenchError, reason
from hashbench.runtime.files import sync
from hashbench.runtime.locking import locked
from hashbench.runtime.progress import progress

TIMEOUT_S = 30.0
"""How long a server may stay silent."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A file that may be downloaded, and what comes out of it.

    Attributes:
        url: Where it is.
        md5: MD5 of the file, hexadecimal.
        path: Where it is saved, below the data root.
        unpacked: The folder that comes out of it, below the data root; None: it is used as it is.
        size: Of the file, for people.
    """

    url: str
    md5: str
    path: str
    unpacked: str | None = None
    size: str = ""

    def exists(self, root: Path) -> bool:
        """Whether what is needed of it is below the data root; an empty folder is nothing."""
        result = root / (self.unpacked or self.path)
        return result.is_file() or (result.is_dir() and any(result.iterdir()))

    def ensure(self, root: Path) -> Path:
        """Download and unpack what is not there yet; a file that was put there is checked.

        Args:
            root: The data root.

        Returns:
            The file, or the folder that came out of it.

        Raises:
            HashbenchError: It cannot be had, or is not what it should be.
        """
        file, result = root / self.path, root / (self.unpacked or self.path)
        if self.exists(root):
            return result
        try:
            with locked(root):
                if not self.exists(root):  # else another process got it meanwhile
                    self._obtain(file, result)
        except OSError as error:
            raise HashbenchError(f"cannot write into {root} ({error}); choose another --data-root") from error
        return result

    def _obtain(self, file: Path, result: Path) -> None:
        if not file.is_file():
            fetch(self.url, file, self.md5)
        elif (found := file_digest(file, "md5")) != self.md5:
            raise HashbenchError(
                f"{file} has the MD5 {found}, not {self.md5} as the file at {self.url}; delete it"
            )
        if self.unpacked is not None:
            unpack(file, result)


def fetch(url: str, path: Path, md5: str) -> None:
    """Download a file, whole or not at all; what an earlier try has left is gone on with.

    Args:
        url: Where the file is.
        path: Where it goes; missing folders are made.
        md5: MD5 of the file, hexadecimal.

    Raises:
        HashbenchError: The file cannot be had or is not the one expected.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        goes_on = part.exists()
        _receive(url, part)
        found = file_digest(part, "md5")
        if goes_on and found != md5:  # what an earlier try left was no part of it
            part.unlink()
            _receive(url, part)
            found = file_digest(part, "md5")
        if found != md5:
            part.unlink()
            raise HashbenchError(
                f"{url} sends another file than it should (MD5 {found}); fetch it by hand and save it as "
                f"{path} (MD5 {md5})"
            )
        sync(part)
        part.replace(path)
    except (OSError, HTTPException, ValueError) as error:  # the last of a redirection to what is no URL
        raise HashbenchError(
            f"cannot download {url} ({str(error)[: 2 * LONGEST]}); try again, which goes on where this "
            f"stopped, or fetch it by hand and save it as {path} (MD5 {md5})"
        ) from error


def _receive(url: str, part: Path) -> None:
    """Append to `part` what it lacks."""
    there = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "hashbench"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416:  # nothing lies behind what is there: it is all, which its MD5 will show
            return
        raise
    with response:
        goes_on = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {there}-"
        )
        there = there if goes_on else 0
        length = getattr(response, "length", None)  # None, too, where the header is no number
        total = None if length is None else there + length
        with part.open("ab" if goes_on else "wb") as file, progress("download", total or 0, "MB") as advance:
            advance(there)
            while chunk := response.read(CHUNK):
                file.write(chunk)
                advance(len(chunk))
        if total is not None and part.stat().st_size != total:
            raise OSError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")


def file_digest(path: Path, algorithm: Literal["md5", "sha256"]) -> str:
    """Digest of a file, hexadecimal."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file, whole or not at all.

    Nothing is written outside of `folder`, whatever names the archive holds.

    Args:
        archive: The file.
        folder: What comes out; if all of the archive is in one folder of this name, that is meant.

    Raises:
        HashbenchError: The archive is damaged or would write elsewhere.
    """
    temporary = folder.with_name(f".{folder.name}.unpack")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # what a process that was killed has left
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
                    while tar.fileobj.read(CHUNK):  # gzip has its checksum behind all that tarfile reads
                        pass
            named = inside / folder.name
            (named if [*inside.iterdir()] == [named] and named.is_dir() else inside).rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (
        *(OSError, EOFError, ValueError, RuntimeError),  # the last: encrypted, or compressed as none can read
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
                file.extract(member, folder)  # takes `..` and a leading `/` out of names
                advance(1)
