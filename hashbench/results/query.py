"""Search for runs in a results folder, and selection of the runs for a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hashbench.config import flatten
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.results.record import RECORD, read_record
from hashbench.results.stored_run import StoredRun, Unfinished, as_set
from hashbench.runtime.files import original
from hashbench.runtime.yaml_values import parse_yaml

_HIDDEN = "."  # first character of the names of folders of unfinished runs


@dataclass(frozen=True)
class RunFilter:
    """Filter for runs; an empty attribute admits all runs.

    Attributes:
        methods: Names of methods.
        datasets: Names of datasets.
        protocols: Names of protocols.
        bits: Code lengths.
        seeds: Random seeds.
        where: Values, as texts, by key of the record or of its configuration.
        unchanged: Admit only runs with all settings of the recipe.
    """

    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    protocols: Sequence[str] = ()
    bits: Sequence[int] = ()
    seeds: Sequence[int] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    unchanged: bool = False

    def admits(self, dataset: str, protocol: str, method: str, bits: int) -> bool:
        """Return True if the filter admits runs with this dataset, protocol, method and code length."""
        parts = (
            (dataset, self.datasets), (protocol, self.protocols), (method, self.methods), (bits, self.bits),
        )  # fmt: skip
        return all(not wanted or value in wanted for value, wanted in parts)

    def unmatched(self, runs: Sequence[StoredRun | Unfinished]) -> list[str]:
        """Describe each requested value that no run has, for example "no run has the method wchh"."""
        asked = {
            "method": self.methods, "dataset": self.datasets, "protocol": self.protocols, "bits": self.bits,
            "seed": self.seeds,
        }  # fmt: skip
        records = [run.record if isinstance(run, StoredRun) else run for run in runs]
        found = {key: {getattr(record, key) for record in records} for key in asked}
        return [
            f"no run has {'the ' if key != 'bits' else ''}{key} {value}"
            for key, values in asked.items()
            for value in values
            if value not in found[key]
        ]


@dataclass(frozen=True)
class FoundRuns:
    """The runs that were found.

    Attributes:
        runs: One run for each seed and configuration, in the order of the filter, else by name.
        labels: The different labels of the runs, by method and then by changed settings.
        unfinished: Matching runs that have no record.
        notes: Remarks for the reader, such as which runs are left out, and why.
    """

    runs: list[StoredRun]
    labels: list[str]
    unfinished: list[Unfinished]
    notes: list[str]


def select(results: Path, wanted: RunFilter, metric: str = "") -> FoundRuns:
    """Find the runs that a filter admits. Only their `record.json` is read.

    If several runs have the same configuration and seed, for example after a change of the code, the newest
    is used. Runs without the metric are left out. Notes report both.

    Raises:
        UsageError: The folder does not exist, no run matches or has the metric, or a key of `where` is
            unknown.
    """
    found, unfinished, notes = find(results, wanted)
    runs = matching(found, wanted)
    if not runs:
        everything, others, _ = find(results, RunFilter())
        why = (
            wanted.unmatched([*everything, *others])[:1]
            or [f"{run.run_id} has not finished" for run in unfinished[:1]]
            or notes[:1]
        )
        raise UsageError("; ".join([f"{results} has no such run", *why, "`hashbench results` lists all"]))
    absent = wanted.unmatched([*found, *unfinished])
    runs, older = _newest(runs)
    runs, unfinished = share_common(runs, unfinished)
    finished = {_label_key(run) for run in runs}
    # Others were finished by another version of the code.
    unfinished = [run for run in unfinished if _label_key(run) not in finished]
    runs, missing = _with_metric(runs, metric)
    runs = sorted(runs, key=lambda run: _order(run, wanted))
    labels = dict.fromkeys(run.label for run in sorted(runs, key=lambda run: _row_order(run, wanted)))
    notes = [*(f"left out: {note}" for note in notes), *absent, *older, *missing, *_mixed_code(runs)]
    return FoundRuns(runs, list(labels), unfinished, notes)


def find(results: Path, wanted: RunFilter) -> tuple[list[StoredRun], list[Unfinished], list[str]]:
    """Find all runs with the datasets, protocols, methods and code lengths of a filter.

    For finished runs, `where`, `seeds` and `unchanged` are ignored; see `matching`. Unfinished runs are left
    out if they do not match `seeds` or `unchanged`, or if `where` is given, because they have no record.

    Returns:
        The finished runs by path, the unfinished runs, and notes on records that cannot be read.

    Raises:
        UsageError: The folder does not exist.
    """
    if not results.is_dir():
        raise UsageError(f"{results} is not a folder; `hashbench run` creates it, or choose --results DIR")
    runs, unfinished, notes = [], [], []
    folders = _folders(results)
    for folder in sorted(folders):
        protocol_folder, method, length = folder.parts[-4:-1]
        dataset, _, protocol = protocol_folder.partition("@")
        if not length[:-3].isdecimal():
            continue
        kind = (dataset, protocol, method, int(length[:-3]))
        if not wanted.admits(*kind):
            continue
        if folder.name.startswith(_HIDDEN):
            run_id = folder.name[1:].partition(".")[0]
            run = Unfinished(*kind, run_id, folder)
            other = bool(
                wanted.where
                or (wanted.seeds and run.seed not in wanted.seeds)
                or (wanted.unchanged and run.changes)
            )
            if not other and folder.parent / run_id not in folders:
                unfinished.append(run)
            continue
        try:
            runs.append(StoredRun(read_record(folder), folder))
        except HashbenchError as error:
            notes.append(str(error))
    return runs, unfinished, notes


def matching(runs: Sequence[StoredRun], wanted: RunFilter) -> list[StoredRun]:
    """Return the runs that match the seeds, settings and values of a filter.

    Raises:
        UsageError: No run has a key of `where`.
    """
    runs = [
        run
        for run in runs
        if (not wanted.seeds or run.record.seed in wanted.seeds)
        and not (wanted.unchanged and run.record.changes != {})
    ]
    if not wanted.where or not runs:
        return runs
    flat = {run.folder: flatten(run.record.model_dump(mode="json")) for run in runs}
    known = {path for one in flat.values() for path in one}
    for key, text in wanted.where.items():
        paths = [path for path in known if path == key or path.endswith(f".{key}")]
        if not paths:
            raise unknown_name("key of a record", key, {*known, *(path.rpartition(".")[2] for path in known)})
        try:
            asked = parse_yaml(text)
        except ValueError:
            asked = text
        runs = [run for run in runs if any(_is(flat[run.folder].get(path), text, asked) for path in paths)]
    return runs


def share_common(
    runs: Sequence[StoredRun], unfinished: Sequence[Unfinished] = ()
) -> tuple[list[StoredRun], list[Unfinished]]:
    """Return the runs with labels that leave out the changed settings that all of them share."""
    every: list[StoredRun | Unfinished] = [*runs, *unfinished]
    known = [run.changes for run in every if run.changes is not None]
    first, *others = known or [{}]
    common = frozenset(p for p, v in first.items() if all(p in other and other[p] == v for other in others))
    common = common if others else frozenset()
    return [replace(run, common=common) for run in runs], [replace(run, common=common) for run in unfinished]


def find_run(results: Path, name: str) -> StoredRun:
    """Find a run by its id or folder.

    Args:
        results: The results folder.
        name: A run id, its beginning or its hash, or the path of a folder.

    Raises:
        UsageError: No run matches, or several do.
    """
    if (Path(name) / RECORD).is_file():
        return StoredRun(read_record(Path(name)), Path(name))
    known = {folder.name: folder for folder in _folders(results) if not folder.name.startswith(_HIDDEN)}
    matches = [n for n in known if n.startswith(name) or n.endswith(f"-{name}")]
    if name in known:
        matches = [name]
    if not matches:
        raise UsageError(f"{results} has no run {name!r}; `hashbench results --results {results}` lists all")
    if len(matches) > 1:
        raise UsageError(f"{name} may be {' or '.join(sorted(matches)[:4])}; enter more of it")
    return StoredRun(read_record(known[matches[0]]), known[matches[0]])


def _folders(results: Path) -> set[Path]:
    """Return the folders of all runs, including one that another process is replacing."""
    return {original(folder) for folder in results.glob("*@*/*/*bit/*") if not folder.is_file()}


def _newest(runs: Iterable[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    newest: dict[tuple[Any, ...], StoredRun] = {}
    notes = []
    for run in sorted(runs, key=lambda run: run.record.created):
        settings = tuple(sorted((path, repr(value)) for path, value in run.settings.items()))
        key = (run.record.split.sha256, run.record.seed, settings)
        if key in newest:
            older = newest[key].record.run_id
            notes.append(f"{older} is left out: {run.record.run_id} has the same settings and is newer")
        newest[key] = run
    return list(newest.values()), notes


def _with_metric(runs: list[StoredRun], metric: str) -> tuple[list[StoredRun], list[str]]:
    found = [run for run in runs if not metric or metric in run.record.metrics]
    if not found:
        known = ", ".join(dict.fromkeys(name for run in runs for name in run.record.metrics))
        raise UsageError(f"no run has {metric}; choose --metric from {known}")
    labels = dict.fromkeys(run.label for run in runs if run not in found)
    return found, [f"{label} is left out where it has no {metric}" for label in labels]


def _mixed_code(runs: Iterable[StoredRun]) -> list[str]:
    """Return a note for each mean over runs of different source code."""
    sources: dict[tuple[str, ...], set[Any]] = {}
    for run in runs:
        record = run.record
        where = run.label, f"{record.dataset}@{record.protocol}", f"{record.bits} bits"
        sources.setdefault(where, set()).add(record.environment.get("source"))
    return [
        f"the seeds of {', '.join(where)} were run by {len(found)} versions of the source code"
        for where, found in sources.items()
        if len(found) > 1
    ]


def _is(value: Any, text: str, asked: Any) -> bool:
    """Return True if a text, whose YAML value is `asked`, stands for a value of a record.

    The value is None, which is null in YAML, if the record has no such key.
    """
    if text in (as_set(value), str(value)):
        return True
    if not isinstance(value, int | float):
        return bool(value == asked)
    if isinstance(value, bool):  # Python treats it as 1 or 0
        return False
    try:
        return float(text) == value  # YAML reads 1e-5 as a text
    except ValueError:
        return False


def _label_key(run: StoredRun | Unfinished) -> tuple[Any, ...]:
    record = run.record if isinstance(run, StoredRun) else run
    return run.label, record.dataset, record.protocol, record.bits, record.seed


def _order(run: StoredRun, wanted: RunFilter) -> tuple[Any, ...]:
    record = run.record
    column = _rank(record.dataset, wanted.datasets), _rank(record.protocol, wanted.protocols)
    return (*column, _row_order(run, wanted), record.bits, record.seed)


def _row_order(run: StoredRun, wanted: RunFilter) -> tuple[Any, ...]:
    record = run.record
    return _rank(record.method, wanted.methods), bool(record.changes), run.label


def _rank(name: str, asked: Sequence[str]) -> tuple[int, str]:
    """Return a key that sorts names in the order of the filter, else by name."""
    return (list(asked).index(name) if asked else 0), name
