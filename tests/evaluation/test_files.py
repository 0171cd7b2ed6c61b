"""Codes and labels in the files of other programs: formats, keys, and what is refused."""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from hashbench import evaluate
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation import files
from hashbench.evaluation.files import NAMES, load_arguments
from hashbench.runtime import array_files

RANDOM = np.random.RandomState(0)
CODES = RANDOM.choice(np.array([-1, 1], np.int8), (9, 12))
MULTI_HOT = RANDOM.randint(0, 2, (9, 4)).astype(np.uint8)
IDS = RANDOM.randint(0, 3, 9)
ARRAYS: dict[str, Any] = {
    "query_codes": CODES[:3],
    "database_codes": CODES,
    "query_labels": MULTI_HOT[:3],
    "database_labels": MULTI_HOT,
}
EXPECTED = evaluate(**ARRAYS).to_dict()
BY_CLASS = evaluate(CODES[:3], CODES, IDS[:3], IDS).to_dict()
# The keys of published scripts, in the order of NAMES.
SCRIPTS = (
    ("qB", "rB", "query_L", "retrieval_L"),
    ("qB", "rB", "qL", "rL"),
    ("val_B", "retrieval_B", "L_te", "L_db"),
    ("tB", "B", "tst_label", "trn_label"),
    ("query_image", "retrieval_image", "query_label", "retrieval_label"),
)


def save_torch(path: Path, arrays: dict[str, Any]) -> None:
    torch.save({key: torch.as_tensor(array) for key, array in arrays.items()}, path)


def save_h5(path: Path, arrays: dict[str, Any]) -> None:
    with pytest.importorskip("h5py").File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array


def save_mat73(path: Path, arrays: dict[str, Any]) -> None:
    """Write a file as MATLAB's `save -v7.3` does: arrays by column, after a header of 512 bytes."""
    with pytest.importorskip("h5py").File(path, "w", userblock_size=512) as file:
        for key, array in arrays.items():
            file[key] = np.asarray(array).T
            file[key].attrs["MATLAB_class"] = np.bytes_(np.asarray(array).dtype.name)
        file.create_group("#refs#")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")


SAVERS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "codes.npz": lambda path, arrays: np.savez(path, **arrays),
    "compressed.mat": lambda path, arrays: scipy.io.savemat(path, arrays, do_compression=True),
    "v5.mat": scipy.io.savemat,
    "v73.mat": save_mat73,
    "codes.h5": save_h5,
    "CODES.HDF5": save_h5,
    "codes.pt": save_torch,
    "codes.pth": save_torch,
}


@pytest.mark.parametrize("name", SAVERS)
def test_each_format_gives_the_values_of_the_arrays(tmp_path: Path, name: str) -> None:
    for keys in (NAMES, *SCRIPTS):
        SAVERS[name](tmp_path / name, dict(zip(keys, ARRAYS.values(), strict=True)))
        assert evaluate(**load_arguments(tmp_path / name)).to_dict() == EXPECTED
    assert [len(array) for array in load_arguments(tmp_path / name, NAMES[::2]).values()] == [3, 3]
    for ids in (IDS, IDS[:, None], IDS[None] if name.endswith(".mat") else IDS):
        labels = {"qL": ids[:, :3] if len(ids) == 1 else ids[:3], "rL": ids}
        SAVERS[name](tmp_path / name, {"qB": CODES[:3], "rB": CODES, **labels})
        assert evaluate(**load_arguments(tmp_path / name)).to_dict() == BY_CLASS


@pytest.mark.parametrize("save", [np.save, lambda path, array: np.savetxt(path, array, "%d", ",")])
def test_files_of_single_arrays(tmp_path: Path, save: Callable[..., None]) -> None:
    ending = "npy" if save is np.save else "csv"
    paths = {name: tmp_path / f"{name}.{ending}" for name in NAMES}
    for name, array in ARRAYS.items():
        save(paths[name], array)
    found = load_arguments(None, files=paths)
    assert evaluate(**found).to_dict() == EXPECTED
    save(tmp_path / f"ids.{ending}", IDS)
    save(tmp_path / f"column.{ending}", IDS[:3, None])
    by_class = {"query_labels": tmp_path / f"column.{ending}", "database_labels": tmp_path / f"ids.{ending}"}
    assert evaluate(**load_arguments(None, files=paths | by_class)).to_dict() == BY_CLASS
    # They replace the arrays of a file, and are any file that contains a single array.
    np.savez(tmp_path / "codes.npz", qB=CODES[:3], rB=CODES, qL=MULTI_HOT[:3])
    torch.save(torch.as_tensor(IDS), tmp_path / "ids.pt")
    by_class["database_labels"] = tmp_path / "ids.pt"
    assert evaluate(**load_arguments(tmp_path / "codes.npz", files=by_class)).to_dict() == BY_CLASS
    with pytest.raises(UsageError, match=r"contains a single array; pass it with --array query_codes="):
        load_arguments(paths["query_codes"])
    with pytest.raises(UsageError, match="no file contains query_labels, database_labels; pass it with"):
        load_arguments(None, files=dict([*paths.items()][:2]))


