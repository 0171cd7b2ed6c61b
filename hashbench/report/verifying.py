"""Whether a run is what its record says: its place, its files, and its figures from its codes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hashbench.config import flatten
from hashbench.download import file_digest
from hashbench.errors import HashbenchError
from hashbench.evaluation import VERSION, Evaluation, code_health
from hashbench.report.runs import StoredRun
from hashbench.results import CODES, FILES, LOG, MODEL, QUERIES, run_folder

LATER = "metrics.mAP@H<="  # not measured by the first versions
OPTIONAL = {"codes": CODES, "log": LOG, "weights": MODEL}
"""Those of them that an export may leave out, by the name that a user gives."""

TOLERANCE = 1e-12  # another version of NumPy or Numba may add in another order


@dataclass(frozen=True)
class Checked:
    """What was found out about a run.

    Attributes:
        run: The run.
        problems: What is wrong; empty if all is well.
        notes: What could not be checked, and why, and what a reader should know.
    """

    run: StoredRun
    problems: list[str]
    notes: list[str]


def place(run: StoredRun) -> Path:
    """Where a run is below the folder of all records."""
    folder = Path(os.path.abspath(run.folder))  # noqa: PTH100 - resolve() would follow links
    return Path(*folder.parts[-4:])


def check_files(run: StoredRun) -> Checked:
    """Check that a run is in its place, agrees with its own configuration, and has the files it recorded."""
    wrong, notes = _files(run)
    return Checked(run, [*_misplaced(run), *_settings(run), *wrong.values()], notes)


def verify(run: StoredRun) -> Checked:
    """Check what `check_files` does, and the figures: by evaluating the codes anew, and by AP of the queries.

    What another version of the evaluator measured may differ: then differences are notes, not problems.
    Curves, log and weights are checked by their hashes alone.
    """
    wrong, notes = _files(run)
    problems = [*_misplaced(run), *_settings(run), *wrong.values()]
    differences: list[str] = []
    queries = (run.folder / QUERIES).is_file() and QUERIES not in wrong
    try:
        if queries:
            differences += _mean_differences(run)
        if not (run.folder / CODES).is_file():
            checked = "only mAP is checked, by AP of the queries" if queries else "no figure is checked"
            notes.append(f"its codes are not there, so that {checked}")
        elif CODES in wrong:
            notes.append("its figures are not checked, since its codes have changed")
        else:
            evaluation = run.evaluate()
            differences += _differences(run, evaluation)
            if queries:
                differences += _query_differences(run, evaluation)
    except HashbenchError as error:
        problems.append(str(error))
    if run.record.evaluator == VERSION:
        problems += differences
    else:
        notes.append(f"measured by evaluator {run.record.evaluator}; installed is evaluator {VERSION}")
        notes += differences
    return Checked(run, problems, notes)


def _misplaced(run: StoredRun) -> list[str]:
    record, lies = run.record, place(run)
    belongs = run_folder(Path(), record.dataset, record.protocol, record.method, record.bits, record.run_id)
    return [] if lies == belongs else [f"it is in {lies}; by its record it belongs in {belongs}"]


def _settings(run: StoredRun) -> list[str]:
    record = run.record
    return [
        f"{key} is {getattr(record, key)!r} in the record and {record.config.get(key)!r} in its config"
        for key in ("method", "dataset", "protocol", "bits", "seed")
        if record.config.get(key) != getattr(record, key)
    ]


def _files(run: StoredRun) -> tuple[dict[str, str], list[str]]:
    """What is wrong with files, by name, and what cannot be checked."""
    recorded = run.record.files
    if recorded is None:
        return {}, ["the hashes of its files are not recorded"]
    wrong = {name: f"{name!r} is no file of a run" for name in recorded if name not in FILES}
    absent = []
    for name in FILES:
        path = run.folder / name
        if name not in recorded:
            if path.exists() or name not in OPTIONAL.values():
                wrong[name] = f"{name} is not in the record"
        elif not path.is_file():
            if name in OPTIONAL.values():
                absent.append(name)
            else:
                wrong[name] = f"{name} is missing"
        elif problem := _changed(path, recorded[name]):
            wrong[name] = problem
    return wrong, [f"not there: {', '.join(absent)}"] if absent else []


def _changed(path: Path, sha256: str) -> str | None:
    try:
        return (
            None
            if file_digest(path, "sha256") == sha256
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
    return found
