"""Records on disk: one folder a run, there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hashbench.errors import HashbenchError
from hashbench.evaluation import CodeHealth


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Overlap(_Part):
    """Images that two parts of a split share."""

    query_database: int
    query_train: int
    train_database: int


class SplitRecord(_Part):
    """What the run was trained and evaluated on."""

    query: int
    train: int
    database: int
    sha256: str
    overlaps: Overlap
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

    schema_version: Literal[1] = 1
    run_id: str
    method: str
    dataset: str
    protocol: str
    bits: int
    seed: int
    config: dict[str, Any]
    split: SplitRecord
    metrics: dict[str, Metric]
    health: CodeHealth
    timing: Timing
    environment: dict[str, Any]
    created: datetime


def run_folder(results: Path, dataset: str, protocol: str, method: str, bits: int, run_id: str) -> Path:
    """Where the record of a run is kept, below the results folder."""
    return results / f"{dataset}@{protocol}" / method / f"{bits}bit" / run_id


def read_record(folder: Path) -> Record:
    """Read and validate a run's `record.json`.

    Raises:
        HashbenchError: It is not there or not a record.
    """
    path = folder / "record.json"
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
    """Write a run's `record.json`."""
    (folder / "record.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")


@contextmanager
def new_run_folder(final: Path) -> Iterator[Path]:
    """A folder to write a run into, which becomes `final` when the block ends well.

    Until then it is hidden and named for this process; whatever happens to the process, `final` is the old
    run or the new one. After a failure it stays, for the log's sake, until the same run starts again.

    Raises:
        HashbenchError: The folder cannot be written.
    """
    mine = f"{socket.gethostname()}-{os.getpid()}"
    partial = final.with_name(f".{final.name}.{mine}")
    try:
        _remove_abandoned(final)
        partial.mkdir(parents=True)
    except OSError as error:
        raise HashbenchError(
            f"{final.parent} cannot be written: {error.strerror}; choose --results DIR"
        ) from error
    yield partial
    if final.exists():
        replaced = final.with_name(f".{final.name}.{mine}.replaced")
        final.rename(replaced)
        partial.rename(final)
        shutil.rmtree(replaced)
    else:
        partial.rename(final)


def _remove_abandoned(final: Path) -> None:
    """Remove what this process, or one of this machine that is no more, left of the same run."""
    prefix = f".{final.name}.{socket.gethostname()}-"
    for folder in final.parent.glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix)
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_running(int(pid))):
            shutil.rmtree(folder)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
