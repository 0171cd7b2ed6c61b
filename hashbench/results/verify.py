"""Whether a run is what its record says: its place, its files, and all that can be computed again."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hashbench.config import flatten
from hashbench.data.protocol import fingerprint, overlaps
from hashbench.errors import LONGEST, HashbenchError, quoted
from hashbench.evaluation import VERSION, Evaluation, code_health
from hashbench.results.record import (
    CODES,
    FILES,
    LOG,
    MODEL,
    QUERIES,
    RECORD,
    Record,
    checksum,
    run_folder,
    run_id_of,
    run_identity,
)
from hashbench.results.stored_run import StoredRun
from hashbench.runtime.environment import recorded_versions
from hashbench.runtime.files import sha256_of
from hashbench.runtime.json_files import read_json

LATER = "metrics.mAP@H<="  # not measured by the first versions
OPTIONAL = {"codes": CODES, "log": LOG, "weights": MODEL}
"""Those of them that an export may leave out, by the name that a user gives."""

TOLERANCE = 1e-12  # another version of NumPy or Numba may add in another order


@dataclass
class Checked:
    """What was found out about a run.

    Attributes:
        run: The run.
        problems: What is wrong; empty if nothing was found.
        unverified: What could not be checked, though figures or the record's content rest on it.
        remarks: What else a reader should know.
    """

    run: StoredRun
    problems: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """All that is said beside problems."""
        return [*self.unverified, *self.remarks]

    @property
    def status(self) -> Literal["passed", "not verified", "failed"]:
        """The result in a word or two."""
        if self.problems:
            return "failed"
        return "not verified" if self.unverified else "passed"


def place(run: StoredRun) -> Path:
    """Where a run is below the folder of all records."""
    folder = Path(os.path.abspath(run.folder))  # noqa: PTH100 - resolve() would follow links
    return Path(*folder.parts[-4:])


def check_files(run: StoredRun) -> Checked:
    """Check place, record and files of a run.

    The record must have its checksum and the run id that its content gives, and must not contradict itself;
    the files must have the hashes that it names.
    """
    return _check_files(run, _wrong_files(run))


def _check_files(run: StoredRun, wrong: dict[str, str]) -> Checked:
    checked = Checked(run, [*_misplaced(run), *_inconsistencies(run.record)])
    _check_content(checked)
    checked.problems.extend(wrong.values())
    if run.record.files is None:
        checked.unverified.append("the hashes of its files are not recorded")
    elif absent := [name for name in FILES if name in run.record.files and not (run.folder / name).is_file()]:
        checked.remarks.append(f"not there: {', '.join(absent)}")
    return checked


def check_figures(run: StoredRun) -> Checked:
    """Check what `check_files` does, and compute again what the files give.

    Figures are computed by evaluating the codes, and by AP of the queries; the split by ids and labels.
    Figures of an older version of the evaluator may differ, and are not verified; a newer version is a
    problem. Curves, log and weights are checked by their hashes alone.
    """
    wrong = _wrong_files(run)
    checked = _check_files(run, wrong)
    differences = checked.problems
    if run.record.evaluator > VERSION:
        checked.problems.append(
            f"measured by evaluator {run.record.evaluator}, but the newest is {VERSION}; update hashbench"
        )
    elif run.record.evaluator < VERSION:
        differences = checked.unverified
        differences.append(f"measured by evaluator {run.record.evaluator}; installed is evaluator {VERSION}")
    queries = (run.folder / QUERIES).is_file() and QUERIES not in wrong
    try:
        if queries:
            differences += _mean_differences(run)
        if not (run.folder / CODES).is_file():
            what = "only mAP is checked, by AP of the queries" if queries else "no figure is checked"
            checked.unverified.append(f"its codes are not there, so that {what}")
        elif CODES in wrong:
            checked.unverified.append("its figures are not checked, since its codes have changed")
        else:
            evaluation = run.evaluate()
            differences += _differences(run, evaluation)
            if queries:
                differences += _query_differences(run, evaluation)
            if run.record.sha256 is not None:
                checked.problems += _split_differences(run)
    except HashbenchError as error:
        checked.problems.append(str(error))
    return checked


def _misplaced(run: StoredRun) -> list[str]:
    record, lies = run.record, place(run)
    belongs = run_folder(Path(), record.dataset, record.protocol, record.method, record.bits, record.run_id)
    return [] if lies == belongs else [f"it is in {lies}; by its record it belongs in {belongs}"]


def _inconsistencies(record: Record) -> list[str]:
    """Return what in a record contradicts itself."""
    config = flatten(record.config)
    found = [
        f"{key} is {quoted(getattr(record, key))} in the record and {quoted(config.get(key))} in its config"
        for key in ("method", "dataset", "protocol", "bits", "seed")
        if config.get(key) != getattr(record, key)
    ]
    found += [
        f"{path[:LONGEST]} is {quoted(value)} in its changes and {quoted(config.get(path))} in its config"
        for path, value in (record.changes or {}).items()
        if config.get(path) != value
    ]
    return found + [
        f"metrics.{name}.expected is {metric.expected}, not within {metric.lowest} and {metric.highest}"
        for name, metric in record.metrics.items()
        if not metric.lowest - TOLERANCE <= metric.expected <= metric.highest + TOLERANCE
    ]


def _check_content(checked: Checked) -> None:
    """Compute the record's checksum and the run id from the content of `record.json`, as it lies there."""
    record, path = checked.run.record, checked.run.folder / RECORD
    content = read_json(path)
    if record.sha256 is None:
        checked.unverified.append(
            f"records of version {content['schema_version']} have no checksum: what neither files nor run id "
            "cover may have been changed"
        )
    elif record.sha256 != checksum(content):
        checked.problems.append(f"{RECORD} has changed since it was written: its content has another SHA-256")
    split, environment = content["split"], content["environment"]
    try:
        found = run_id_of(
            run_identity(
                content["config"],
                split["sha256"],
                split.get("validation"),
                environment["source"],
                recorded_versions(environment),
            )
        )
    except (AttributeError, KeyError, TypeError) as error:
        checked.problems.append(f"its run id cannot be computed from its config and environment ({error!r})")
        return
    if found == record.run_id:
        return
    if record.sha256 is None and flatten(record.config).get("selection.name") == "best-val":
        checked.unverified.append(
            f"its run id is not verified: records of version {content['schema_version']} do not hold the "
            "fingerprint of validation images"
        )
    else:
        found = found[:LONGEST]
        checked.problems.append(
            f"its run id is {record.run_id}; its config, split, source code and versions give {found}"
        )


