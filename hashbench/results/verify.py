"""Verification of runs against their records: paths, files and all figures that can be recomputed."""

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

LATER = "metrics.mAP@H<="  # older versions did not measure it
OPTIONAL = {"codes": CODES, "log": LOG, "weights": MODEL}
"""Files that an export may leave out, by the name that a user gives."""

TOLERANCE = 1e-12  # other versions of NumPy or Numba may sum in another order


@dataclass
class Checked:
    """The result of verifying a run.

    Attributes:
        run: The run.
        problems: Everything that is wrong.
        unverified: What could not be checked, but matters for the figures or the content of the record.
        remarks: Other remarks.
    """

    run: StoredRun
    problems: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Everything except the problems."""
        return [*self.unverified, *self.remarks]

    @property
    def status(self) -> Literal["passed", "not verified", "failed"]:
        """The result in one or two words."""
        if self.problems:
            return "failed"
        return "not verified" if self.unverified else "passed"


def relative_folder(run: StoredRun) -> Path:
    """Return the folder of a run relative to the results folder."""
    folder = Path(os.path.abspath(run.folder))  # noqa: PTH100 - resolve() would follow links
    return Path(*folder.parts[-4:])


def check_files(run: StoredRun, wrong: dict[str, str] | None = None) -> Checked:
    """Check the path, the record and the files of a run.

    The record must be consistent and have the right checksum and run id. The files must have the recorded
    hashes; `wrong` has the problems with them, if they are known.
    """
    checked = Checked(run, [*_misplaced(run), *_inconsistencies(run.record)])
    _check_content(checked)
    checked.problems.extend((_wrong_files(run) if wrong is None else wrong).values())
    if run.record.files is None:
        checked.unverified.append("the hashes of its files are not recorded")
    elif absent := [name for name in FILES if name in run.record.files and not (run.folder / name).is_file()]:
        checked.remarks.append(f"left out: {', '.join(absent)}")
    return checked


def check_figures(run: StoredRun) -> Checked:
    """Check what `check_files` does, and recompute everything that the files determine.

    Figures are recomputed from the codes and from the AP of the queries, and the split from ids and labels.
    Figures of an older version of the evaluator may differ and are not verified; a newer version is a
    problem. Only the hashes of curves, log and weights are checked.
    """
    wrong = _wrong_files(run)
    checked = check_files(run, wrong)
    differences = checked.problems
    versions = f"measured by evaluator {run.record.evaluator}; evaluator {VERSION} is installed"
    if run.record.evaluator > VERSION:
        checked.problems.append(f"{versions}; update hashbench")
    elif run.record.evaluator < VERSION:
        differences = checked.unverified
        differences.append(versions)
    queries = (run.folder / QUERIES).is_file() and QUERIES not in wrong
    try:
        if queries:
            differences += _mean_differences(run)
        if not (run.folder / CODES).is_file():
            what = "only mAP is checked, with the AP of the queries" if queries else "no figure is checked"
            checked.unverified.append(f"its codes are missing, so {what}")
        elif CODES in wrong:
            checked.unverified.append("its figures are not checked, because its codes have changed")
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
    record, actual = run.record, relative_folder(run)
    expected = run_folder(Path(), record.dataset, record.protocol, record.method, record.bits, record.run_id)
    problem = f"it is in {actual}; according to its record, it belongs in {expected}"
    return [problem] if actual != expected else []


def _inconsistencies(record: Record) -> list[str]:
    """Describe the contradictions in a record."""
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
        f"metrics.{name}.expected is {metric.expected}, not between {metric.lowest} and {metric.highest}"
        for name, metric in record.metrics.items()
        if not metric.lowest - TOLERANCE <= metric.expected <= metric.highest + TOLERANCE
    ]


def _check_content(checked: Checked) -> None:
    """Recompute the checksum and the run id from the content of `record.json`."""
    record, path = checked.run.record, checked.run.folder / RECORD
    content = read_json(path)
    if record.sha256 is None:
        checked.unverified.append(
            f"records of version {content['schema_version']} have no checksum, so changes that affect "
            "neither the files nor the run id cannot be detected"
        )
    elif record.sha256 != checksum(content):
        checked.problems.append(f"{RECORD} has changed since it was written: its SHA-256 differs")
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
            f"its run id is not verified: records of version {content['schema_version']} do not contain "
            "the fingerprint of the validation images"
        )
    else:
        found = found[:LONGEST]
        checked.problems.append(
            f"its run id is {record.run_id}; its config, split, source code and versions give {found}"
        )


def _wrong_files(run: StoredRun) -> dict[str, str]:
    """Return the problems with files, by name of the file."""
    recorded = run.record.files
    if recorded is None:
        return {}
    wrong = {name: f"{name!r} is not a file of a run" for name in recorded if name not in FILES}
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
        return None if sha256_of(path) == sha256 else f"{path.name} has changed since it was recorded"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def _differences(run: StoredRun, evaluation: Evaluation) -> list[str]:
    """Describe the figures of a record that differ from those of its codes."""
    _, database = run.codes()
    record = run.record.model_dump(include={"metrics", "queries_without_relevant", "health", "bits"})
    recorded = flatten({**record, "query": run.record.split.query, "database": run.record.split.database})
    evaluated = evaluation.to_dict()
    settings = evaluated["settings"]
    recomputed = flatten(
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
        f"{path} is recorded as {recorded.get(path)}; the codes give {recomputed.get(path)}"
        for path in {**recorded, **recomputed}
        if not (
            _equal(recorded.get(path), recomputed.get(path))
            or (path.startswith(LATER) and path not in recorded)
        )
    ]


def _equal(recorded: Any, recomputed: Any) -> bool:
    if isinstance(recorded, float) and isinstance(recomputed, float):
        return abs(recorded - recomputed) <= TOLERANCE
    return bool(recorded == recomputed)


def _mean_differences(run: StoredRun) -> list[str]:
    """Describe the recorded mAPs that differ from the mean of the stored AP."""
    found = []
    for name, metric in run.record.metrics.items():
        values = run.average_precisions(name)
        if values is not None and not _equal(metric.expected, mean := float(np.nanmean(values))):
            found.append(f"metrics.{name}.expected is recorded as {metric.expected}; {QUERIES} gives {mean}")
    return found


def _split_differences(run: StoredRun) -> list[str]:
    """Describe how the recorded split differs from that of the stored ids and labels."""
    parts = {name: run.part(name) for name in ("train", "query", "database")}
    split, config = run.record.split, flatten(run.record.config)
    held_out = 0
    if config.get("selection.name") == "best-val" and split.validation is None:
        held_out = config.get("selection.validation", 0)
    train = len(parts["train"][0]) - held_out
    shared = overlaps(*(ids for ids, _ in parts.values()))
    recorded = {"sha256": split.sha256, "train": split.train, "overlaps": asdict(split.overlaps)}
    try:
        recomputed = {
            "sha256": fingerprint(**parts),
            "train": min(train, config.get("training.max_images") or train),
            "overlaps": asdict(shared),
        }
    except (TypeError, ValueError) as error:
        return [f"the ids and labels in {CODES} are not valid ({error})"]
    return [
        f"split.{key} is recorded as {recorded[key]}; {CODES} gives {recomputed[key]}"
        for key in recorded
        if recorded[key] != recomputed[key]
    ]


def _query_differences(run: StoredRun, evaluation: Evaluation) -> list[str]:
    """Describe how the stored AP of the queries differs from that of the codes."""
    found = []
    for k in evaluation.k:
        stored = run.average_precisions(f"mAP@{k}")
        recomputed = np.where(evaluation.counted, evaluation.average_precision(k), np.nan)
        if stored is None or stored.shape != recomputed.shape:
            found.append(f"AP@{k} in {QUERIES} is missing, or that of other queries than those in {CODES}")
        elif not np.allclose(stored, recomputed, rtol=0, atol=TOLERANCE, equal_nan=True):
            found.append(f"AP@{k} in {QUERIES} differs from that of the codes")
    if run.query_ids() != run.part("query")[0]:
        found.append(f"the ids of the queries in {QUERIES} differ from those in {CODES}")
    return found
