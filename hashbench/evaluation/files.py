"""Reading of codes and labels from files, written by a run or by any other program."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import WORD, BinaryCodes, Codes, ProductCodes, as_array
from hashbench.errors import LONGEST, SHOWN, UsageError, unknown_name
from hashbench.evaluation.formats import UNNAMED, read_file
from hashbench.runtime.arguments import as_path

NAMES = ("query_codes", "database_codes", "query_labels", "database_labels")

_OPTIONAL = ("bits", "codebooks", "distance")

# Keys of the same arrays in the files of published scripts.
_KEYS: dict[str, tuple[str, ...]] = {
    "query_codes": ("qB", "val_B", "tB", "query_image", "tst_binary"),
    "database_codes": ("rB", "retrieval_B", "B", "retrieval_image", "trn_binary"),
    "query_labels": ("query_L", "qL", "L_te", "query_label", "tst_label"),
    "database_labels": ("retrieval_L", "rL", "L_db", "retrieval_label", "trn_label"),
}
# Endings of the four files that scripts based on DeepHash-pytorch write.
_ENDINGS = dict(
    zip(NAMES, ("-tst_binary.npy", "-trn_binary.npy", "-tst_label.npy", "-trn_label.npy"), strict=True)
)

_PACKED = {"uint8": 8, "uint64": WORD}  # types of packed codes, with their sizes in bits


def load_arguments(
    path: Path | str | None,
    names: Sequence[str] = NAMES,
    keys: Mapping[str, str] | None = None,
    files: Mapping[str, Path] | None = None,
) -> dict[str, Any]:
    """Read arguments of `evaluate` by name.

    If the files contain a number `bits`, the codes have that length and may be packed as uint64 or uint8; see
    `is_packed`. If they contain `codebooks`, float32 [books, words, dim], `database_codes` are indices of
    codewords, uint8 or uint16 [n, books], as in `ProductCodes`, and `query_codes` are such indices or real
    values [queries, books · dim]; a text `distance` says by what they are ranked.

    Args:
        path: A file of several arrays, .npz, .mat, .h5 or .pt; or a folder with the four files
            PREFIX-tst_binary.npy, -trn_binary.npy, -tst_label.npy and -trn_label.npy, or the first of them.
        names: Names of the arguments.
        keys: Keys of arguments in the file. By default, these are their names or those that published scripts
            use, such as qB.
        files: Files of single arguments, which may also be .npy and .csv; they replace those in `path`.

    Raises:
        HashbenchError: A file cannot be read; see `read_file`.
        UsageError: An array is missing, a file contains pickled objects or codes of another length, or `keys`
            or `files` contain an argument that is not read.
    """
    keys, files = keys or {}, files or {}
    for name in (*keys, *files):
        if name not in (*names, *_OPTIONAL):
            raise unknown_name("array", name, [*names, *_OPTIONAL])
    path = None if path is None else as_path(path, "path")
    four = _four_files(path, names) if path else {}
    single = {**four, **files}
    arrays: dict[str, Any] = {}
    for name, file in single.items():
        arrays |= read_file(file, functools.partial(_choose_one, file, name, keys))
    if path and not four:
        rest, optional = ([name for name in group if name not in single] for group in (names, _OPTIONAL))
        arrays |= read_file(path, functools.partial(_choose, path, rest, optional, keys))
    if missing := [name for name in names if name not in arrays]:
        raise UsageError(f"no file contains {', '.join(missing)}; pass it with --array {missing[0]}=FILE")
    return _decode(arrays, {name: single.get(name, path) for name in arrays})


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


def _four_files(path: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the files of single arguments in a folder, or beside the first one; empty for other files."""
    ending = _ENDINGS["query_codes"]
    if path.is_dir():
        found = sorted(path.glob(f"*{ending}"))
        if len(found) != 1:
            advice = f"; pass one of them, such as {found[0]}" if found else ""
            raise UsageError(f"{path}: expected one file *{ending} in this folder, got {len(found)}{advice}")
        path = found[0]
    if not path.name.endswith(ending):
        return {}
    prefix = path.name.removesuffix(ending)
    return {name: path.with_name(prefix + _ENDINGS[name]) for name in names if name in _ENDINGS}


