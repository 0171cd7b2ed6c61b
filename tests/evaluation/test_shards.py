from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation import evaluate, shards
from hashbench.evaluation.counts import device as counting
from hashbench.evaluation.counts import relevance
from hashbench.evaluation.counts.binary import Counts, count_pairs
from hashbench.evaluation.shards import evaluate_shards

Signs = NDArray[np.int8]

FORMS: dict[str, Callable[[Signs], NDArray[Any]]] = {
    "signs": lambda signs: signs,
    "float signs by columns": lambda signs: np.asfortranarray(signs, np.float32),
    "zeros and ones": lambda signs: (signs > 0).astype(np.uint8),
    "bool": lambda signs: signs > 0,
    "octets": lambda signs: np.packbits(signs > 0, axis=1, bitorder="little"),
    "words": lambda signs: BinaryCodes.from_array(signs).packed,
}
LABELS: dict[str, Callable[[NDArray[np.int64]], NDArray[Any]]] = {
    "uint8 ids": lambda ids: ids.astype(np.uint8),
    "int64 ids": lambda ids: ids,
    "a column of ids": lambda ids: ids[:, None],
    "multi-hot": lambda ids: np.eye(6, dtype=np.uint8)[ids] | np.eye(6, dtype=np.uint8)[(ids * ids) % 6],
    "bool multi-hot": lambda ids: np.eye(6, dtype=bool)[ids],
}


def write(folder: Path, name: str, codes: NDArray[Any], labels: NDArray[Any]) -> None:
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{name}.codes.npy", codes)
    np.save(folder / f"{name}.labels.npy", labels)


def draw(n: int, bits: int, seed: int = 0) -> tuple[Signs, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([-1, 1], np.int8), (n, bits)), rng.integers(0, 6, n)


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_BLOCK_BYTES", size)
        yield


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([1, 12, 16, 64, 72]),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(any),
    form=st.sampled_from(list(FORMS)),
    packed_queries=st.booleans(),
    labels=st.sampled_from(list(LABELS)),
    block=st.sampled_from([1, 100, 1000, 1 << 20]),
    graded=st.booleans(),
)
def test_the_numbers_are_those_of_the_database_in_memory(
    bits: int, sizes: list[int], form: str, packed_queries: bool, labels: str, block: int, graded: bool
) -> None:
    query, query_ids = draw(5, bits, seed=1)
    database, ids = draw(sum(sizes), bits, seed=2)
    query_labels, database_labels = LABELS[labels](query_ids), LABELS[labels](ids)
    packed = packed_queries or form in ("octets", "words")
    query_codes = BinaryCodes.from_array(query) if packed else FORMS[form](query)
    chosen: dict[str, Any] = {"k": (3, "all"), "radius": 1, "graded": graded}
    expected = evaluate(query, database, query_labels, database_labels, **chosen)
    with TemporaryDirectory() as temporary, blocks_of(block):
        ends = np.cumsum(sizes)
        for number, (size, end) in enumerate(zip(sizes, ends, strict=True)):
            rows = slice(end - size, end)
            write(Path(temporary), f"part {number}", FORMS[form](database[rows]), database_labels[rows])
        found = evaluate_shards(query_codes, Path(temporary), query_labels, **chosen)
    np.testing.assert_array_equal(found.counts.items, expected.counts.items)
    np.testing.assert_array_equal(found.counts.relevant, expected.counts.relevant)
    assert found.to_dict() == expected.to_dict()


