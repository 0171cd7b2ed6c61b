"""A database larger than memory, in shards on disk: the counts of its blocks are added up.

A folder holds two files a shard, as `numpy.save` writes them:

- `NAME.codes.npy`: codes [n, bits] of ±1, of {0, 1} or bool; or packed, uint8 [n, ceil(bits / 8)] or
  uint64 [n, ceil(bits / 64)], in the order of bits that `hashbench.evaluation.files.is_packed` says.
- `NAME.labels.npy`: class ids [n], or a multi-hot matrix [n, classes].

The shards of a folder are of one form, their order does not matter, and other files are not looked at. Files
`._NAME…` that macOS writes beside them are skipped and counted.
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
from hashbench.evaluation.counts.graded import GradedCounts, count_graded_pairs
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.files import from_packed, is_packed
from hashbench.evaluation.inputs import check_comparable, read_codes, read_labels
from hashbench.evaluation.result import Cutoffs, Denominator, Evaluation, NoRelevant, check_settings
from hashbench.runtime.arguments import as_path, check_choice, check_type
from hashbench.runtime.array_files import check_header
from hashbench.runtime.console import warn
from hashbench.runtime.progress import progress
from hashbench.runtime.walking import is_system_file

# Read at once. In memory, class ids grow to eight bytes, and two blocks are there at a time.
_BLOCK_BYTES = 16 << 20

_CODES, _LABELS = ".codes.npy", ".labels.npy"

_Item = TypeVar("_Item")
_Counts = TypeVar("_Counts", Counts, GradedCounts)
_Block = tuple[BinaryCodes, BinaryCodes, Labels]  # codes of the queries; codes and labels of some items


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
    """Evaluate as `evaluate` does, with a database that is read from disk block by block.

    Memory does not depend on the size of the database. Progress is shown on standard error.

    Args:
        query_codes: Codes of the queries: BinaryCodes, or an array or tensor [queries, bits] of ±1, {0, 1} or
            bool.
        database: Folder of shards; the text of this module says what they hold.
        query_labels: Labels of the queries: class ids [queries], or multi-hot [queries, classes].
        k: See `evaluate`, as for the rest.
        radius: In bits.
        denominator: What AP@k divides by.
        no_relevant: What counts for queries without a relevant item in the database.
        graded: Count the labels that two items share, for NDCG@k and ACG@k.
        device: Where pairs are counted: "cpu" or "cuda". Graded counts stay on the CPU.

    Returns:
        The metrics, the same numbers as those of the whole database in memory.

    Raises:
        UsageError: An argument or a shard cannot be used, or does not fit another one.
        HashbenchError: A file cannot be read.
    """
    # Before hours of counting.
    check_type("graded", graded, bool, np.bool_)
    check_choice("device", device, ("cpu", "cuda"))
    settings = check_settings(k, radius, denominator, no_relevant)
    query = query_codes
    if not isinstance(query, BinaryCodes):
        query = BinaryCodes.from_array(query, "query_codes")
    classes = read_labels(query_labels, "query", query)
    shards = _find(as_path(database, "database"), query.bits, classes)
    if graded:
        shared = _sum(shards, query_codes, classes, count_graded_pairs)
        return Evaluation(shared.counts, **settings, graded=shared)
    counts = _sum(shards, query_codes, classes, functools.partial(count_pairs, device=device))
    return Evaluation(counts, **settings)


@dataclass(frozen=True)
class _Shard:
    """Two files of a database, whose headers fit each other."""

    codes: Path
    labels: Path
    form: tuple[np.dtype[Any], tuple[int, ...]]  # of the codes: type, and shape of a row
    rows: int
    row_bytes: int  # of codes and labels together
    packed: int | None  # length of a code in bits, if they are packed


def _find(folder: Path, bits: int, classes: Labels) -> list[_Shard]:
    """The shards of a folder, fit to be compared with queries of so many bits and such labels."""
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
        raise UsageError(f"{folder} has no shards; save each as NAME{_CODES} and NAME{_LABELS}")
    if codes != labels:
        name = min(codes ^ labels)
        there, lacking = (_CODES, _LABELS) if name in codes else (_LABELS, _CODES)
        raise UsageError(f"{folder} has {name}{there} and no {name}{lacking}; a shard is both")
    shards: list[_Shard] = []
    for name in sorted(codes):
        shards.append(_check(folder / f"{name}{_CODES}", folder / f"{name}{_LABELS}", bits, classes))
        first, last = shards[0], shards[-1]
        if last.form != first.form:
            raise UsageError(
                f"{last.codes} holds {_text(last.form)} and {first.codes.name} {_text(first.form)}; "
                "save all shards in one form"
            )
    if not any(shard.rows for shard in shards):
        raise UsageError(f"{folder}: expected at least one code, found none")
    return shards


def _check(codes_path: Path, labels_path: Path, bits: int, classes: Labels) -> _Shard:
    """A shard, from the headers of its files."""
    codes, labels = _open(codes_path), _open(labels_path)
    try:
        packed = is_packed(codes.dtype, codes.shape, bits)
    except UsageError as error:
        raise UsageError(f"{codes_path}: query_codes have {bits} bits: {error}") from None
    try:
        # No row is read: this checks type and number of columns.
        check_comparable(classes, Labels.from_array(labels[:0], "database_labels"))
    except UsageError as error:
        raise UsageError(f"{labels_path}: {error}") from None
    if len(labels) != len(codes):
        raise UsageError(
            f"{labels_path}: expected {len(codes)} rows, as {codes_path.name} has, found {len(labels)}"
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
    """Map a file: nothing but its header is read."""
    try:
        with path.open("rb") as file:
            check_header(file, path.stat().st_size, str(path))
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except HashbenchError:
        raise
    except Exception as error:  # numpy raises a dozen types for damaged headers
        raise HashbenchError(
            f"{path} cannot be read: {reason(error)}; save a plain array with numpy.save"
        ) from error
    if array.ndim == 0:
        raise UsageError(f"{path}: expected an array of n rows, found a single number")
    return array


def _sum(
    shards: Sequence[_Shard],
    query_codes: BinaryCodes | ArrayLike,
    classes: Labels,
    count: Callable[[BinaryCodes, BinaryCodes, Labels, Labels], _Counts],
) -> _Counts:
    """The counts of all shards, which have at least one item; `classes` are the labels of the queries."""
    total: _Counts | None = None
    with progress("counting", sum(shard.rows for shard in shards)) as advance:
        for query, codes, labels in _ahead(_blocks(shards, query_codes)):
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
                numbered = ", which are numbered from 0 here" if start else ""
                where = f"{shard.codes} and its labels, rows {start} to {stop - 1}{numbered}"
                raise UsageError(f"{where}: {error}") from None


def _read(shard: _Shard, rows: slice, query_codes: BinaryCodes | ArrayLike) -> _Block:
    """Some rows of a shard, and the codes of the queries to compare them with.

    Pages of a mapped file count as memory of the process as long as it is mapped, so that each block maps
    its files anew and copies what it needs.
    """
    codes, labels = (np.array(_open(path)[rows], order="C") for path in (shard.codes, shard.labels))
    query, database = read_codes(query_codes, from_packed(codes, shard.packed) if shard.packed else codes)
    return query, database, read_labels(labels, "database", database)


def _ahead(items: Iterator[_Item]) -> Iterator[_Item]:
    """The items, each made by a thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
