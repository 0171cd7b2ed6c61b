"""Codes and labels in an .npz file: those of a run, or of any other program."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.errors import HashbenchError, UsageError

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")


def load_codes(
    path: Path,
) -> tuple[BinaryCodes | NDArray[Any], BinaryCodes | NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Read the arguments of `evaluate` from a file.

    Args:
        path: An .npz with `query_codes`, `database_codes` [n, bits], `query_labels` and `database_labels`.
            If the codes are of type uint64 and there is a number `bits`, they are packed as in `BinaryCodes`.

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
            arrays = {name: file[name] for name in (*NAMES, "bits") if name in file}
    except ValueError as error:  # an array of objects
        raise UsageError(f"{path}: {error}; save plain arrays of numbers with numpy.savez") from None
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise HashbenchError(f"{path} cannot be read: {error}") from None
    lacking = [name for name in NAMES if name not in arrays]
    if lacking:
        raise UsageError(f"{path} lacks {', '.join(lacking)}; save them with numpy.savez")
    codes = [arrays[name] for name in NAMES[:2]]
    if "bits" in arrays and all(array.dtype == np.uint64 for array in codes):
        codes = [BinaryCodes(packed, int(arrays["bits"])) for packed in codes]
    return codes[0], codes[1], arrays["query_labels"], arrays["database_labels"]
