"""Formats in which other programs save arrays, with one reader for each; nothing in a file is executed."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hashbench.errors import HashbenchError, UsageError, reason
from hashbench.evaluation.matlab import read_mat
from hashbench.runtime.array_files import check_header, check_unpacked, choose_from_npz

# Maps the keys of a file to those to read: new name -> key. A file of one array has the key UNNAMED.
Choose = Callable[[Sequence[str]], Mapping[str, str]]

UNNAMED = ""

_HDF5 = (
    b"\x89HDF\r\n\x1a\n"  # at the beginning of a file, or after the 512 bytes that MATLAB writes before it
)


def read_file(path: Path, choose: Choose) -> dict[str, Any]:
    """Read arrays of a file; its format is that of its extension.

    Args:
        path: The file.
        choose: Chooses the arrays to read. Others are ignored.

    Returns:
        The arrays by name: NumPy arrays, tensors or SciPy sparse matrices.

    Raises:
        HashbenchError: The file cannot be read, is damaged, or needs much more memory than disk space.
        UsageError: The format is unknown, or what is to be read is not an array of numbers.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: expected a file {', '.join(_READERS)}; save the arrays in such a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, about the formats
            return reader(path, choose)
    except HashbenchError:
        raise
    except Exception as error:  # the libraries raise many types for damaged files
        raise HashbenchError(f"{path} cannot be read: {reason(error)}") from error


def _read_npy(path: Path, choose: Choose) -> dict[str, Any]:
    with path.open("rb") as stream:
        check_header(stream, path.stat().st_size, str(path))
        stream.seek(0)
        array = np.lib.format.read_array(stream, allow_pickle=False)
    return dict.fromkeys(choose([UNNAMED]), array)


def _read_csv(path: Path, choose: Choose) -> dict[str, Any]:
    with path.open(encoding="utf-8-sig") as stream:
        array = np.loadtxt(stream, delimiter=",", ndmin=2)
    return dict.fromkeys(choose([UNNAMED]), array)


def _read_mat(path: Path, choose: Choose) -> dict[str, Any]:
    with path.open("rb") as stream:
        start = stream.read(512 + len(_HDF5))
    if start.startswith(_HDF5) or start.endswith(_HDF5):
        return _read_hdf5(path, choose)
    return read_mat(path, choose)


def _read_hdf5(path: Path, choose: Choose) -> dict[str, Any]:
    try:
        import h5py
    except ImportError:
        raise UsageError(f"{path} is an HDF5 file, which needs h5py; pip install 'hashbench[hdf5]'") from None

    def read(dataset: Any) -> Any:
        if dataset.dtype.kind not in "biuf":
            raise UsageError(f"{path}: {dataset.name}: expected an array of numbers, got {dataset.dtype}")
        # MATLAB stores arrays by column, which h5py therefore reads transposed.
        return dataset[()].T if "MATLAB_class" in dataset.attrs else dataset[()]

    with h5py.File(path, "r") as file:
        present: dict[str, Any] = {}
        file.visititems(lambda key, item: present.update({key: item} if hasattr(item, "dtype") else {}))
        chosen = choose([*present])
        check_unpacked(sum(present[key].nbytes for key in chosen.values()), path)
        return {name: read(present[key]) for name, key in chosen.items()}


def _read_torch(path: Path, choose: Choose) -> dict[str, Any]:
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            check_unpacked(sum(member.file_size for member in file.infolist()), path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"{path} is damaged, or contains more than tensors, which is not read since it could run code; "
            "save a dictionary of tensors with torch.save"
        ) from None
    if isinstance(content, torch.Tensor):
        content = {UNNAMED: content}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}")
    chosen = choose([key for key in content if isinstance(key, str)])
    tensors = {name: torch.as_tensor(content[key]) for name, key in chosen.items()}
    # A tensor may repeat one value, or be sparse.
    check_unpacked(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path)
    return tensors


_READERS: dict[str, Callable[[Path, Choose], dict[str, Any]]] = {
    ".npz": choose_from_npz,
    ".npy": _read_npy,
    ".csv": _read_csv,
    ".mat": _read_mat,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".pt": _read_torch,
    ".pth": _read_torch,
}