def test_settings_are_those_of_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query, _ = draw(4, 16, seed=1)
    database, ids = draw(50, 16)
    write(tmp_path, "all", database, ids)
    query_ids = np.array([0, 1, 2, 9])  # the last query has no relevant item
    chosen: dict[str, Any] = {"k": (5,), "radius": 4, "denominator": "relevant", "no_relevant": "skip"}
    found = evaluate_shards(query, tmp_path, query_ids, **chosen)
    assert found.to_dict() == evaluate(query, database, query_ids, ids, **chosen).to_dict()
    assert evaluate_shards(query, str(tmp_path), query_ids, **chosen).to_dict() == found.to_dict()
    wrong: dict[str, Any]
    for wrong in ({"device": "tpu"}, {"k": 0}, {"radius": -1}, {"denominator": "all"}, {"graded": "no"}):
        with monkeypatch.context() as patched, pytest.raises(UsageError, match=next(iter(wrong))):
            patched.setattr(shards, "_sum", None)  # arguments are checked before counting
            evaluate_shards(query, tmp_path, query_ids, **wrong)
    for path in (None, 5, b"folder", "a\0b", "a" * 5000):
        with pytest.raises(UsageError, match="database: expected a"):
            evaluate_shards(query, path, query_ids)  # type: ignore[arg-type]


def test_memory_does_not_grow_with_the_database(tmp_path: Path) -> None:
    query, query_ids = draw(3, 64, seed=1)
    codes, ids = draw(20_000, 64)
    for number in range(4):
        write(tmp_path, str(number), codes, ids.astype(np.uint8))  # 1.3 MB each
    with blocks_of(1 << 16):
        evaluate_shards(query, tmp_path, query_ids)  # compiles
        tracemalloc.start()
        evaluate_shards(query, tmp_path, query_ids)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1e6


SIGNS, IDS = draw(6, 16)


@pytest.mark.parametrize(
    ("codes", "labels", "error", "message"),
    [
        (SIGNS[:, :12], IDS, UsageError, "b.codes.npy: query_codes have 16 bits: expected codes [n, 16], or"),
        (SIGNS[0], IDS, UsageError, "or packed uint8 [n, 2] or uint64 [n, 1], got int8 [16]"),
        (SIGNS.astype(np.int16), IDS, UsageError, "b.codes.npy contains int16 [n, 16] but a.codes.npy int8"),
        (SIGNS * 3, IDS, UsageError, "b.codes.npy and its labels, rows 0 to 5: database_codes: expected"),
        ((SIGNS > 0).astype(np.int8), IDS, UsageError, "query_codes contain ±1 and database_codes {0, 1}"),
        (SIGNS, IDS[:4], UsageError, "b.labels.npy: expected 6 rows, as in b.codes.npy, got 4"),
        (SIGNS, np.eye(6)[IDS], UsageError, "b.labels.npy: query_labels are class ids [n] and database"),
        (
            SIGNS,
            IDS + 2.0**53,
            UsageError,
            "rows 0 to 5: database_labels: class ids of float64 are exact below",
        ),
        (SIGNS, np.array(["x"] * 6), UsageError, "b.labels.npy: database_labels: expected numbers"),
        (SIGNS, IDS - 9, UsageError, "rows 0 to 5: database_labels: class ids must be 0 or more"),
        (SIGNS, np.array(3), UsageError, "b.labels.npy: expected an array of n rows, got a single number"),
        (SIGNS, np.array([{}] * 6), UsageError, "b.labels.npy contains Python objects"),
    ],
)
def test_a_wrong_shard_is_named(
    tmp_path: Path, codes: NDArray[Any], labels: NDArray[Any], error: type[HashbenchError], message: str
) -> None:
    write(tmp_path, "a", SIGNS, IDS)
    write(tmp_path, "b", codes, labels)
    with pytest.raises(error) as raised:
        evaluate_shards(SIGNS[:2], tmp_path, IDS[:2])
    assert message in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_headers_are_checked_before_anything_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a", SIGNS, IDS)
    write(tmp_path, "z", SIGNS, IDS[:3])
    monkeypatch.setattr(shards, "count_pairs", pytest.fail)
    with pytest.raises(UsageError, match="z.labels.npy"):
        evaluate_shards(SIGNS[:2], tmp_path, IDS[:2])


