"""Safe reading of .npz and .npy files from other people: headers are checked before arrays are read."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hashbench.errors import HashbenchError, UsageError, quoted, reason

MAX_UNPACKED = 1 << 30
"""Size in bytes that any compressed file may unpack to."""
MAX_RATIO = 100
"""Ratio of the unpacked size to the compressed size that larger files may have."""

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those of numpy.savez and numpy.savez_compressed


def unpacked_limit(path: Path) -> int:
    """Return the size in bytes to which a compressed file may unpack; a larger file may be a zip bomb."""
    return max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size)


def check_unpacked(size: int, path: Path) -> None:
    """Raise ValueError if the arrays to read from a file take more bytes than `unpacked_limit`."""
    if size > unpacked_limit(path):
        raise ValueError(
            f"its arrays take {size:,} bytes, which is more than {MAX_UNPACKED:,} and more than "
            f"{MAX_RATIO} times the size of the file"
        )


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file by name; other arrays are ignored.

    Args:
        path: The file.
        names: Names of the arrays.

    Raises:
        HashbenchError: The file cannot be read, is damaged, or unpacks to more than `unpacked_limit`.
        UsageError: An array is absent, or does not contain plain numbers or texts.
    """

    def choose(present: Sequence[str]) -> dict[str, str]:
        if missing := [name for name in names if name not in present]:
            raise UsageError(f"{path} lacks {', '.join(missing)}; save them with numpy.savez")
        return {name: name for name in names}

    return choose_from_npz(path, choose)


def choose_from_npz(
    path: Path, choose: Callable[[Sequence[str]], Mapping[str, str]]
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file that a function chooses.

    Args:
        path: The file.
        choose: Maps the names of all arrays in the file to those to read: new name -> name in the file.

    Raises:
        HashbenchError: See `read_npz`.
        UsageError: An array does not contain plain numbers or texts.
    """
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise HashbenchError(f"{path} is not an .npz file; write one with numpy.savez")
            with zipfile.ZipFile(stream) as file:
                members = {member.filename: member for member in file.infolist()}
                chosen = choose([name.removesuffix(".npy") for name in members if name.endswith(".npy")])
                wanted = {name: members[f"{key}.npy"] for name, key in chosen.items()}
                check_unpacked(sum(member.file_size for member in wanted.values()), path)
                return {name: _read_member(file, member) for name, member in wanted.items()}
    except HashbenchError:
        raise
    except Exception as error:  # zipfile and numpy raise many types for damaged files
        raise HashbenchError(f"{path} cannot be read: {reason(error)}") from error


def _read_member(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type not in _COMPRESSIONS:  # others have no bound on the memory they need
        raise ValueError(f"{member.filename} has a compression that numpy.savez_compressed does not use")
    with file.open(member) as stream:
        check_header(stream, member.file_size, f"{file.filename}: {member.filename}")
        stream.seek(0)
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    if array.dtype.kind == "U":
        points = np.frombuffer(array.tobytes(), array.dtype.str[0] + "u4")
        if ((points > sys.maxunicode) | (points >> 11 == 0xD800 >> 11)).any():
            raise ValueError(f"{member.filename} contains a number that is not a character")
    return array


def check_header(stream: IO[bytes], size: int, name: str) -> None:
    """Check that the header of an .npy file declares an array of the size of the file.

    Args:
        stream: The file, at its beginning.
        size: Its size in bytes.
        name: Its name in error messages.

    Raises:
        UsageError: The array does not contain plain numbers or texts.
        Exception: The header is damaged or declares another size; numpy raises many types.
    """
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"expected version 1.0 or 2.0 of the .npy format, got {version}")
    shape, _, dtype = _HEADERS[version](stream)
    items = math.prod(map(int, shape))
    if dtype.hasobject or dtype.names:
        raise UsageError(
            f"{name} contains Python objects or records; save plain arrays of numbers with numpy.savez"
        )
    if min(shape, default=0) < 0 or stream.tell() + items * dtype.itemsize != size:
        raise ValueError(f"its header declares {dtype} {quoted([*shape])}, which does not fit {size:,} bytes")
    if dtype.itemsize == 0 and items:
        raise ValueError("its values have a size of 0 bytes")
