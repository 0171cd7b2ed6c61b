"""Reader of the arrays in .mat files of version 5, which MATLAB writes by `save -v6` and `-v7`, and SciPy.

`scipy.io.loadmat` reads memory outside of its own if a file is damaged, so it is not used here. The format is
described in "MAT-File Format" by The MathWorks.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from hashbench.errors import UsageError
from hashbench.runtime.array_files import check_unpacked, unpacked_limit

_ORDERS = {b"IM": "<", b"MI": ">"}
_HEADER = 128  # bytes before the first element
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASS, _COMPLEX = 0xFF, 1 << 11  # bits of the flags
_SPARSE = 5
_CLASSES = {
    _SPARSE: "f8",
    **{6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"},
}
_NAME_WITHIN = 1024  # bytes of a matrix, in which its flags, shape and name end

_Element = tuple[int, memoryview]  # type and content


class _Variable(NamedTuple):
    kind: int  # class, and the flag of complex numbers
    shape: list[int]
    element: _Element


def read_mat(path: Path, choose: Callable[[Sequence[str]], Mapping[str, str]]) -> dict[str, Any]:
    """Read arrays of a file.

    Args:
        path: The file.
        choose: Maps the names of all variables to those to read: new name -> name in the file.

    Returns:
        Arrays and sparse matrices by their new names.

    Raises:
        UsageError: A variable to read is not an array of real numbers.
        Exception: The file is damaged, or unpacks to more than `unpacked_limit`.
    """
    content = memoryview(path.read_bytes())
    order = _ORDERS.get(bytes(content[_HEADER - 2 : _HEADER]))
    if order is None:
        raise ValueError("it is not of MATLAB 5 or later")
    variables: dict[str, _Variable] = {}
    for element in _elements(content[_HEADER:], order):
        parts = _elements(_matrix(element, order, _NAME_WITHIN), order)
        (_, flags), (_, shape), (_, name) = islice(parts, 3)
        kind = struct.unpack_from(f"{order}I", flags)[0] & (_CLASS | _COMPLEX)
        # The objects of MATLAB have other parts, but no class that is read.
        dimensions = np.frombuffer(shape, f"{order}i4").tolist() if kind in _CLASSES else []
        variables[bytes(name).decode("latin-1")] = _Variable(kind, dimensions, element)
    chosen = {new: (key, variables[key]) for new, key in choose([*variables]).items()}
    for key, variable in chosen.values():
        if variable.kind not in _CLASSES:
            raise UsageError(
                f"{path}: {key}: expected an array of real numbers, got another type of variable"
            )
    check_unpacked(sum(8 * math.prod(variable.shape) for _, variable in chosen.values()), path)
    return {new: _array(variable, order, unpacked_limit(path)) for new, (_, variable) in chosen.items()}


def _array(variable: _Variable, order: str, limit: int) -> Any:
    parts = islice(_elements(_matrix(variable.element, order, limit), order), 3, None)
    values = [np.frombuffer(part, order + _TYPES[kind]) for kind, part in parts]
    if variable.kind != _SPARSE:
        if len(values) != 1 or min(variable.shape) < 0:
            raise ValueError("an array is damaged")
        return values[0].astype(_CLASSES[variable.kind]).reshape(variable.shape, order="F")
    rows, ends, entries = values
    matrix = scipy.sparse.csc_array((entries, rows, ends), variable.shape)
    matrix.check_format()
    return matrix


def _matrix(element: _Element, order: str, limit: int) -> memoryview:
    """Return the content of a matrix; of a compressed one at most its first `limit` bytes."""
    kind, content = element
    if kind == _COMPRESSED:
        content = memoryview(zlib.decompressobj().decompress(content, limit))
        kind, content = struct.unpack_from(f"{order}I", content)[0], content[8:]
    if kind != _MATRIX:
        raise ValueError(f"it contains an element of the type {kind}")
    return content


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements, each after a tag of its type and size, which may be packed into four bytes."""
    start = 0
    while start < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, start)
        begin, end = start + 8, start + 8 + size
        if kind >> 16:
            kind, begin, end = kind & 0xFFFF, start + 4, start + 4 + (kind >> 16)
        if end > len(content):
            raise ValueError("it is cut off, or damaged")
        yield kind, content[begin:end]
        start = end if kind == _COMPRESSED else end + (start - end) % 8