def test_the_four_files_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected one file \*-tst_binary.npy in this folder, got 0$"):
        load_arguments(tmp_path)
    endings = ("tst_binary", "trn_binary", "tst_label", "trn_label")
    for ending, array in zip(endings, ARRAYS.values(), strict=True):
        np.save(tmp_path / f"cifar10-0.8-{ending}.npy", array)
    assert evaluate(**load_arguments(tmp_path)).to_dict() == EXPECTED
    np.save(tmp_path / "cifar10-0.9-tst_binary.npy", CODES[:3])
    assert evaluate(**load_arguments(tmp_path / "cifar10-0.8-tst_binary.npy")).to_dict() == EXPECTED
    with pytest.raises(UsageError, match=r"got 2; pass one of them, such as .*cifar10-0.8-tst_binary.npy"):
        load_arguments(tmp_path)
    with pytest.raises(HashbenchError, match=r"cifar10-0.9-trn_binary.npy cannot be read"):
        load_arguments(tmp_path / "cifar10-0.9-tst_binary.npy")


def test_keys_are_chosen_or_named(tmp_path: Path) -> None:
    path = tmp_path / "codes.npz"
    np.savez(path, mine=CODES[:3], qB=-CODES[:3], rB=CODES, qL=IDS[:3], rL=IDS)
    assert evaluate(**load_arguments(path, keys={"query_codes": "mine"})).to_dict() == BY_CLASS
    with pytest.raises(UsageError, match=r"lacks hers; it contains mine, qB, rB, qL, rL; name an array by"):
        load_arguments(path, keys={"query_codes": "hers"})
    with pytest.raises(UsageError, match="unknown array 'query_code'; did you mean 'query_codes'"):
        load_arguments(path, keys={"query_code": "mine"})
    np.savez(path, query_codes=CODES[:3], qB=-CODES[:3], rB=CODES, qL=IDS[:3], rL=IDS)
    assert evaluate(**load_arguments(path)).to_dict() == BY_CLASS
    np.savez(path, tB=CODES[:3], qB=-CODES[:3], rB=CODES, qL=IDS[:3], rL=IDS)
    with pytest.raises(UsageError, match=r"query_codes may be qB or tB; choose with --key query_codes=qB"):
        load_arguments(path)
    np.savez(path, **{f"x{number}": CODES for number in range(50)})
    with pytest.raises(UsageError, match=r"lacks query_codes, .*; it contains x0, .*, x11, …; name an array"):
        load_arguments(path)


def test_packed_codes_of_matlab(tmp_path: Path) -> None:
    octets = np.packbits(CODES > 0, axis=1, bitorder="little")
    arrays = {"qB": octets[:3], "rB": octets, "qL": IDS[:3], "rL": IDS}
    scipy.io.savemat(tmp_path / "x.mat", {**arrays, "bits": 12.0})
    assert evaluate(**load_arguments(tmp_path / "x.mat")).to_dict() == BY_CLASS
    scipy.io.savemat(tmp_path / "x.mat", {**arrays, "bits": 12.5})
    with pytest.raises(UsageError, match=r"x.mat: bits: expected a whole number, 1 or more, got 12.5"):
        load_arguments(tmp_path / "x.mat")


def test_sparse_labels(tmp_path: Path) -> None:
    labels = {"qL": scipy.sparse.csc_array(MULTI_HOT[:3]), "rL": scipy.sparse.csc_array(MULTI_HOT)}
    scipy.io.savemat(tmp_path / "x.mat", {"qB": CODES[:3], "rB": CODES, **labels})
    assert evaluate(**load_arguments(tmp_path / "x.mat")).to_dict() == EXPECTED
    tensors = {key: torch.as_tensor(array.toarray()).to_sparse() for key, array in labels.items()}
    save_torch(tmp_path / "x.pt", {"qB": CODES[:3], "rB": CODES, **tensors})
    assert evaluate(**load_arguments(tmp_path / "x.pt")).to_dict() == EXPECTED


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_mat_file_of_any_byte_order_beside_an_object(tmp_path: Path, order: str) -> None:
    """MATLAB's strings and tables have a layout of their own."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)

    def array(name: bytes, values: Any) -> bytes:
        flags = element(6, struct.pack(f"{order}II", 6, 0))
        shape = element(5, np.asarray(values.shape, f"{order}i4").tobytes())
        # MATLAB writes whole numbers of the class double in the smallest type that holds them.
        return element(14, flags + shape + element(1, name) + element(1, values.T.tobytes()))

    flags = element(6, struct.pack(f"{order}II", 17, 0))
    text = element(14, flags + element(1, b"title") + element(1, b"MCOS") + element(1, b"string"))
    version = struct.pack(f"{order}HH", 0x0100, 0x4D49)
    arrays = [
        array(key.encode(), ARRAYS[name].astype(np.int8)) for key, name in zip(SCRIPTS[0], NAMES, strict=True)
    ]
    (tmp_path / "x.mat").write_bytes(bytes(124) + version + text + b"".join(arrays))
    assert evaluate(**load_arguments(tmp_path / "x.mat")).to_dict() == EXPECTED


class Code:
    """What would run if a file were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("a file was executed",)