def test_a_wrong_row_is_found_in_a_later_block(tmp_path: Path) -> None:
    codes = SIGNS.astype(np.float32)
    codes[4, 2] = np.nan
    write(tmp_path, "a", codes, IDS)
    where = r"a.codes.npy and its labels, rows 4 to 4, here numbered from 0: .* the first is row 0"
    with blocks_of(1), pytest.raises(UsageError, match=where):
        evaluate_shards(SIGNS[:2], tmp_path, IDS[:2])


def test_a_bit_past_the_last_one(tmp_path: Path) -> None:
    write(tmp_path, "a", np.full((6, 2), 255, np.uint8), IDS)
    with pytest.raises(UsageError, match=r"a.codes.npy .* bits are set past bit 12"):
        evaluate_shards(SIGNS[:2, :12], tmp_path, IDS[:2])


def test_files_that_make_no_shards(tmp_path: Path) -> None:
    def fails(message: str, error: type[HashbenchError] = UsageError) -> None:
        with pytest.raises(error, match=message):
            evaluate_shards(SIGNS[:2], tmp_path / "shards", IDS[:2])

    fails("shards is not a folder of shards")
    (tmp_path / "shards").mkdir()
    np.save(tmp_path / "shards/ids.npy", IDS)
    fails("contains no shards; save each as NAME.codes.npy and NAME.labels.npy")
    write(tmp_path / "shards", "a", SIGNS[:0], IDS[:0])
    fails("expected at least one code, got none")
    np.save(tmp_path / "shards/b.labels.npy", IDS)
    fails("contains b.labels.npy but no b.codes.npy; a shard needs both")
    (tmp_path / "shards/b.codes.npy").write_bytes((tmp_path / "shards/b.labels.npy").read_bytes()[:-8])
    fails("b.codes.npy cannot be read", HashbenchError)
    (tmp_path / "shards/b.codes.npy").write_text("nothing")
    fails("b.codes.npy cannot be read", HashbenchError)


def test_the_command(cli: Callable[..., Any], tmp_path: Path) -> None:
    query, query_ids = draw(5, 16, seed=1)
    database, ids = draw(60, 16)
    expected = evaluate(query, database, query_ids, ids, k=(5, "all")).to_dict()
    octets = FORMS["octets"]
    for name, rows in (("a", slice(0, 20)), ("b", slice(20, 60))):
        write(tmp_path / "shards", name, octets(database[rows]), ids[rows])
    np.savez("signs.npz", query_codes=query, query_labels=query_ids)
    np.savez("packed.npz", query_codes=octets(query), query_labels=query_ids, bits=16)
    for queries in ("signs.npz", "packed.npz"):
        done = cli("evaluate", queries, "--database", "shards", "--k", "5,all", "--json")
        assert json.loads(done.out) == expected, done.err
        assert "counting: 60/60" in done.err

    np.savez("unsaid.npz", query_codes=octets(query), query_labels=query_ids)
    np.savez("longer.npz", query_codes=octets(query), query_labels=query_ids, bits=32)
    big_endian = np.packbits(query[:, :12] > 0, axis=1)
    np.savez("big-endian.npz", query_codes=big_endian, query_labels=query_ids, bits=12)
    np.savez("product.npz", query_codes=query, query_labels=query_ids, codebooks=np.zeros((2, 4, 8)))
    np.savez("unlabelled.npz", query_codes=query)
    for file, message in (
        (
            "unsaid.npz",
            "if they are packed codes, save their length with them, as in numpy.savez(..., bits=64)",
        ),
        (
            "big-endian.npz",
            "big-endian.npz: query_codes: packed codes: bits are set past bit 12; they look like",
        ),
        ("longer.npz", "longer.npz: query_codes: expected codes [n, 32], or packed uint8 [n, 4]"),
        ("product.npz", "product.npz contains product codes"),
        ("unlabelled.npz", "unlabelled.npz lacks query_labels"),
    ):
        done = cli("evaluate", file, "--database", "shards")
        assert (done.code, message in done.err) == (2, True), done.err


