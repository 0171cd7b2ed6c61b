"""Fetching a file of known content."""

from __future__ import annotations

import socket
import tempfile
from http.client import HTTPException
from pathlib import Path

from hashbench.errors import HashbenchError

TIMEOUT_S = 30.0
"""How long a server may stay silent."""


def fetch(url: str, path: Path, md5: str) -> None:
    """Download a file, whole or not at all.

    Args:
        url: Where the file is.
        path: Where it goes; missing folders are made.
        md5: MD5 of the file, hexadecimal.

    Raises:
        HashbenchError: The file cannot be had or is not the one expected; nothing is left behind.
    """
    from torchvision.datasets.utils import check_integrity, download_url  # imports torch

    silence = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)  # torchvision sets none, and would wait for ever
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
            part = Path(folder, path.name)
            download_url(url, folder, part.name)
            if not check_integrity(part, md5):
                raise OSError("what it sends is another file, or not all of it")
            part.replace(path)
    except (OSError, HTTPException, RecursionError) as error:  # RecursionError: too many redirects
        raise HashbenchError(
            f"cannot download {url} ({error}); fetch it by hand and save it as {path} (MD5 {md5})"
        ) from error
    finally:
        socket.setdefaulttimeout(silence)
