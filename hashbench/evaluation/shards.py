"""Evaluation with a database larger than memory, stored as shards on disk, by adding the counts of blocks.

A folder contains two files per shard, as written by `numpy.save`:

- `NAME.codes.npy`: codes [n, bits] of ±1, {0, 1} or bool; or packed, uint8 [n, ceil(bits / 8)] or
  uint64 [n, ceil(bits / 64)], in the bit order of `hashbench.evaluation.files.is_packed`.
- `NAME.labels.npy`: class ids [n], or a multi-hot matrix [n, classes].

All shards of a folder have the same form. Their order does not matter, and other files are ignored. Files
`._NAME…`, which macOS creates, are skipped and counted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashbench.codes import BinaryCodes
from hashbench.errors import HashbenchError, UsageError, reason
from hashbench.evaluation.counts.binary import Counts, count_pairs
from hashbench.evaluation.counts.device import counting_device
from hashbench.evaluation.counts.graded import GradedCounts, count_graded_pairs
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.files import from_packed, is_packed
from hashbench.evaluation.inputs import (
    Cutoffs,
    Denominator,
    NoRelevant,
    check_comparable,
    check_settings,
    read_codes,
    read_labels,
)
from hashbench.evaluation.result import Evaluation
from hashbench.runtime.arguments import as_path, check_choice, check_type
from hashbench.runtime.array_files import check_header
from hashbench.runtime.console import warn
from hashbench.runtime.progress import progress
from hashbench.runtime.walking import is_system_file

# Size of a block on disk. In memory, class ids grow to eight bytes, and two blocks exist at a time.
_BLOCK_BYTES = 16 << 20

_CODES, _LABELS = ".codes.npy", ".labels.npy"

_Item = TypeVar("_Item")
_Counts = TypeVar("_Counts", Counts, GradedCounts)
_Block = tuple[BinaryCodes, BinaryCodes, Labels]  # codes of the queries; codes and labels of database items


def evaluate_shards(
    query_codes: BinaryCodes | ArrayLike,
    database: Path | str,
    query_labels: ArrayLike,
    k: Cutoffs = (1000, "all"),
    radius: int = 2,
    denominator: Denominator = "hits",
    no_relevant: NoRelevant = "zero",
    graded: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Evaluate like `evaluate`, with a database that is read from disk block by block.

    Memory use does not depend on the size of the database. Progress is shown on standard error.

    Args:
        query_codes: Codes of the queries: BinaryCodes, or an array or tensor [queries, bits] of ±1, {0, 1} or
            bool.
        database: Folder of shards; the docstring of this module describes the files.
        query_labels: Labels of the queries: class ids [queries], or multi-hot [queries, classes].
        k: The cut-offs to report; see `evaluate`.
        radius: Hamming radius in bits; see `evaluate`.
        denominator: Divisor of AP@k; see `evaluate`.
        no_relevant: Score of queries without a relevant item in the database; see `evaluate`.
        graded: Count the labels that two items share, for NDCG@k and ACG@k.
        device: Device on which pairs are counted; see `evaluate`.

    Returns:
        The metrics, identical to those of the whole database in memory.

    Raises:
        UsageError: An argument or a shard is invalid or does not match another one.
        HashbenchError: A file cannot be read.
    """
    # All arguments are checked before counting, which can take hours.
    check_type("graded", graded, bool, np.bool_)
    check_choice("device", device, ("cpu", "cuda", "auto"))
    settings = check_settings(k, radius, denominator, no_relevant)
    query = query_codes
    if not isinstance(query, BinaryCodes):
        query = BinaryCodes.from_array(query, "query_codes")
    classes = read_labels(query_labels, "query", query)
    shards = _find(as_path(database, "database"), query.bits, classes)
    if graded:
        shared = _sum(shards, query_codes, classes, count_graded_pairs)
        return Evaluation(shared.counts, **settings, graded=shared, query_labels=classes)
    device = counting_device(device, len(query) * sum(shard.rows for shard in shards))
    counts = _sum(shards, query_codes, classes, functools.partial(count_pairs, device=device))
    return Evaluation(counts, **settings, query_labels=classes)


@dataclass(frozen=True)
class _Shard:
    """Two files of a database with matching headers."""

    codes: Path
    labels: Path
    form: tuple[np.dtype[Any], tuple[int, ...]]  # type of the codes and shape of a row
    rows: int
    row_bytes: int  # size of a row of codes and labels together
    packed: int | None  # length of a code in bits, if the codes are packed


