"""Damaged IDX files, plain and gzipped."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz.mutation import mutations

from hashbench.data.idx import parse_idx, read_idx
from hashbench.errors import HashbenchError

VALUES = np.random.RandomState(0).bytes(6 * 5 * 4)
FILES = [
    struct.pack(">IIII", 0x803, 6, 5, 4) + VALUES,
    struct.pack(">II", 0x801, 120) + VALUES,
    struct.pack(">III", 0x802, 0, 7),
]


def test_damaged_files_are_a_value_error(tries: Callable[[int, int], int]) -> None:
    for content in mutations(FILES, tries(3000, 20_000)):
        try:
            array = parse_idx(content)
        except ValueError:
            continue
        assert array.nbytes == len(content) - 4 - 4 * array.ndim
        assert struct.pack(f">{array.ndim}I", *array.shape) == content[4 : 4 + 4 * array.ndim]


def test_damaged_gzipped_files_are_named(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    path, md5 = tmp_path / "a.gz", hashlib.md5(FILES[0], usedforsecurity=False).hexdigest()
    for content in mutations([gzip.compress(FILES[0])], tries(500, 12_000)):
        path.write_bytes(content)
        try:
            assert read_idx(path, md5).tobytes() == VALUES
        except HashbenchError as error:
            message = str(error)
            assert message.startswith(f"{path} is damaged or belongs to another dataset (")
            assert message.isprintable()
            assert len(message) < 500


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashbench.data.idx.MAX_BYTES", 1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(FILES[0] + bytes(1 << 24)))
    read, lengths = gzip.GzipFile.read, list[int]()

    def counted(file: gzip.GzipFile, size: int | None = -1) -> bytes:
        lengths.append(len(content := read(file, size)))
        return content

    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    with pytest.raises(HashbenchError, match="another MD5"):
        read_idx(tmp_path / "a.gz", "0" * 32)
    assert lengths == [1000]
