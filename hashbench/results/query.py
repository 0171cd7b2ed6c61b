"""Which runs a report is about: found in a folder of records, chosen by the user, one for each seed."""

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

_HIDDEN = "."  # starts the name of the folder of a run that has not ended


@dataclass(frozen=True)
class RunFilter:
    """What a user asks for; an empty part asks for all.

    Attributes:
        methods: Names of methods.
        datasets: Names of datasets.
        protocols: Names of protocols.
        bits: Code lengths.
        seeds: Seeds.
        where: Values, as texts, by a key of the record or of its configuration.
        unchanged: Only runs with the recipe's own settings.
    """

    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    protocols: Sequence[str] = ()
    bits: Sequence[int] = ()
    seeds: Sequence[int] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    unchanged: bool = False

    def admits(self, dataset: str, protocol: str, method: str, bits: int) -> bool:
        """Whether runs of this kind are asked for."""
        parts = (
            (dataset, self.datasets), (protocol, self.protocols), (method, self.methods), (bits, self.bits),
        )  # fmt: skip
        return all(not wanted or value in wanted for value, wanted in parts)

    def without_runs(self, runs: Sequence[StoredRun | Unfinished]) -> list[str]:
        """What of this no run has, one text each, as "no run has the method wchh"."""
        asked = {
            "method": self.methods,
            "dataset": self.datasets,
            "protocol": self.protocols,
            "bits": self.bits,
            "seed": self.seeds,
        }
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
    """What was found.

    Attributes:
        runs: One a seed and configuration, in the order that the user asked in, else by name.
        labels: Labels of the runs, each once, by method and then by what was changed.
        unfinished: Runs of the kind that have no record.
        notes: What a reader should know: what was passed over or is odd, and why.
    """

    runs: list[StoredRun]
    labels: list[str]
    unfinished: list[Unfinished]
    notes: list[str]


def select(results: Path, wanted: RunFilter, metric: str = "") -> FoundRuns:
    """Find the runs that are asked for. Only their `record.json` is read.

    Of several runs with the same configuration and seed, as after a change of the code, the newest counts.
    Runs without the metric are left out. Notes say both.

    Args:
        results: Folder of all records.
        wanted: What is asked for.
        metric: Name of a metric that the runs must have; empty: none.

    Raises:
        UsageError: There is no such folder, no run of the kind, none that has the metric, or a key of `where`
            is unknown.
    """
    found, unfinished, notes = find(results, wanted)
    runs = matching(found, wanted)
    if not runs:
        everything, others, _ = find(results, RunFilter())
        why = (
            wanted.without_runs([*everything, *others])[:1]
            or [f"{run.run_id} has not ended" for run in unfinished[:1]]
            or notes[:1]
        )
        raise UsageError("; ".join([f"{results} has no such run", *why, "`hashbench results` lists all"]))
    absent = wanted.without_runs([*found, *unfinished])
    runs, older = _newest(runs)
    runs, unfinished = share_common(runs, unfinished)
    done = {_identity(run) for run in runs}
    # The others were done by another version of the code.
    unfinished = [run for run in unfinished if _identity(run) not in done]
    runs, lacking = _having(runs, metric)
    runs = sorted(runs, key=lambda run: _order(run, wanted))
    labels = dict.fromkeys(run.label for run in sorted(runs, key=lambda run: _row_order(run, wanted)))
    notes = [*(f"left out: {note}" for note in notes), *absent, *older, *lacking, *_mixed_code(runs)]
    return FoundRuns(runs, list(labels), unfinished, notes)