def _wrong_files(run: StoredRun) -> dict[str, str]:
    """Return what is wrong with files, by name."""
    recorded = run.record.files
    if recorded is None:
        return {}
    wrong = {name: f"{name!r} is no file of a run" for name in recorded if name not in FILES}
    for name in FILES:
        path = run.folder / name
        if name not in recorded:
            if path.exists() or name not in OPTIONAL.values():
                wrong[name] = f"{name} is not in the record"
        elif not path.is_file():
            if name not in OPTIONAL.values():
                wrong[name] = f"{name} is missing"
        elif problem := _changed(path, recorded[name]):
            wrong[name] = problem
    return wrong


def _changed(path: Path, sha256: str) -> str | None:
    try:
        return (
            None
            if sha256_of(path) == sha256
            else f"{path.name} has changed since it was recorded"
        )
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def _differences(run: StoredRun, evaluation: Evaluation) -> list[str]:
    """Figures of the record that its codes do not give."""
    _, database, *_ = run.codes()
    record = run.record.model_dump(include={"metrics", "queries_without_relevant", "health", "bits"})
    recorded = flatten({**record, "query": run.record.split.query, "database": run.record.split.database})
    evaluated = evaluation.to_dict()
    settings = evaluated["settings"]
    anew = flatten(
        {
            "metrics": evaluated["metrics"],
            "queries_without_relevant": settings["queries_without_relevant"],
            "health": code_health(database, evaluation).model_dump(),
            "bits": settings["bits"],
            "query": settings["queries"],
            "database": settings["database"],
        }
    )
    return [
        f"{path} is recorded as {recorded.get(path)}; the codes give {anew.get(path)}"
        for path in {**recorded, **anew}
        if not (
            _equal(recorded.get(path), anew.get(path)) or (path.startswith(LATER) and path not in recorded)
        )
    ]


def _equal(recorded: Any, anew: Any) -> bool:
    if isinstance(recorded, float) and isinstance(anew, float):
        return abs(recorded - anew) <= TOLERANCE
    return bool(recorded == anew)


def _mean_differences(run: StoredRun) -> list[str]:
    """Recorded mAP that is not the mean of the stored AP."""
    found = []
    for name, metric in run.record.metrics.items():
        values = run.average_precisions(name)
        if values is not None and not _equal(metric.expected, mean := float(np.nanmean(values))):
            found.append(f"metrics.{name}.expected is recorded as {metric.expected}; {QUERIES} gives {mean}")
    return found


def _split_differences(run: StoredRun) -> list[str]:
    """Return what the record says of the split otherwise than ids and labels give it."""
    parts = {name: run.part(name) for name in ("train", "query", "database")}
    split, config = run.record.split, flatten(run.record.config)
    held_out = 0
    if config.get("selection.name") == "best-val" and split.validation is None:
        held_out = config.get("selection.validation", 0)
    shared = overlaps(*(ids for ids, _ in parts.values()))
    recorded = {"sha256": split.sha256, "train": split.train, "overlaps": asdict(split.overlaps)}
    try:
        anew = {
            "sha256": fingerprint(**parts),
            "train": len(parts["train"][0]) - held_out,
            "overlaps": asdict(shared),
        }
    except (TypeError, ValueError) as error:
        return [f"ids and labels in {CODES} are not those of a split ({error})"]
    return [
        f"split.{key} is recorded as {recorded[key]}; {CODES} gives {anew[key]}"
        for key in recorded
        if recorded[key] != anew[key]
    ]


def _query_differences(run: StoredRun, evaluation: Evaluation) -> list[str]:
    """AP of queries that are stored otherwise than the codes give them."""
    found = []
    for k in evaluation.k:
        stored = run.average_precisions(f"mAP@{k}")
        anew = np.where(evaluation.counted, evaluation.average_precision(k), np.nan)
        if stored is None or stored.shape != anew.shape:
            found.append(f"{QUERIES} has AP@{k} of other queries than {CODES}")
        elif not np.allclose(stored, anew, rtol=0, atol=TOLERANCE, equal_nan=True):
            found.append(f"{QUERIES} has another AP@{k} than the codes give")
    if run.query_ids() != run.part("query")[0]:
        found.append(f"{QUERIES} has other ids of queries than {CODES}")
    return found