def test_packed_codes_in_one_file(cli: Callable[..., Any]) -> None:
    query, query_ids = draw(5, 20, seed=1)
    database, ids = draw(60, 20)
    expected = evaluate(query, database, query_ids, ids).to_dict()
    for form in ("octets", "words"):
        codes = {"query_codes": FORMS[form](query), "database_codes": FORMS[form](database), "bits": 20}
        np.savez("codes.npz", **codes, query_labels=query_ids, database_labels=ids)
        assert json.loads(cli("evaluate", "codes.npz", "--json").out) == expected


def test_bits_in_a_file_are_those_of_its_codes(cli: Callable[..., Any]) -> None:
    labels = {"query_labels": IDS[:2], "database_labels": IDS}
    for kind in (np.int8, np.float32, np.uint8, np.int64, bool):
        codes = (SIGNS > 0).astype(kind)
        np.savez("right.npz", query_codes=codes[:2], database_codes=codes, bits=16, **labels)
        np.savez("wrong.npz", query_codes=codes[:2, :12], database_codes=codes[:, :12], bits=64, **labels)
        assert cli("evaluate", "right.npz").code == 0
        done = cli("evaluate", "wrong.npz")
        assert done.code == 2
        assert "wrong.npz: query_codes: expected codes [n, 64], or packed uint8 [n, 8]" in done.err
        assert done.err.count("\n") == 1
    np.savez("wrong.npz", query_codes=SIGNS[:2], database_codes=SIGNS, bits=0, **labels)
    assert "wrong.npz: bits: expected a whole number, 1 or more, got 0" in cli("evaluate", "wrong.npz").err


def test_torch_is_not_imported_to_evaluate_on_the_cpu(tmp_path: Path) -> None:
    write(tmp_path / "shards", "a", SIGNS, IDS)
    np.savez(tmp_path / "queries.npz", query_codes=SIGNS, query_labels=IDS)
    code = (
        "import sys; sys.argv = 'hashbench evaluate queries.npz --database shards --device cpu'.split()\n"
        "from hashbench.cli.app import main\n"
        "try: main()\n"
        "finally: assert 'hashbench.evaluation' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("driver", [True, False])
def test_without_a_gpu_the_cpu_counts(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, driver: bool
) -> None:
    monkeypatch.setattr(counting, "_has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(counting, "_PAIRS", 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    np.savez("codes.npz", query_codes=SIGNS, query_labels=IDS, database_codes=SIGNS, database_labels=IDS)
    assert cli("evaluate", "codes.npz").code == 0
    done = cli("evaluate", "codes.npz", "--device", "cuda")
    assert (done.code, "torch sees no GPU" in done.err) == (2, True), done.err


@pytest.mark.parametrize(
    ("least", "driver", "expected"), [(120, True, "cuda"), (121, True, "cpu"), (0, False, "cpu")]
)
def test_a_gpu_counts_if_there_are_enough_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, driver: bool, expected: str
) -> None:
    """Decide by the pairs of the whole database, which are 4 queries times 3 shards of 10 items."""
    devices = set()

    def count(*arguments: Any, device: str) -> Counts:
        devices.add(device)
        return count_pairs(*arguments)

    monkeypatch.setattr(counting, "_PAIRS", least)
    monkeypatch.setattr(counting, "_has_nvidia_driver", lambda: driver)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for module in (shards, relevance):
        monkeypatch.setattr(module, "count_pairs", count)
    query, ids = draw(4, 16)
    database, database_ids = draw(30, 16)
    for part in range(3):
        write(tmp_path, str(part), database[part::3], database_ids[part::3])
    evaluate_shards(query, tmp_path, ids, device="auto")
    evaluate(query, database, ids, database_ids, device="auto")
    assert devices == {expected}
