"""Reading of codes and labels from .npz files, written by a run or by any other program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import WORD, BinaryCodes, Codes, ProductCodes
from hashbench.errors import UsageError
from hashbench.runtime.arguments import as_path
from hashbench.runtime.array_files import read_npz

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")

_PACKED = {"uint8": 8, "uint64": WORD}  # types of packed codes, with their sizes in bits


def load_codes(
    path: Path | str,
) -> tuple[Codes | NDArray[Any], Codes | NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Read the arguments of `evaluate` from a file.

    Args:
        path: An .npz file with `query_codes`, `database_codes` [n, bits], `query_labels` and
            `database_labels`. If it contains a number `bits`, the codes have that length and may be packed
            as uint64 or uint8; see `is_packed`. If it contains `codebooks`, float32 [books, words, dim],
            `database_codes` are indices of codewords, uint8 or uint16 [n, books], as in `ProductCodes`, and
            `query_codes` are such indices or real values [queries, books · dim].

    Returns:
        The four arrays in this order.

    Raises:
        HashbenchError: The file cannot be read; see `read_npz`.
        UsageError: An array is missing, or the file contains pickled objects or codes of another length.
    """
    path = as_path(path, "path")
    arrays = _read(path, NAMES)
    query, database = (_codes(path, name, arrays) for name in NAMES[:2])
    return query, database, arrays["query_labels"], arrays["database_labels"]


def load_queries(path: Path | str) -> tuple[BinaryCodes | NDArray[Any], NDArray[Any]]:
    """Read only the binary codes and the labels of the queries.

    Args:
        path: An .npz file with `query_codes` and `query_labels`; see `load_codes`.

    Raises:
        HashbenchError: The file cannot be read.
        UsageError: An array is missing, or the file contains pickled objects, product codes, or codes of
            another length.
    """
    path = as_path(path, "path")
    arrays = _read(path, NAMES[::2])
    if "codebooks" in arrays:
        raise UsageError(f"{path} contains product codes; a database in shards needs binary codes")
    return _binary_codes(path, "query_codes", arrays), arrays["query_labels"]


def is_packed(dtype: np.dtype[Any], shape: Sequence[int], bits: int) -> bool:
    """Return True if an array contains packed codes, False if it contains one value per bit.

    Packed codes are uint8 [n, ceil(bits / 8)] or uint64 [n, ceil(bits / 64)]. Bit i of a code is bit i % 8 of
    byte i // 8, as in faiss, `BinaryCodes` and `numpy.packbits(bits, axis=1, bitorder="little")`.

    Args:
        dtype: Type of the array.
        shape: Shape of the array.
        bits: Length of a code, in bits.

    Raises:
        UsageError: The array contains codes of another length, or no codes.
    """
    if len(shape) == 2 and shape[1] == bits:
        return False  # single-bit codes are the same in both forms
    if len(shape) == 2 and dtype.name in _PACKED and shape[1] == -(-bits // _PACKED[dtype.name]):
        return True
    packed = " or ".join(f"{name} [n, {-(-bits // size)}]" for name, size in _PACKED.items())
    raise UsageError(f"expected codes [n, {bits}], or packed {packed}, got {dtype} {list(shape)}")


def from_packed(codes: NDArray[Any], bits: int) -> BinaryCodes:
    """Return the codes of an array for which `is_packed` is True.

    Raises:
        UsageError: A bit beyond the length of the codes is set.
    """
    if codes.dtype == np.uint8:
        octets = np.zeros((len(codes), -(-bits // WORD) * WORD // 8), np.uint8)
        octets[:, : codes.shape[1]] = codes
        codes = octets.view(np.uint64)
    return BinaryCodes(codes, bits)


def _read(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read the named arrays, and `bits` and `codebooks` if the file contains them."""
    arrays = read_npz(path, names, ("bits", "codebooks"))
    bits = arrays.get("bits", np.array(1))
    if bits.shape or bits.dtype.kind not in "iu" or bits < 1:
        found = f"{bits.dtype} {list(bits.shape)}" if bits.shape else bits
        raise UsageError(f"{path}: bits: expected a whole number, 1 or more, got {found}")
    return arrays


def _codes(path: Path, name: str, arrays: dict[str, NDArray[Any]]) -> Codes | NDArray[Any]:
    if "codebooks" not in arrays:
        return _binary_codes(path, name, arrays)
    codes = arrays[name]
    if codes.dtype.kind not in "iu":
        return codes
    try:
        product = ProductCodes(codes, arrays["codebooks"])
    except UsageError as error:
        raise UsageError(f"{path}: {name}: {error}") from None
    if "bits" in arrays and arrays["bits"] != product.bits:
        raise UsageError(
            f"{path}: {name}: expected codes of bits = {arrays['bits']}, got product codes of {product.bits}"
        )
    return product


def _binary_codes(path: Path, name: str, arrays: dict[str, NDArray[Any]]) -> BinaryCodes | NDArray[Any]:
    codes = arrays[name]
    if "bits" not in arrays:
        return codes
    bits = int(arrays["bits"])
    try:
        return from_packed(codes, bits) if is_packed(codes.dtype, codes.shape, bits) else codes
    except UsageError as error:
        raise UsageError(f"{path}: {name}: {error}") from None
