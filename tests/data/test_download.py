"""Downloading and unpacking."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from hashbench.data import download
from hashbench.data.download import Archive, fetch, unpack
from hashbench.errors import HashbenchError

CONTENT = bytes(range(250)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """A server that answers by path and stores the requested ranges."""

    asked: list[str | None]

    def do_GET(self) -> None:
        range_ = self.headers.get("Range")
        self.asked.append(range_)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file")
            self.end_headers()
            return
        if self.path == "/nowhere":
            self.send_response(302)
            self.send_header("Location", "http://[x")
            self.end_headers()
            return
        if self.path == "/absent":
            self.send_error(404)
            return
        if self.path == "/silent":
            time.sleep(1)
            return
        start = int(range_.removeprefix("bytes=").removesuffix("-")) if range_ else 0
        if self.path in ("/norange", "/unsized"):
            start = 0
        if self.path == "/wrongrange" and start:
            start -= 1
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.path != "/unsized":
            length = unquote(self.path).partition("=")[2] or len(CONTENT) - start
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + 100] if self.path == "/short" else CONTENT[start:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("name", ["file", "moved", "unsized", "=abc", "=-1", "=1e4", "=" + "9" * 5000])
def test_a_file_is_fetched(server: str, tmp_path: Path, name: str) -> None:
    fetch(f"{server}/{name}", tmp_path / "new/folder/file.gz", MD5)
    assert (tmp_path / "new/folder/file.gz").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["file.gz"]
    assert hashlib.md5((tmp_path / "new/folder/file.gz").read_bytes()).hexdigest() == MD5


def test_a_broken_download_is_gone_on_with(server: str, tmp_path: Path) -> None:
    path, part = tmp_path / "file.gz", tmp_path / ".file.gz.part"
    reason = (
        r"\(the connection ended after 100 of 10,000 bytes\)\nnext: run the same command again, which resumes"
    )
    with pytest.raises(HashbenchError, match=f"cannot download {server}/short {reason}"):
        fetch(f"{server}/short", path, MD5)
    assert part.read_bytes() == CONTENT[:100]
    with pytest.raises(HashbenchError, match="after 200 of 10,000 bytes"):
        fetch(f"{server}/short", path, MD5)
    assert not path.exists()
    fetch(f"{server}/moved", path, MD5)
    assert path.read_bytes() == CONTENT
    assert not part.exists()
    assert Handler.asked == [None, "bytes=100-", "bytes=200-", "bytes=200-"]


@pytest.mark.parametrize("name", ["file", "norange", "unsized"])
@pytest.mark.parametrize("there", [1, 5_000, 9_999])
def test_what_is_there_counts_only_if_the_server_goes_on_from_it(
    server: str, tmp_path: Path, name: str, there: int
) -> None:
    (tmp_path / ".file.gz.part").write_bytes(CONTENT[:there])
    fetch(f"{server}/{name}", tmp_path / "file.gz", MD5)
    assert (tmp_path / "file.gz").read_bytes() == CONTENT
    assert Handler.asked == [f"bytes={there}-"]


def test_a_part_that_is_whole_needs_no_more(server: str, tmp_path: Path) -> None:
    (tmp_path / ".file.gz.part").write_bytes(CONTENT)
    fetch(f"{server}/file", tmp_path / "file.gz", MD5)  # the answer is 416
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("file", b"x" * 5_000),  # of another file
        ("file", CONTENT + b"x"),  # longer than the file: 416
        ("wrongrange", CONTENT[:5_000]),
    ],
)
def test_what_is_no_part_of_the_file_is_not_gone_on_with(
    server: str, tmp_path: Path, name: str, there: bytes
) -> None:
    (tmp_path / ".file.gz.part").write_bytes(there)
    fetch(f"{server}/{name}", tmp_path / "file.gz", MD5)
    assert (tmp_path / "file.gz").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.gz"]


def test_another_file_is_not_kept(server: str, tmp_path: Path) -> None:
    message = (
        r"/file: expected a file with the MD5 0{32}, got \w+; download it manually and save it as .*file\.gz"
    )
    with pytest.raises(HashbenchError, match=message):
        fetch(f"{server}/file", tmp_path / "file.gz", "0" * 32)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "md5", "reason"),
    [("absent", MD5, "404"), ("silent", MD5, "timed out"), ("nowhere", MD5, "Invalid IPv6 URL")],
)
def test_a_failure_leaves_what_was_there(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, md5: str, reason: str
) -> None:
    if name == "silent":
        monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    path = tmp_path / "file.gz"
    path.write_text("old")
    message = rf"^cannot download {server}/{name} \(.*{reason}.*\)\n.*\nor download .* and save it as {path} "
    with pytest.raises(HashbenchError, match=message + rf"\(MD5 {md5}\)"):
        fetch(f"{server}/{name}", path, md5)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_server_that_falls_silent_keeps_the_part(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(download, "CHUNK", 1_000)
    path = tmp_path / "file.gz"

    def half(self: Handler) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:5_000])
        time.sleep(1)

    with monkeypatch.context() as patch:
        patch.setattr(Handler, "do_GET", half)
        with pytest.raises(HashbenchError, match="timed out"):
            fetch(f"{server}/file", path, MD5)
    assert (tmp_path / ".file.gz.part").read_bytes() == CONTENT[:5_000]
    fetch(f"{server}/file", path, MD5)
    assert path.read_bytes() == CONTENT


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        HashbenchError, match=rf"download it manually and save it as {tmp_path}/file\.gz \(MD5 {MD5}\)"
    ):
        fetch("http://127.0.0.1:9/file.gz", tmp_path / "file.gz", MD5)
    assert not list(tmp_path.iterdir())


def zip_of(archive: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return archive


def tar_of(archive: Path, files: dict[str, str]) -> Path:
    with tarfile.open(archive, "w:gz") as file:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            file.addfile(member, io.BytesIO(text.encode()))
    return archive


Make = Callable[[Path, dict[str, str]], Path]
both = pytest.mark.parametrize("make", [zip_of, tar_of])


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }


@both
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"data/a.txt": "a", "data/sub/b.txt": "b"}, {"a.txt": "a", "sub/b.txt": "b"}),  # the folder itself
        ({"a.txt": "a", "sub/b.txt": "b"}, {"a.txt": "a", "sub/b.txt": "b"}),
        ({"other/a.txt": "a"}, {"other/a.txt": "a"}),
        ({"data/a.txt": "a", "b.txt": "b"}, {"data/a.txt": "a", "b.txt": "b"}),
        ({"data": "a"}, {"data": "a"}),
    ],
)
def test_an_archive_is_unpacked(
    tmp_path: Path, make: Make, files: dict[str, str], expected: dict[str, str]
) -> None:
    archive = make(tmp_path / "archive", files)  # by its content, whatever its name
    unpack(archive, tmp_path / "new/data")
    assert tree(tmp_path / "new/data") == expected
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data"]


@both
@pytest.mark.parametrize("evil", ["../evil.txt", "x/../../../evil.txt", "/tmp/x/../../../{}/evil.txt"])
def test_nothing_is_written_outside(tmp_path: Path, make: Make, evil: str) -> None:
    (tmp_path / "root").mkdir()
    archive = make(tmp_path / "archive", {"good.txt": "good", evil.format(tmp_path): "evil"})
    try:
        unpack(archive, tmp_path / "root/data")
    except HashbenchError as error:
        assert "cannot be unpacked" in str(error)  # noqa: PT017 - one kind refuses, the other takes `..` out
        assert not list((tmp_path / "root").iterdir())
    outside = [path for path in tmp_path.rglob("evil.txt") if tmp_path / "root/data" not in path.parents]
    assert not outside


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["../../outside", "{}/outside"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    (tmp_path / "outside").mkdir()
    with tarfile.open(tmp_path / "archive", "w") as file:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = kind, target.format(tmp_path)
        file.addfile(link)
        member = tarfile.TarInfo("link/evil.txt")
        member.size = 4
        file.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(HashbenchError, match="archive cannot be unpacked"):
        unpack(tmp_path / "archive", tmp_path / "root/data")
    assert not list((tmp_path / "outside").iterdir())
    assert not list((tmp_path / "root").iterdir())


def damaged(archive: Path, at: int) -> None:
    content = bytearray(archive.read_bytes())
    content[at : at + 8] = bytes(byte ^ 0xFF for byte in content[at : at + 8])
    archive.write_bytes(content)


@both
@pytest.mark.parametrize("how", ["cut", "damaged", "none of these", "absent"])
def test_what_cannot_be_unpacked_leaves_nothing(tmp_path: Path, make: Make, how: str) -> None:
    # Text that does not compress to nothing, so that its middle is in the middle of the archive.
    text = "".join(hashlib.md5(bytes([byte])).hexdigest() for byte in range(200))
    archive = make(tmp_path / "archive", {"a.txt": "a", "b.txt": text})
    size = archive.stat().st_size
    if how == "cut":
        archive.write_bytes(archive.read_bytes()[: size // 2])
    elif how == "damaged":
        damaged(archive, size // 2)
    elif how == "none of these":
        archive.write_bytes(b"<html>gone</html>")
    else:
        archive.unlink()
    message = rf"{re.escape(str(archive))} cannot be unpacked \(.+\); if it is damaged, delete it and get it"
    with pytest.raises(HashbenchError, match=message):
        unpack(archive, tmp_path / "root/data")
    assert not list((tmp_path / "root").iterdir())


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "archive", {"a.txt": "new"})
    (tmp_path / "root/data").mkdir(parents=True)
    (tmp_path / "root/data/a.txt").write_text("old")
    with pytest.raises(HashbenchError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "root/data")
    assert tree(tmp_path / "root") == {"data/a.txt": "old"}


def test_an_archive_is_obtained_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zip_of(tmp_path / "made.zip", {"batches/1": "one"}).read_bytes()
    monkeypatch.setitem(globals(), "CONTENT", content)  # which the server sends
    md5 = hashlib.md5(content).hexdigest()
    archive = Archive(f"{server}/file", md5, "cifar/batches.zip", "cifar/batches")
    root = tmp_path / "root"
    assert archive.ensure(root) == root / "cifar/batches"
    assert tree(root / "cifar/batches") == {"1": "one"}
    assert archive.ensure(root) == root / "cifar/batches"
    assert len(Handler.asked) == 1


def test_an_archive_that_is_there_is_not_fetched(tmp_path: Path) -> None:
    absent = "http://127.0.0.1:9/data.zip"
    file = zip_of(tmp_path / "data.zip", {"a.txt": "a"})
    with pytest.raises(
        HashbenchError, match=rf"data\.zip: expected the MD5 {MD5} of .*, got \w+; delete the file"
    ):
        Archive(absent, MD5, "data.zip", "data").ensure(tmp_path)
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    assert Archive(absent, md5, "data.zip", "data").ensure(tmp_path) == tmp_path / "data"
    assert tree(tmp_path / "data") == {"a.txt": "a"}
    assert Archive(absent, md5, "data.zip").ensure(tmp_path) == file
    with pytest.raises(HashbenchError, match=f"cannot download {absent}"):
        Archive(absent, MD5, "other.zip", "other").ensure(tmp_path)
