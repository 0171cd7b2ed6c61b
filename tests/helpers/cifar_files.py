"""Batches of CIFAR-10 with 10 images each, as pickled by Python 2."""

from __future__ import annotations

from typing import Any

import numpy as np

PER_BATCH = 10


class Global:
    """A global that a pickle refers to by its module and name."""

    def __init__(self, module: str, name: str) -> None:
        self.bytes = f"c{module}\n{name}\n".encode()


def python2_pickle(value: Any) -> bytes:
    """Pickle a value like Python 2 with protocol 2, where strings are bytes; arrays must be uint8."""
    return b"\x80\x02" + python2_item(value) + b"."


def python2_item(value: Any) -> bytes:
    if isinstance(value, Global):
        return value.bytes
    if isinstance(value, bytes):
        return b"T" + len(value).to_bytes(4, "little") + value
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin1")
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if value is None:
        return b"N"
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2_item, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2_item, value)) + b"t"
    if isinstance(value, dict):
        pairs = (python2_item(part) for pair in value.items() for part in pair)
        return b"}(" + b"".join(pairs) + b"u"
    array = python2_call(
        Global("numpy.core.multiarray", "_reconstruct"), Global("numpy", "ndarray"), (0,), "b"
    )
    dtype = python2_call(Global("numpy", "dtype"), "u1", 0, 1)
    dtype += python2_item((3, "|", None, None, None, -1, -1, 0)) + b"b"
    state = b"(" + python2_item(1) + python2_item(value.shape) + dtype
    return array + state + python2_item(False) + python2_item(value.tobytes()) + b"tb"


def python2_call(function: Global, *arguments: Any) -> bytes:
    return function.bytes + python2_item(arguments) + b"R"


def pixel(image: int, channel: int, row: int, column: int) -> int:
    """Return the value of a pixel in the small dataset."""
    return (image * 7 + channel * 85 + row * 3 + column) % 256


def batch(number: int) -> dict[str, Any]:
    """Return a batch of the small dataset, with the classes 0 to 9 shifted by its number."""
    image, channel, row, column = np.indices((PER_BATCH, 3, 32, 32))
    data = pixel(image + number * PER_BATCH, channel, row, column).astype(np.uint8)
    return {
        "batch_label": f"batch {number}",
        "labels": [(i + number) % 10 for i in range(PER_BATCH)],
        "data": data.reshape(PER_BATCH, 3072),
        "filenames": [f"picture_{i}.png" for i in range(PER_BATCH)],
    }