def _choose_one(path: Path, name: str, keys: Mapping[str, str], present: Sequence[str]) -> dict[str, str]:
    """Return the key of an argument in a file that may contain nothing else."""
    if len(present) == 1 and name not in keys:
        return {name: present[0]}
    return _choose(path, [name], [], keys, present)


def _choose(
    path: Path, names: Sequence[str], optional: Sequence[str], keys: Mapping[str, str], present: Sequence[str]
) -> dict[str, str]:
    """Return the keys of arguments in a file, given all of its keys."""
    if [*present] == [UNNAMED]:
        raise UsageError(f"{path} contains a single array; pass it with --array {names[0]}={path}")
    chosen, missing = {}, []
    for name in (*names, *optional):
        known = [keys[name]] if name in keys else [name] if name in present else _KEYS.get(name, ())
        found = [key for key in known if key in present]
        if len(found) > 1:
            raise UsageError(
                f"{path}: {name} may be {' or '.join(found)}; choose with --key {name}={found[0]}"
            )
        if found:
            chosen[name] = found[0]
        elif name in keys or name in names:
            missing.append(name)
    if missing:
        shown = ", ".join(present[:SHOWN])[:LONGEST] + (", …" if len(present) > SHOWN else "")
        raise UsageError(
            f"{path} lacks {', '.join(keys.get(name, name) for name in missing)}; it contains "
            f"{shown or 'no arrays'}; name an array by --key {missing[0]}=KEY, or its file by --array"
        )
    return chosen


def _decode(arrays: dict[str, Any], sources: Mapping[str, Path | None]) -> dict[str, Any]:
    """Return the arguments of `evaluate` from the arrays of files; `sources` has the file of each array."""
    bits = _bits(arrays.pop("bits"), sources["bits"]) if "bits" in arrays else None
    codebooks, distance = arrays.pop("codebooks", None), str(arrays.pop("distance", "l2"))
    if codebooks is not None and "database_codes" not in arrays:
        raise UsageError(
            f"{sources['codebooks']} contains product codes; a database in shards needs binary codes"
        )
    for codes, labels in zip(NAMES[:2], NAMES[2:], strict=True):
        if codes not in arrays:
            continue
        try:
            array = as_array(arrays[codes], "codes")
            arrays[codes] = _codes(array, bits, codebooks, distance)
        except UsageError as error:
            raise UsageError(f"{sources[codes]}: {codes}: {error}") from None
        if labels in arrays and np.shape(arrays[labels]) == (1, *array.shape[:1]):
            arrays[labels] = arrays[labels].reshape(-1, 1)  # MATLAB files have no one-dimensional arrays
    return arrays


def _bits(bits: Any, source: Path | None) -> int:
    array = as_array(bits, "bits")
    if array.size == 1 and array.dtype.kind in "iuf" and 1 <= array.item() < 2**63 and array.item() % 1 == 0:
        return int(array.item())
    found = array.item() if array.size == 1 else f"{array.dtype} {list(array.shape)}"
    raise UsageError(f"{source}: bits: expected a whole number, 1 or more, got {found}")


def _codes(array: NDArray[Any], bits: int | None, codebooks: Any, distance: Any) -> Codes | NDArray[Any]:
    if codebooks is None:
        if bits is None or not is_packed(array.dtype, array.shape, bits):
            return array
        return from_packed(array, bits)
    if array.dtype.kind not in "iu":
        return array
    product = ProductCodes(array, codebooks, distance)
    if bits not in (None, product.bits):
        raise UsageError(f"expected codes of bits = {bits}, got product codes of {product.bits}")
    return product
