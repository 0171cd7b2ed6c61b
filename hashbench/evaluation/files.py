"""Codes and labels in an .npz file: those of a run, or of any other program."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.errors import HashbenchError, UsageError

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")


def load_codes(
    path: Path,
) -> tuple[Codes | NDArray[Any], Codes | NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Read the arguments of `evaluate` from a file.

    Args:
        path: An .npz with `query_codes`, `database_codes` [n, bits], `query_labels` and `database_labels`.
            If the codes are of type uint64 and there is a number `bits`, they are packed as in `BinaryCodes`.
            If there are `codebooks`, float32 [books, words, dim], then `database_codes` are numbers of
            codewords, uint8 or uint16 [n, books], as in `ProductCodes`, and `query_codes` too or real values
            [queries, books · dim].

    Returns:
        The four, in this order.

    Raises:
        HashbenchError: The file cannot be read.
        UsageError: It lacks an array, or holds pickled objects.
    """
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise HashbenchError(f"{path} is not an .npz file; write one with numpy.savez")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*NAMES, "bits", "codebooks") if name in file}
    except ValueError as error:  # an array of objects
        raise UsageError(f"{path}: {error}; save plain arrays of numbers with numpy.savez") from None
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise HashbenchError(f"{path} cannot be read: {error}") from None
    lacking = [name for name in NAMES if name not in arrays]
    if lacking:
        raise UsageError(f"{path} lacks {', '.join(lacking)}; save them with numpy.savez")
    bits = arrays.get("bits", np.array(0))
    if bits.shape or bits.dtype.kind not in "iu":
        raise UsageError(f"{path}: bits: expected a whole number, found {bits.dtype} {list(bits.shape)}")
    query, database = (_codes(arrays[name], arrays) for name in NAMES[:2])
    return query, database, arrays["query_labels"], arrays["database_labels"]


def _codes(codes: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> Codes | NDArray[Any]:
    if "codebooks" in arrays and codes.dtype.kind in "iu":
        return ProductCodes(codes, arrays["codebooks"])
    if "bits" in arrays and codes.dtype == np.uint64:
        return BinaryCodes(codes, int(arrays["bits"]))
    return codes
