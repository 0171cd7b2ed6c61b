"""Damaged files of codes and labels are evaluated or refused with one line."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from fuzz.mutation import mutations
from fuzz.outcomes import refused

from hashbench import evaluate
from hashbench.evaluation.files import NAMES, load_arguments
from hashbench.evaluation.shards import evaluate_shards

SIGNS = np.random.RandomState(0).choice(np.array([-1, 1], np.int8), (6, 16))
IDS = np.arange(6) % 3
BINARY = {
    "query_codes": SIGNS[:2],
    "database_codes": SIGNS,
    "query_labels": IDS[:2],
    "database_labels": IDS,
}
PACKED = {**BINARY, "bits": 16} | {name: np.packbits(BINARY[name] > 0, axis=1) for name in [*BINARY][:2]}
PRODUCT = BINARY | {
    "codebooks": np.random.RandomState(1).rand(2, 4, 3).astype(np.float32),
    "query_codes": np.random.RandomState(2).rand(2, 6).astype(np.float32),
    "database_codes": (np.abs(SIGNS[:, :2]) * 3).astype(np.uint8),
}


def saved(arrays: dict[str, Any], save: Callable[..., None] = np.savez) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_damaged_archives_of_codes(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    path = tmp_path / "codes.npz"

    def read() -> None:
        evaluate(**load_arguments(path), k=(2, "all"))

    files = [
        saved(arrays, save)
        for arrays in (BINARY, PACKED, PRODUCT)
        for save in (np.savez, np.savez_compressed)
    ]
    for content in files:
        path.write_bytes(content)
        read()
    found = 0
    for content in mutations(files, tries(300, 10_000)):
        path.write_bytes(content)
        found += refused(read)
        refused(lambda: load_arguments(path, NAMES[::2]))
    assert found


@pytest.mark.filterwarnings("ignore")
def test_sound_archives_of_damaged_arrays(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    """With correct checksums, the headers are read and the values are used."""
    path = tmp_path / "codes.npz"
    count = tries(250, 10_000)
    found = 0
    for arrays in (BINARY, PACKED, PRODUCT):
        members = {f"{name}.npy": npy(array) for name, array in arrays.items()}
        for number, damaged in enumerate(mutations([*members.values()], count // 3, seed=len(arrays))):
            name = next(
                (n for n in members if damaged[80:] == members[n][80:]), [*members][number % len(members)]
            )
            with zipfile.ZipFile(path, "w") as file:
                for member, content in (members | {name: damaged}).items():
                    file.writestr(member, content)
            found += refused(lambda: evaluate(**load_arguments(path), k=(2, "all")))
    assert found


def hdf5(arrays: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with pytest.importorskip("h5py").File(stream, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return stream.getvalue()


def tensors(arrays: dict[str, Any], zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    content = {name: torch.as_tensor(array) for name, array in arrays.items()}
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def mat(arrays: dict[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, arrays, **options)
    return stream.getvalue()


FORMATS: dict[str, list[Callable[[dict[str, Any]], bytes]]] = {
    ".mat": [mat, lambda arrays: mat(arrays, do_compression=True), hdf5],
    ".h5": [hdf5],
    ".pt": [tensors, lambda arrays: tensors(arrays, zipped=False)],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", FORMATS)
def test_damaged_files_of_other_programs(
    tmp_path: Path, tries: Callable[[int, int], int], ending: str
) -> None:
    path = tmp_path / f"codes{ending}"
    files = [save(BINARY) for save in FORMATS[ending]]
    found = 0
    for content in mutations(files, tries(100, 10_000)):
        path.write_bytes(content)
        found += refused(lambda: evaluate(**load_arguments(path), k=(2, "all")))
    assert found


@pytest.mark.filterwarnings("ignore")
def test_damaged_shards(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    files = {"a.codes.npy": npy(SIGNS), "a.labels.npy": npy(IDS)}
    found = 0
    for number, damaged in enumerate(mutations([*files.values()], tries(200, 10_000), seed=5)):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        (tmp_path / [*files][number % 2]).write_bytes(damaged)
        found += refused(evaluate_shards, SIGNS[:2], tmp_path, IDS[:2], k=(2, "all"))
    assert found
