from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hashbench import download
from hashbench.download import fetch
from hashbench.errors import HashbenchError

CONTENT = b"some bytes" * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
        elif self.path == "/silent":
            time.sleep(1)
        elif self.path in ("/file", "/short"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if self.path == "/file" else CONTENT[:100])
        else:
            self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("name", ["file", "moved"])
def test_a_file_is_fetched(server: str, tmp_path: Path, name: str) -> None:
    fetch(f"{server}/{name}", tmp_path / "new/folder/file.gz", MD5)
    assert (tmp_path / "new/folder/file.gz").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["file.gz"]


@pytest.mark.parametrize(
    ("name", "md5", "reason"),
    [
        ("absent", MD5, "404"),
        ("short", MD5, "another file, or not all of it"),
        ("file", "0" * 32, "another file, or not all of it"),
        ("silent", MD5, "timed out"),
    ],
)
def test_a_failure_leaves_what_was_there(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, md5: str, reason: str
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    path = tmp_path / "file.gz"
    path.write_text("old")
    message = rf"cannot download {server}/{name} \(.*{reason}.*\); fetch it by hand and save it as {path}"
    with pytest.raises(HashbenchError, match=message):
        fetch(f"{server}/{name}", path, md5)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        HashbenchError, match=rf"fetch it by hand and save it as {tmp_path}/file\.gz \(MD5 {MD5}\)"
    ):
        fetch("http://127.0.0.1:9/file.gz", tmp_path / "file.gz", MD5)
    assert not list(tmp_path.iterdir())
