"""Damaged responses of servers give the file, or an error of one line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http.client import HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fuzz.mutation import PIECES, mutations
from fuzz.outcomes import refused

from hashbench.data import download

CONTENT = b"content" * 9
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3f\r\n" + CONTENT + b"\r\n0\r\n\r\n"
PARTIAL = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-62/63\r\nContent-Length: 60\r\n\r\n"
    + CONTENT[3:]
)


class Connection:
    """The parts of a socket that a response needs."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def makefile(self, _mode: str) -> BytesIO:
        """Return the bytes that the server sends."""
        return BytesIO(self.answer)


def test_answers(tmp_path: Path, tries: Callable[[int, int], int], monkeypatch: pytest.MonkeyPatch) -> None:
    path, md5 = tmp_path / "file", hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    count = 0
    answers = [ANSWER.replace(b": 63", b": " + piece) for piece in PIECES]
    for answer in (*answers, *mutations([ANSWER, CHUNKED, PARTIAL], tries(300, 10_000))):

        def answered(*_: Any, answer: bytes = answer, **__: Any) -> HTTPResponse:
            response = HTTPResponse(Connection(answer))  # type: ignore[arg-type]
            response.begin()
            return response

        monkeypatch.setattr(download, "urlopen", answered)
        (tmp_path / ".file.part").write_bytes(CONTENT[:3])
        path.unlink(missing_ok=True)
        wrong = refused(download.fetch, "http://x/file", path, md5)
        assert wrong or path.read_bytes() == CONTENT
        count += wrong
    assert 0 < count < len(answers) + tries(300, 10_000)
