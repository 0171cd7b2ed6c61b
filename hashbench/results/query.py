"""Search for runs in a results folder, by filter or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashbench.config import flatten
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.results.expected import ExpectedRuns
from hashbench.results.record import RECORD, read_record
from hashbench.results.stored_run import StoredRun, Unfinished
from hashbench.runtime.files import dataset_of, original
from hashbench.runtime.yaml_values import as_set, parse_yaml

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
        backbones: Names of backbones.
        where: Values, as texts, by key of the record or of its configuration.
        unchanged: Admit only runs with all settings of the recipe.
        rename: New names of configurations in a report, by name; they filter nothing.
        expected: Admit only these runs of an experiment; None: all.
    """

    methods: Sequence[str] = ()
    datasets: Sequence[str] = ()
    protocols: Sequence[str] = ()
    bits: Sequence[int] = ()
    seeds: Sequence[int] = ()
    backbones: Sequence[str] = ()
    where: Mapping[str, str] = field(default_factory=dict)
    unchanged: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)
    expected: ExpectedRuns | None = None

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
            "seed": self.seeds, "backbone": self.backbones,
        }  # fmt: skip
        records = [run.record if isinstance(run, StoredRun) else run for run in runs]
        found = {key: {getattr(record, key, None) for record in records} for key in asked}
        found["backbone"] = {_backbone(run) for run in runs if isinstance(run, StoredRun)}
        return [
            f"no run has {'the ' if key != 'bits' else ''}{key} {value}"
            for key, values in asked.items()
            for value in values
            if value not in found[key]
        ]


def find(results: Path, wanted: RunFilter) -> tuple[list[StoredRun], list[Unfinished], list[str]]:
    """Find all runs with the datasets, protocols, methods and code lengths of a filter.

    For finished runs, `where`, `seeds` and `unchanged` are ignored; see `matching`. Unfinished runs are left
    out if they do not match `seeds` or `unchanged`, or if `where`, `backbones` or `expected` is given,
    because they have no record.

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
        kind = (dataset_of(dataset), protocol, method, int(length[:-3]))
        if not wanted.admits(*kind):
            continue
        if folder.name.startswith(_HIDDEN):
            run_id = folder.name[1:].partition(".")[0]
            run = Unfinished(*kind, run_id, folder)
            other = bool(
                wanted.where
                or wanted.backbones
                or wanted.expected
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
        and (not wanted.backbones or _backbone(run) in wanted.backbones)
        and not (wanted.unchanged and run.record.changes != {})
        and (wanted.expected is None or wanted.expected.includes(run.record))
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


def find_run(results: Path, name: str) -> StoredRun:
    """Find a run by its id or folder.

    Args:
        results: The results folder.
        name: A run id, its beginning or its hash, or the path of a folder.

    Raises:
        UsageError: No run matches, or several do.
    """
    folder = find_folder(results, name)
    return StoredRun(read_record(folder), folder)


def find_folder(results: Path, name: str) -> Path:
    """Find the folder of a run as `find_run` does, but without reading its record."""
    if (Path(name) / RECORD).is_file():
        return Path(name)
    known = {folder.name: folder for folder in _folders(results) if not folder.name.startswith(_HIDDEN)}
    matches = [n for n in known if n.startswith(name) or n.endswith(f"-{name}")]
    if name in known:
        matches = [name]
    if not matches:
        raise UsageError(f"{results} has no run {name!r}; `hashbench results --results {results}` lists all")
    if len(matches) > 1:
        raise UsageError(f"{name} may be {' or '.join(sorted(matches)[:4])}; enter more of it")
    return known[matches[0]]


def _folders(results: Path) -> set[Path]:
    """Return the folders of all runs, including one that another process is replacing."""
    return {original(folder) for folder in results.glob("*@*/*/*bit/*") if not folder.is_file()}


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


def _backbone(run: StoredRun) -> str:
    name: str = run.record.config["backbone"]["name"]
    return name
