"""Headers of damaged or malicious .npz files are checked before their arrays are read."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime import array_files
from hashbench.runtime.array_files import read_npz


def npy(array: Any, shape: str | None = None) -> bytes:
    """Return an array in the format of `numpy.save`, with a false shape in its header if one is given."""
    stream = io.BytesIO()
    np.save(stream, array)
    content = stream.getvalue()
    if shape is None:
        return content
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return content[:8] + struct.pack("<H", len(header)) + header + content[128:]


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "ids": np.array(["x", "é"]),
        "bits": np.int64(3),
        "none": np.zeros((0, 4)),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = read_npz(tmp_path / "x.npz", [*arrays])
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == np.asarray(array).dtype


@pytest.mark.parametrize(
    "shape", ["(10**15,)", "(1000000000000000,)", f"({10**22},)", "(-1, -6)", "(7,)", "(6, 0)"]
)
def test_a_shape_that_the_file_cannot_hold(tmp_path: Path, shape: str) -> None:
    path = write(tmp_path / "x.npz", {"a.npy": npy(np.arange(6), shape)})
    with pytest.raises(HashbenchError, match=r"x\.npz cannot be read: "):
        read_npz(path, ["a"])


@pytest.mark.parametrize("array", [np.array([{}] * 3), np.zeros(2, "i4,f8")])
def test_objects_and_records_are_wrong_use(tmp_path: Path, array: Any) -> None:
    path = write(tmp_path / "x.npz", {"a.npy": npy(array)})
    with pytest.raises(
        UsageError, match=r"x\.npz: a\.npy contains Python objects or records; save plain arrays"
    ):
        read_npz(path, ["a"])


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npz", {"a": b"text", "b.npy": b"text", "c.npy": npy([1]), "../d.npy": b""})
    assert read_npz(path, ["c"]) == {"c": [1]}
    with pytest.raises(UsageError, match=r"x\.npz lacks a; save them with numpy\.savez"):
        read_npz(path, ["a", "c"])
    with pytest.raises(HashbenchError, match=r"x\.npz cannot be read: "):
        read_npz(path, ["b"])


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_other_compression(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "x.npz"
    if compression == 99:
        content = write(path, {"a.npy": npy([1])}).read_bytes()
        central = content.index(b"PK\x01\x02")
        method = struct.pack("<H", 99)
        path.write_bytes(content[:8] + method + content[10 : central + 10] + method + content[central + 12 :])
    else:
        write(path, {"a.npy": npy([1])}, compression)
    with pytest.raises(HashbenchError, match=r"x\.npz cannot be read: a\.npy has a compression"):
        read_npz(path, ["a"])


def flipped_bit(content: bytes) -> bytes:
    return content[:180] + bytes([content[180] ^ 1]) + content[181:]


def encrypted(content: bytes) -> bytes:
    central = content.index(b"PK\x01\x02")
    return content[:6] + b"\x01" + content[7 : central + 8] + b"\x01" + content[central + 9 :]


@pytest.mark.parametrize("damage", [flipped_bit, encrypted, lambda content: content[:40] + content[60:]])
def test_damage(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "x.npz", {"a.npy": npy(np.arange(60))})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(HashbenchError, match=r"x\.npz cannot be read: "):
        read_npz(path, ["a"])


def test_a_small_file_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {name: npy(np.zeros(1 << 17)) for name in ("a.npy", "b.npy", "c.npy")}  # 1 MiB each
    path = write(tmp_path / "x.npz", members, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(array_files, "MAX_UNPACKED", 5 << 19)
    assert len(read_npz(path, ["a", "b"])) == 2
    with pytest.raises(
        HashbenchError, match=r"its arrays take 3,146,112 bytes, which is more than 2,621,440 and more"
    ):
        read_npz(path, ["a", "b", "c"])
    write(path, members)  # of its own size, it is not from nothing
    assert len(read_npz(path, ["a", "b", "c"])) == 3


def test_a_number_that_is_no_character(tmp_path: Path) -> None:
    for point in (0x110000, 0xD800):
        ids = np.array([65, point], np.uint32).view("U1")
        path = write(tmp_path / "x.npz", {"ids.npy": npy(ids)})
        with pytest.raises(HashbenchError, match="contains a number that is not a character"):
            read_npz(path, ["ids"])
