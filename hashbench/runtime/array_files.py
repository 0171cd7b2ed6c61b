"""Arrays in files from outside, .npz and .npy: what a header declares is checked before an array is read."""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hashbench.errors import HashbenchError, UsageError, quoted, reason

MAX_UNPACKED = 1 << 30
"""Bytes that may come out of a compressed file of any size."""
MAX_RATIO = 100
"""Bytes that may come out of a larger compressed file, for each of its own."""

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as numpy.savez and savez_compressed write


def unpacked_limit(path: Path) -> int:
    """Return how many bytes may come out of a compressed file; one that holds more is taken for a bomb."""
    return max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size)


def read_npz(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays of an .npz file by name; members of other names are not looked at.

    Args:
        path: The file.
        names: Names of the arrays.
        optional: Names of arrays that may be missing.

    Raises:
        HashbenchError: The file cannot be read, is damaged, or is larger than `unpacked_limit` when unpacked.
        UsageError: An array is missing, or is not of plain numbers or texts.
    """
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise HashbenchError(f"{path} is not an .npz file; write one with numpy.savez")
            with zipfile.ZipFile(stream) as file:
                members = {member.filename: member for member in file.infolist()}
                present = [name for name in (*names, *optional) if f"{name}.npy" in members]
                if lacking := [name for name in names if name not in present]:
                    raise UsageError(f"{path} lacks {', '.join(lacking)}; save them with numpy.savez")
                limit = unpacked_limit(path)
                if (total := sum(members[f"{name}.npy"].file_size for name in present)) > limit:
                    raise ValueError(
                        f"its arrays take {total:,} bytes, more than {MAX_UNPACKED:,} and more than "
                        f"{MAX_RATIO} times the file's size"
                    )
                return {name: _read_member(file, members[f"{name}.npy"]) for name in present}
    except HashbenchError:
        raise
    except Exception as error:  # zipfile and numpy raise a dozen types for damaged files
        raise HashbenchError(f"{path} cannot be read: {reason(error)}") from error


def _read_member(file: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.compress_type not in _COMPRESSIONS:  # the others have no bound on what comes out at once
        raise ValueError(f"{member.filename} is compressed otherwise than numpy.savez_compressed does")
    with file.open(member) as stream:
        check_header(stream, member.file_size, f"{file.filename}: {member.filename}")
        stream.seek(0)
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    if array.dtype.kind == "U":
        points = np.frombuffer(array.tobytes(), array.dtype.str[0] + "u4")
        if ((points > sys.maxunicode) | (points >> 11 == 0xD800 >> 11)).any():
            raise ValueError(f"{member.filename} holds a number that is no character")
    return array


def check_header(stream: IO[bytes], size: int, name: str) -> None:
    """Check that the header of an .npy file declares an array that fills the file.

    Args:
        stream: The file, at its start.
        size: Its size in bytes.
        name: What errors call it.

    Raises:
        UsageError: The array is not of plain numbers or texts.
        Exception: The header is damaged, or declares another size; of any type, as numpy raises them.
    """
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format is not for plain numbers")
    shape, _, dtype = _HEADERS[version](stream)
    items = math.prod(map(int, shape))
    if dtype.hasobject or dtype.names:
        raise UsageError(
            f"{name} holds Python objects or records; save plain arrays of numbers with numpy.savez"
        )
    if min(shape, default=0) < 0 or stream.tell() + items * dtype.itemsize != size:
        raise ValueError(
            f"its header declares {dtype} {quoted([*shape])}, which is not what {size:,} bytes hold"
        )
    if dtype.itemsize == 0 and items:
        raise ValueError("its values have no size")