def write(path: Path, content: Any) -> None:
    if isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, content)
    elif path.suffix == ".h5":
        save_h5(path, content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pt", {"qB": Code()}, "contains more than tensors, which is not read since it could run code"),
        ("x.pt", [1, 2], "expected a dictionary of tensors, got list"),
        ("x.pt", "no tensors", "x.pt (is damaged, or|cannot be read)"),
        ("x.pt", {"model": CODES[0, 0], "epoch": 3}, "(lacks query_codes; it contains model, epoch|damage)"),
        ("x.mat", {"qB": "text"}, "qB: expected an array of real numbers, got another type"),
        ("x.mat", {"qB": {"a": 1}}, "qB: expected an array of real numbers, got another type"),
        ("x.mat", {"qB": np.array([CODES, "a"], object)}, "qB: expected an array of real numbers"),
        ("x.mat", "no matrix", "x.mat cannot be read: "),
        ("x.h5", {"qB": "text"}, "qB: expected an array of numbers, got object"),
        ("x.h5", "no dataset", "x.h5 cannot be read: "),
        ("x.npy", "no array", "x.npy cannot be read: "),
        ("x.csv", "1,-1\n1,yes\n", "x.csv cannot be read: could not convert string 'yes' .* at row 1"),
        ("x.csv", "1,-1\n1\n", "x.csv cannot be read: "),
        ("x.bin", "any", "x.bin: expected a file .npz, .npy, .csv, .mat, .h5, .hdf5, .pt, .pth; save"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    write(tmp_path / name, content)
    with pytest.raises(HashbenchError, match=message) as error:
        load_arguments(None, ["query_codes"], files={"query_codes": tmp_path / name})
    assert len(str(error.value)) < 500


def test_a_pickle_named_pt_is_not_executed(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"qB": Code()}))
    with pytest.raises(UsageError, match="contains more than tensors"):
        load_arguments(tmp_path / "x.pt")


def test_hdf5_without_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_mat73(tmp_path / "x.mat", ARRAYS)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UsageError, match=r"x.mat is an HDF5 file, .* pip install 'hashbench\[hdf5"):
        load_arguments(tmp_path / "x.mat")


def compressed_h5(path: Path, many: int) -> None:
    with pytest.importorskip("h5py").File(path, "w") as file:
        for name in NAMES:
            file.create_dataset(name, (many, 8), "i1", compression="gzip")


def deflated_torch(path: Path, many: int) -> None:
    save_torch(path, {name: torch.zeros(many, 8) for name in NAMES})
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def repeated_torch(path: Path, many: int) -> None:
    save_torch(path, dict.fromkeys(NAMES, torch.zeros(1, 1).expand(many, 8)))


def compressed_mat(path: Path, many: int) -> None:
    scipy.io.savemat(path, dict.fromkeys(NAMES, np.zeros((many, 8))), do_compression=True)


def sparse_mat(path: Path, many: int) -> None:
    scipy.io.savemat(path, dict.fromkeys(NAMES, scipy.sparse.csc_array((many, 8), dtype=float)))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("x.h5", compressed_h5),
        ("deflated.pt", deflated_torch),
        ("x.pt", repeated_torch),
        ("x.mat", compressed_mat),
        ("sparse.mat", sparse_mat),
    ],
)
def test_a_small_file_that_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, save: Callable[[Path, int], None]
) -> None:
    save(tmp_path / name, 30_000)
    monkeypatch.setattr(array_files, "MAX_UNPACKED", 1 << 18)
    monkeypatch.setattr(array_files, "MAX_RATIO", 1)
    with pytest.raises(HashbenchError, match=f"{name} cannot be read: its arrays take .* bytes, which is"):
        load_arguments(tmp_path / name)
    save(tmp_path / name, 10)
    load_arguments(tmp_path / name)


def test_every_key_belongs_to_one_argument() -> None:
    keys = [key for known in files._KEYS.values() for key in known]
    assert len(keys) == len(set(keys))
    assert set(keys) >= {key for script in SCRIPTS for key in script}
