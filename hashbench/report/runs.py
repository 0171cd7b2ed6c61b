"""Which runs a report is about: found in a folder of records, chosen by the user, one for each seed."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hashbench.codes import Codes
from hashbench.config import flatten
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.evaluation import Evaluation, evaluate
from hashbench.evaluation.files import load_codes
from hashbench.results import CODES, QUERIES, RECORD, Record, read_record

_HIDDEN = "."  # starts the name of the folder of a run that has not ended


@dataclass(frozen=True)
class StoredRun:
    """A run that has a record.

    Attributes:
        record: Its record.
        folder: Where it is.
    """

    record: Record
    folder: Path

    @cached_property
    def label(self) -> str:
        """The method and what was changed of its recipe, as in `wch (balance=false)`."""
        return text_of(self.record.method, self.record.changes)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The whole configuration but for the seed, by dotted path."""
        return {path: value for path, value in flatten(self.record.config).items() if path != "seed"}

    def average_precisions(self, metric: str) -> NDArray[np.float64] | None:
        """AP of each query behind a mAP, float64 [queries]; NaN for a query that the mean leaves out.

        Args:
            metric: As in "mAP@1000"; None comes back for a metric of another kind, and if neither the values
                nor the codes are there.
        """
        kind, _, k = metric.partition("@")
        if kind != "mAP":
            return None
        path = self.folder / QUERIES
        if path.is_file():
            return np.asarray(_array(path, f"AP@{k}"), np.float64)
        if not (self.folder / CODES).is_file():
            return None
        evaluation = self.evaluate()
        values = evaluation.average_precision("all" if k == "all" else int(k))
        return np.where(evaluation.counted, values, np.nan)

    def query_ids(self) -> list[str]:
        """Ids of the queries, in the order of their values.

        Raises:
            HashbenchError: Neither the values nor the codes are there.
        """
        for path in (self.folder / QUERIES, self.folder / CODES):
            if path.is_file():
                return [str(name) for name in _array(path, "query_ids")]
        raise HashbenchError(f"{self.folder} has neither {QUERIES} nor {CODES}; run it again with --force")

    def evaluate(self) -> Evaluation:
        """Evaluate the stored codes anew, as the run did.

        Raises:
            HashbenchError: The codes are not there or cannot be read.
        """
        return evaluate(*self.codes(), **self.record.config["evaluation"])

    def codes(
        self,
    ) -> tuple[Codes | NDArray[Any], Codes | NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Codes of queries and database, then their labels: the arguments of `hashbench.evaluate`.

        Raises:
            HashbenchError: They are not there or cannot be read.
        """
        path = self.folder / CODES
        if not path.is_file():
            raise HashbenchError(f"{path} is not there: the record came without codes; run it again")
        return load_codes(path)


@dataclass(frozen=True)
class Unfinished:
    """A run that has not ended: it failed, was stopped, or still goes on.

    Attributes:
        dataset: As in a record.
        protocol: As in a record.
        method: As in a record.
        bits: As in a record.
        run_id: As in a record.
        folder: Where its log is.
    """

    dataset: str
    protocol: str
    method: str
    bits: int
    run_id: str
    folder: Path

    @property
    def seed(self) -> int | None:
        """The seed, as the run id has it."""
        found = re.search(r"-seed(\d+)-", self.run_id)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class Selection:
    """What a user asks for; an empty part asks for all.

    Attributes:
        methods: Names of methods.
        datasets: Names of datasets.
        protocols: Names of protocols.
        bits: Code lengths.
        seeds: Seeds.
        where: Values by a key of the record or of its configuration.
        unchanged: Only runs with the recipe's own settings.
    """

    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    protocols: Sequence[str] = ()
    bits: Sequence[int] = ()
    seeds: Sequence[int] = ()
    where: dict[str, Any] = field(default_factory=dict)
    unchanged: bool = False

    def admits(self, dataset: str, protocol: str, method: str, bits: int) -> bool:
        """Whether runs of this kind are asked for."""
        parts = (
            (dataset, self.datasets), (protocol, self.protocols), (method, self.methods), (bits, self.bits),
        )  # fmt: skip
        return all(not wanted or value in wanted for value, wanted in parts)


@dataclass(frozen=True)
class Selected:
    """What was found.

    Attributes:
        runs: One a seed and configuration, in the order that the user asked in, else by name.
        labels: Labels of the runs, each once, by method and then by what was changed.
        unfinished: Runs of the kind that have no record.
        notes: What a reader should know: records that were passed over, and why.
    """

    runs: list[StoredRun]
    labels: list[str]
    unfinished: list[Unfinished]
    notes: list[str]


def select(results: Path, wanted: Selection) -> Selected:
    """Find the runs that are asked for. Only their `record.json` is read.

    Of several runs with the same configuration and seed, as after a change of the code, the newest counts,
    and a note says so.

    Args:
        results: Folder of all records.
        wanted: What is asked for.

    Raises:
        UsageError: There is no run of the kind, or a key of `where` is unknown.
    """
    found, unfinished, notes = find(results, wanted)
    runs = matching(found, wanted)
    if not runs:
        ended = f"; {unfinished[0].run_id} has not ended" if unfinished else ""
        raise UsageError(f"{results} has no such run{ended}; `hashbench results` lists what it has")
    newest: dict[tuple[Any, ...], StoredRun] = {}
    for run in sorted(runs, key=lambda run: run.record.created):
        record = run.record
        key = (record.split.sha256, record.bits, record.seed, _frozen(run.settings))
        if key in newest:
            notes.append(
                f"{newest[key].record.run_id} is left out: {record.run_id}, of the same settings, is newer"
            )
        newest[key] = run
    chosen = sorted(newest.values(), key=lambda run: _order(run, wanted))
    labels = dict.fromkeys(run.label for run in sorted(chosen, key=lambda run: _row_order(run, wanted)))
    return Selected(chosen, list(labels), unfinished, notes)


def find(results: Path, wanted: Selection) -> tuple[list[StoredRun], list[Unfinished], list[str]]:
    """All runs of the kinds that are asked for, by path; those that have not ended; notes.

    Of runs that have ended, `where`, `seeds` and `unchanged` are not looked at. Settings of the others are not
    known: those of other seeds are left out, and all of them if `where` asks for something.

    Raises:
        HashbenchError: There is no such folder.
    """
    if not results.is_dir():
        raise HashbenchError(f"{results} is no folder; `hashbench run` makes it, or choose --results DIR")
    runs, unfinished, notes = [], [], []
    for folder in sorted(results.glob("*@*/*/*bit/*")):
        protocol_folder, method, length = folder.parts[-4:-1]
        dataset, _, protocol = protocol_folder.partition("@")
        if not folder.is_dir() or not length[:-3].isdecimal():
            continue
        kind = (dataset, protocol, method, int(length[:-3]))
        if not wanted.admits(*kind):
            continue
        if folder.name.startswith(_HIDDEN):
            run_id = folder.name[1:].partition(".")[0]
            run = Unfinished(*kind, run_id, folder)
            other = wanted.where or (wanted.seeds and run.seed not in wanted.seeds)
            if not other and not (folder.parent / run_id / RECORD).is_file():
                unfinished.append(run)
            continue
        try:
            runs.append(StoredRun(read_record(folder), folder))
        except HashbenchError as error:
            notes.append(f"left out: {error}")
    return runs, unfinished, notes


def text_of(method: str, changes: dict[str, Any]) -> str:
    """A method and what was changed of its recipe, as in `wch (balance=false)`."""
    changed = ", ".join(f"{_short(path)}={_text(value)}" for path, value in changes.items())
    return f"{method} ({changed})" if changed else method


def find_run(results: Path, name: str) -> StoredRun:
    """The run of that id or folder.

    Args:
        results: Folder of all records.
        name: A run id, the beginning of one, its hash, or the path of its folder.

    Raises:
        UsageError: There is none, or several.
    """
    if (Path(name) / RECORD).is_file():
        return StoredRun(read_record(Path(name)), Path(name))
    folders = [path.parent for path in results.glob(f"*@*/*/*bit/*/{RECORD}")]
    known = {folder.name: folder for folder in folders if not folder.name.startswith(_HIDDEN)}
    matches = [n for n in known if n.startswith(name) or n.endswith(f"-{name}")]
    if name in known:
        matches = [name]
    if not matches:
        raise unknown_name("run", name, known)
    if len(matches) > 1:
        raise UsageError(f"{name} may be {' or '.join(sorted(matches)[:4])}; give more of it")
    return StoredRun(read_record(known[matches[0]]), known[matches[0]])


def differing(runs: Iterable[StoredRun]) -> dict[str, list[Any]]:
    """Settings in which runs differ but for the seed: their values, each once, by dotted path."""
    settings = [run.settings for run in runs]
    paths = dict.fromkeys(path for one in settings for path in one)
    values = {path: _unique([one.get(path) for one in settings]) for path in paths}
    return {path: several for path, several in values.items() if len(several) > 1}


def matching(runs: list[StoredRun], wanted: Selection) -> list[StoredRun]:
    """Those of some runs that have the seeds, values and recipe that are asked for.

    Raises:
        UsageError: A key of `where` is unknown.
    """
    runs = [
        run
        for run in runs
        if (not wanted.seeds or run.record.seed in wanted.seeds)
        and not (wanted.unchanged and run.record.changes)
    ]
    if not wanted.where or not runs:
        return runs
    flat = [flatten(run.record.model_dump(mode="json")) for run in runs]
    known = {path for one in flat for path in one}
    for key, value in wanted.where.items():
        paths = [path for path in known if path == key or path.endswith(f".{key}")]
        if not paths:
            raise unknown_name("key of a record", key, {*known, *(path.rpartition(".")[2] for path in known)})
        kept = [any(path in one and one[path] == value for path in paths) for one in flat]
        runs = [run for run, keep in zip(runs, kept, strict=True) if keep]
        flat = [one for one, keep in zip(flat, kept, strict=True) if keep]
    return runs


def _array(path: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            array: NDArray[Any] = file[name]
            return array
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise HashbenchError(
            f"{path} cannot be read ({error}); `hashbench results verify` names what is damaged"
        ) from error


def _order(run: StoredRun, wanted: Selection) -> tuple[Any, ...]:
    record = run.record
    place = _place(record.dataset, wanted.datasets), _place(record.protocol, wanted.protocols)
    return (*place, _row_order(run, wanted), record.bits, record.seed)


def _row_order(run: StoredRun, wanted: Selection) -> tuple[Any, ...]:
    record = run.record
    return _place(record.method, wanted.methods), bool(record.changes), run.label


def _place(name: str, asked: Sequence[str]) -> tuple[int, str]:
    """As the user asked, else by name."""
    return (list(asked).index(name) if asked else 0), name


def _short(path: str) -> str:
    return path.rpartition(".")[2] if path.startswith(("hyperparameters.", "training.")) else path


def _text(value: Any) -> str:
    """A value as `--set` takes it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _unique(values: list[Any]) -> list[Any]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _frozen(settings: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((path, repr(value)) for path, value in settings.items()))
