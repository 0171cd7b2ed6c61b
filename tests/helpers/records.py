"""Records for tests: every field that a test does not give has a plain value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hashbench.config import RunConfig
from hashbench.evaluation import VERSION
from hashbench.results.record import Record, Timing, read_record, run_folder, write_record
from hashbench.results.stored_run import StoredRun

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def make_config(**settings: Any) -> dict[str, Any]:
    """Return the configuration of a run on a CPU, as a record contains it."""
    return RunConfig(**{"protocol": "default", "device": "cpu", **settings}).model_dump(mode="json")


def make_folder(results: Path, config: Mapping[str, Any], run_id: str) -> Path:
    """Create the folder of a run."""
    kind = (config[key] for key in ("dataset", "protocol", "method", "bits"))
    folder = run_folder(results, *kind, run_id)
    folder.mkdir(parents=True)
    return folder


def make_record(folder: Path, config: Mapping[str, Any], **fields: Any) -> StoredRun:
    """Write a record into the folder of its run.

    Args:
        folder: The folder, from `make_folder`.
        config: The configuration, from `make_config`.
        **fields: At least `split`, `metrics`, `queries_without_relevant` and `health`.
    """
    defaults = {
        **{key: config[key] for key in ("method", "dataset", "protocol", "bits", "seed")},
        "run_id": folder.name,
        "config": config,
        "timing": Timing(train=10, encode=1, evaluate=0.1),
        "environment": {"source": "0"},
        "created": START,
        "evaluator": VERSION,
        "changes": {},
        "components": {},
        "files": {},
    }
    write_record(Record(**{**defaults, **fields}), folder)
    return StoredRun(read_record(folder), folder, metric="mAP@all")
