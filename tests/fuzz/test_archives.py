"""Damaged archives of runs and datasets are unpacked or refused with one line."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.mutation import mutations
from fuzz.outcomes import refused
from helpers.fake_runs import make_run

from hashbench.data.download import unpack
from hashbench.experiment.verify import verify_all
from hashbench.results.archive import export_runs, import_runs
from hashbench.results.query import RunFilter, find

FILES = {"x/a.txt": b"a" * 700, "x/deep/" + "n" * 120 + ".txt": b"b", "x/é.txt": b""}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    run = make_run(tmp_path / "runs")
    for name in ("codes.npz", "log.jsonl"):  # most of its bytes
        (run.folder / name).unlink()
    export_runs([run], tmp_path / "a.tar.gz")
    return tmp_path / "a.tar.gz"


def test_archives_of_runs(exported: Path, tries: Callable[[int, int], int]) -> None:
    """The damage precedes the compression, so gzip does not detect it."""
    root = exported.parent
    content = gzip.decompress(exported.read_bytes())
    count = tries(80, 10_000)
    found = 0
    for place in (0, 512):  # headers are a small part of an archive
        head, rest = content[place : place + 512], content[place + 512 :]
        for damaged in mutations([head], count // 4, seed=place):
            found += imported(exported, content[:place] + resummed(damaged) + rest)
    for damaged in mutations([content], count // 2):
        found += imported(exported, damaged)
    for damaged in mutations([gzip.compress(content)], tries(20, 1000)):
        found += imported(exported, damaged, packed=True)
    assert found
    assert {path.name for path in root.iterdir()} <= {"runs", "a.tar.gz", "new"}


def resummed(header: bytes) -> bytes:
    """Return a header of a tar file with the right checksum."""
    head = bytearray(header[:512].ljust(512, b"\0"))
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + header[512:]


def imported(archive: Path, content: bytes, packed: bool = False) -> bool:
    archive.write_bytes(content if packed else gzip.compress(content, 1))
    results = archive.parent / "new"
    failed = refused(import_runs, archive, results, verify_all)
    assert [path for path in results.rglob("*") if path.is_symlink()] == []
    left = [path.name for path in results.iterdir()]
    if failed:
        assert left == []
    else:
        assert len(find(results, RunFilter())[0]) == 1
    shutil.rmtree(results)
    return failed


def archives() -> list[bytes]:
    contents = []
    for mode in ("w:gz", "w:xz", "w:bz2", "w"):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode=mode) as tar:
            for name, content in FILES.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        contents.append(stream.getvalue())
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression) as file:
            for name, content in FILES.items():
                file.writestr(name, content)
        contents.append(stream.getvalue())
    return contents


def test_archives_of_datasets(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    archive, folder = tmp_path / "x.zip", tmp_path / "data" / "x"
    folder.parent.mkdir()
    found = 0
    for content in mutations(archives(), tries(200, 10_000)):
        archive.write_bytes(content)
        found += refused(unpack, archive, folder)
        assert {path.name for path in folder.parent.iterdir()} <= {"x"}
        assert {path.name for path in tmp_path.iterdir()} == {"x.zip", "data"}
        shutil.rmtree(folder, ignore_errors=True)
    assert found
