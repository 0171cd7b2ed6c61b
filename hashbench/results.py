"""Records on disk: one folder a run, there as a whole or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from hashbench.config import EvaluationConfig
from hashbench.errors import HashbenchError
from hashbench.evaluation import CodeHealth
from hashbench.protocol import Overlaps

RECORD = "record.json"
CODES = "codes.npz"
CURVES = "curves.csv"
QUERIES = "queries.npz"
LOG = "log.jsonl"
MODEL = "model.safetensors"
STARTED = "started.json"  # until a run ends: what it changed of the recipe

_REPLACED = ".replaced"
_ABANDONED_S = 7 * 24 * 3600  # no run is silent for so long


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitRecord(_Part):
    """What the run was trained and evaluated on."""

    query: int
    train: int
    database: int
    sha256: str
    overlaps: Overlaps
    warnings: tuple[str, ...]


class Metric(_Part):
    """A figure: expected over all orders of equal distances, and the least and the most that any gives."""

    expected: float
    lowest: float
    highest: float


class Timing(_Part):
    """Seconds."""

    train: float
    encode: float
    evaluate: float


class Record(_Part):
    """One run: what was asked for, on what, with what result. This is `record.json`."""

    schema_version: Literal[2] = 2
    run_id: str
    method: str
    dataset: str
    protocol: str
    bits: int
    seed: int
    config: dict[str, Any]
    split: SplitRecord
    metrics: dict[str, Metric]
    queries_without_relevant: int
    health: CodeHealth
    timing: Timing
    environment: dict[str, Any]
    created: AwareDatetime
    evaluator: int
    changes: dict[str, Any] | None
    components: dict[str, dict[str, Any]]
    files: dict[str, str] | None

    @model_validator(mode="before")
    @classmethod
    def _from_older(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("schema_version") == 1:
            added: dict[str, Any] = {
                "schema_version": 2,
                "evaluator": 1,
                "changes": None,
                "components": {},
                "files": None,
            }
            return {**data, **added}
        if isinstance(data, dict) and None in (data.get("changes", {}), data.get("files", {})):
            raise ValueError("only records of version 1 have no changes and files")
        return data

    @field_validator("config")
    @classmethod
    def _says_how_it_was_evaluated(cls, config: dict[str, Any]) -> dict[str, Any]:
        given = config.get("evaluation")
        lacking = EvaluationConfig.model_fields.keys() - (given if isinstance(given, dict) else {})
        if lacking:
            raise ValueError(f"evaluation lacks {', '.join(sorted(lacking))}")
        EvaluationConfig.model_validate(given)
        return config


def run_folder(results: Path, dataset: str, protocol: str, method: str, bits: int, run_id: str) -> Path:
    """Where the record of a run is kept, below the results folder."""
    return results / f"{dataset}@{protocol}" / method / f"{bits}bit" / run_id


def read_record(folder: Path) -> Record:
    """Read and validate a run's `record.json`.

    Raises:
        HashbenchError: It is not there or not a record.
    """
    path = folder / RECORD
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise HashbenchError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise HashbenchError(
            f"{path} is not a record ({where}: {first['msg']}); run it again with --force"
        ) from error


def write_record(record: Record, folder: Path) -> None:
    """Write a run's `record.json`, through to the disk."""
    with (folder / RECORD).open("w", encoding="utf-8") as file:
        file.write(record.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_run_folder(final: Path) -> Iterator[Path]:
    """A folder to write a run into, which becomes `final` when the block ends well.

    Until then it is hidden, beside `final`; whatever happens to the process, `final` is the old run or the
    new one. After a failure it stays, for its log, until the same run starts again a week later.

    Raises:
        HashbenchError: Something could not be written.
    """
    partial = final.with_name(f".{final.name}.{uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
        _tidy(final)
        yield partial
        try:
            partial.rename(final)
        except OSError:
            if not final.exists():
                raise
            replaced = partial.with_name(f"{partial.name}{_REPLACED}")
            final.rename(replaced)
            partial.rename(final)
            shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        raise HashbenchError(
            f"{partial} cannot be written ({error}); make room, or choose --results DIR"
        ) from error


def _tidy(final: Path) -> None:
    """Put back, or remove, what processes that were killed left of the same run."""
    for folder in final.parent.glob(f".{glob.escape(final.name)}.*"):
        if folder.name.endswith(_REPLACED) and not final.exists():
            folder.rename(final)
        elif folder.name.endswith(_REPLACED) or _last_change(folder) < time.time() - _ABANDONED_S:
            shutil.rmtree(folder, ignore_errors=True)


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