def _find(folder: Path, bits: int, classes: Labels) -> list[_Shard]:
    """Find the shards of a folder and check that they match the queries' code length and labels."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder of shards")
    files = [path.name for ending in (_CODES, _LABELS) for path in folder.glob(f"*{ending}")]
    if skipped := sum(map(is_system_file, files)):
        warn(f"{skipped:,} files ._* of the operating system in {folder} are skipped")
    codes, labels = (
        {name.removesuffix(ending) for name in files if name.endswith(ending) and not is_system_file(name)}
        for ending in (_CODES, _LABELS)
    )
    if not codes and not labels:
        raise UsageError(f"{folder} contains no shards; save each as NAME{_CODES} and NAME{_LABELS}")
    if codes != labels:
        name = min(codes ^ labels)
        present, missing = (_CODES, _LABELS) if name in codes else (_LABELS, _CODES)
        raise UsageError(f"{folder} contains {name}{present} but no {name}{missing}; a shard needs both")
    shards: list[_Shard] = []
    for name in sorted(codes):
        shards.append(_check(folder / f"{name}{_CODES}", folder / f"{name}{_LABELS}", bits, classes))
        first, last = shards[0], shards[-1]
        if last.form != first.form:
            raise UsageError(
                f"{last.codes} contains {_text(last.form)} but {first.codes.name} {_text(first.form)}; "
                "save all shards in the same form"
            )
    if not any(shard.rows for shard in shards):
        raise UsageError(f"{folder}: expected at least one code, got none")
    return shards


def _check(codes_path: Path, labels_path: Path, bits: int, classes: Labels) -> _Shard:
    """Read and check the headers of the files of a shard."""
    codes, labels = _open(codes_path), _open(labels_path)
    try:
        packed = is_packed(codes.dtype, codes.shape, bits)
    except UsageError as error:
        raise UsageError(f"{codes_path}: query_codes have {bits} bits: {error}") from None
    try:
        # With no rows, this checks only the type and the number of columns.
        check_comparable(classes, Labels.from_array(labels[:0], "database_labels"))
    except UsageError as error:
        raise UsageError(f"{labels_path}: {error}") from None
    if len(labels) != len(codes):
        raise UsageError(
            f"{labels_path}: expected {len(codes)} rows, as in {codes_path.name}, got {len(labels)}"
        )
    return _Shard(
        codes_path,
        labels_path,
        form=(codes.dtype, codes.shape[1:]),
        rows=len(codes),
        row_bytes=sum(array.itemsize * math.prod(array.shape[1:]) for array in (codes, labels)),
        packed=bits if packed else None,
    )


def _text(form: tuple[np.dtype[Any], tuple[int, ...]]) -> str:
    return f"{form[0]} [n, {form[1][0]}]"


def _open(path: Path) -> NDArray[Any]:
    """Map a file into memory, reading only its header."""
    try:
        with path.open("rb") as file:
            check_header(file, path.stat().st_size, str(path))
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except HashbenchError:
        raise
    except Exception as error:  # NumPy raises many types of errors for damaged headers
        raise HashbenchError(
            f"{path} cannot be read: {reason(error)}; save a plain array with numpy.save"
        ) from error
    if array.ndim == 0:
        raise UsageError(f"{path}: expected an array of n rows, got a single number")
    return array


def _sum(
    shards: Sequence[_Shard],
    query_codes: BinaryCodes | ArrayLike,
    classes: Labels,
    count: Callable[[BinaryCodes, BinaryCodes, Labels, Labels], _Counts],
) -> _Counts:
    """Return the total counts of all shards; `classes` are the labels of the queries."""
    total: _Counts | None = None
    with progress("counting", sum(shard.rows for shard in shards)) as advance:
        for query, codes, labels in _prefetch(_blocks(shards, query_codes)):
            part = count(query, codes, classes, labels)
            total = part if total is None else total + part
            advance(len(codes))
    assert total is not None
    return total


def _blocks(shards: Sequence[_Shard], query_codes: BinaryCodes | ArrayLike) -> Iterator[_Block]:
    for shard in shards:
        rows = max(1, _BLOCK_BYTES // shard.row_bytes)
        for start in range(0, shard.rows, rows):
            stop = min(start + rows, shard.rows)
            try:
                yield _read(shard, slice(start, stop), query_codes)
            except UsageError as error:
                numbered = ", here numbered from 0" if start else ""
                where = f"{shard.codes} and its labels, rows {start} to {stop - 1}{numbered}"
                raise UsageError(f"{where}: {error}") from None


def _read(shard: _Shard, rows: slice, query_codes: BinaryCodes | ArrayLike) -> _Block:
    """Return some rows of a shard, with the codes of the queries to compare them with.

    The pages of a mapped file count as memory of the process while it is mapped. Each block therefore maps
    its files again and copies the rows that it needs.
    """
    codes, labels = (np.array(_open(path)[rows], order="C") for path in (shard.codes, shard.labels))
    query, database = read_codes(query_codes, from_packed(codes, shard.packed) if shard.packed else codes)
    return query, database, read_labels(labels, "database", database)


def _prefetch(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the items, preparing each in a thread while the previous one is in use."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, None)
        while (item := future.result()) is not None:
            future = pool.submit(next, items, None)
            yield item