def find(results: Path, wanted: RunFilter) -> tuple[list[StoredRun], list[Unfinished], list[str]]:
    """All runs of the kinds that are asked for, by path; those that have not ended; notes.

    Of runs that have ended, `where`, `seeds` and `unchanged` are not looked at. Of the others, those of other
    seeds and with changed settings are left out, and all of them if `where` asks for something, since they
    have no record.

    Raises:
        UsageError: There is no such folder.
    """
    if not results.is_dir():
        raise UsageError(f"{results} is no folder; `hashbench run` makes it, or choose --results DIR")
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
    """Those runs that have the seeds, the settings and the values that are asked for.

    Args:
        runs: From `find`.
        wanted: What is asked for.

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
    """The same runs, whose labels leave out what all of them changed alike of their recipes."""
    every: list[StoredRun | Unfinished] = [*runs, *unfinished]
    known = [run.changes for run in every if run.changes is not None]
    first, *others = known or [{}]
    common = frozenset(p for p, v in first.items() if all(p in other and other[p] == v for other in others))
    common = common if others else frozenset()
    return [replace(run, common=common) for run in runs], [replace(run, common=common) for run in unfinished]


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
    known = {folder.name: folder for folder in _folders(results) if not folder.name.startswith(_HIDDEN)}
    matches = [n for n in known if n.startswith(name) or n.endswith(f"-{name}")]
    if name in known:
        matches = [name]
    if not matches:
        raise UsageError(f"{results} has no run {name!r}; `hashbench results --results {results}` lists all")
    if len(matches) > 1:
        raise UsageError(f"{name} may be {' or '.join(sorted(matches)[:4])}; give more of it")
    return StoredRun(read_record(known[matches[0]]), known[matches[0]])


def _folders(results: Path) -> set[Path]:
    """Return the folders of all runs, each once, even of one that is replaced at this moment."""
    return {original(folder) for folder in results.glob("*@*/*/*bit/*") if not folder.is_file()}


def _newest(runs: Iterable[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    newest: dict[tuple[Any, ...], StoredRun] = {}
    notes = []
    for run in sorted(runs, key=lambda run: run.record.created):
        settings = tuple(sorted((path, repr(value)) for path, value in run.settings.items()))
        key = (run.record.split.sha256, run.record.seed, settings)
        if key in newest:
            older = newest[key].record.run_id
            notes.append(f"{older} is left out: {run.record.run_id}, of the same settings, is newer")
        newest[key] = run
    return list(newest.values()), notes


def _having(runs: list[StoredRun], metric: str) -> tuple[list[StoredRun], list[str]]:
    having = [run for run in runs if not metric or metric in run.record.metrics]
    if not having:
        known = ", ".join(dict.fromkeys(name for run in runs for name in run.record.metrics))
        raise UsageError(f"no run has {metric}; choose --metric from {known}")
    labels = dict.fromkeys(run.label for run in runs if run not in having)
    return having, [f"{label} is left out where it has no {metric}" for label in labels]


def _mixed_code(runs: Iterable[StoredRun]) -> list[str]:
    """A note for each mean that is taken over runs of different source code."""
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
    """Whether a text, in YAML `asked`, stands for a value of a record; nothing there is null."""
    if text in (as_set(value), str(value)):
        return True
    if not isinstance(value, int | float):
        return bool(value == asked)
    if isinstance(value, bool):  # which is 1 or 0 to Python
        return False
    try:
        return float(text) == value  # YAML takes 1e-5 for a text
    except ValueError:
        return False


def _identity(run: StoredRun | Unfinished) -> tuple[Any, ...]:
    what = run.record if isinstance(run, StoredRun) else run
    return run.label, what.dataset, what.protocol, what.bits, what.seed


def _order(run: StoredRun, wanted: RunFilter) -> tuple[Any, ...]:
    record = run.record
    place = _place(record.dataset, wanted.datasets), _place(record.protocol, wanted.protocols)
    return (*place, _row_order(run, wanted), record.bits, record.seed)


def _row_order(run: StoredRun, wanted: RunFilter) -> tuple[Any, ...]:
    record = run.record
    return _place(record.method, wanted.methods), bool(record.changes), run.label


def _place(name: str, asked: Sequence[str]) -> tuple[int, str]:
    """As the user asked, else by name."""
    return (list(asked).index(name) if asked else 0), name
