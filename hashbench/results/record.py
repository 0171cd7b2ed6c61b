"""Records on disk: one folder a run, there as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from hashbench.config import EvaluationConfig, RunConfig, SelectionConfig
from hashbench.data.options import SPLIT_OPTIONS
from hashbench.data.protocol import Overlaps
from hashbench.errors import LONGEST, HashbenchError
from hashbench.evaluation import CodeHealth
from hashbench.runtime.arguments import as_path
from hashbench.runtime.files import set_aside
from hashbench.runtime.json_files import read_json

RECORD = "record.json"
CODES = "codes.npz"
CURVES = "curves.csv"
QUERIES = "queries.npz"
LOG = "log.jsonl"
MODEL = "model.safetensors"
FILES = (CODES, CURVES, LOG, MODEL, QUERIES)  # beside a record, which has their hashes
TRACE = "trace.json.gz"  # of a profiler, where one was asked for
STARTED = "started.json"  # until a run ends: what it changed of the recipe
STATES = "states"  # folder, until a run ends: from where it can go on
IDENTITY = "identity.json"  # among the states: of which run they are
THREADS = "threads"  # key beside that identity: numbers of threads so far, which the run id does not cover


Short = Annotated[str, Field(max_length=255)]
"""Names of folders and files, and hashes: messages quote them."""
Name = Annotated[str, Field(max_length=255, pattern=r"^\w[\w.+-]*$")]
"""Of a method or dataset; see `registry.entries`."""
MetricName = Annotated[str, Field(pattern=r"^\w+@(all|[1-9]\d{0,17}|H<=\d{1,18})$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitRecord(_Part):
    """What the run was trained and evaluated on."""

    query: PositiveInt
    train: PositiveInt
    database: PositiveInt
    sha256: Short
    overlaps: Overlaps
    warnings: tuple[str, ...]
    validation: str | None = None
    """Fingerprint of the protocol's own validation images, if they chose the epoch."""


class Metric(_Part):
    """A figure: expected over all orders of equal distances, and the least and the most that any gives."""

    expected: float
    lowest: float
    highest: float


class Timing(_Part):
    """Seconds, and what training made of them; None where it is not known or nothing was trained by steps.

    Training counts what came before a stop, too.
    """

    train: float
    encode: float
    evaluate: float
    peak_memory: int | None = None
    """Bytes held at once in the first process: on a GPU by the training's tensors, on a CPU by the process
    since it began."""
    images_per_second: float | None = None
    """Training images, not views, of all processes."""
    waiting: float | None = None
    """Share of the training's time in which it waited for images."""


class SelectedEpoch(_Part):
    """Which epoch's weights were taken, and by what."""

    name: str
    metric: str
    value: float
    epoch: int
    looks: int


class PublishedProtocol(_Part):
    """The split that the recipe's training lengths were published for, and the lengths there and here.

    Attributes:
        name: The protocol, of the run's dataset.
        images: Training images of that protocol.
        batches: Batches an epoch that the recipe makes of them.
        steps: Batches of the recipe's whole training.
        own_batches: Batches an epoch of the run.
        own_steps: Batches of the run's whole training.
    """

    name: str
    images: int
    batches: int
    steps: int
    own_batches: int
    own_steps: int

    def difference(self, method: str, dataset: str, protocol: str) -> str | None:
        """Return a sentence on how the training of a run differs from the published length.

        None stands for a run on the published protocol, and for one on another protocol that is as long.

        Args:
            method: Name of the run's method.
            dataset: Name of its dataset.
            protocol: Name of its protocol.
        """
        if protocol == self.name or (self.batches, self.steps) == (self.own_batches, self.own_steps):
            return None
        return (
            f"{method}'s training length was published for {dataset}@{self.name} ({self.images:,} images, "
            f"{self.batches:,} batches an epoch, {self.steps:,} steps); {dataset}@{protocol} has "
            f"{self.own_batches:,} batches an epoch and {self.own_steps:,} steps"
        )


class Record(_Part):
    """One run: what was asked for, on what, with what result. This is `record.json`."""

    schema_version: Literal[4] = 4
    run_id: Short
    method: Name
    dataset: Name
    protocol: Short
    bits: PositiveInt
    seed: int
    config: dict[str, Any]
    split: SplitRecord
    metrics: dict[MetricName, Metric]
    queries_without_relevant: int
    health: CodeHealth
    timing: Timing
    environment: dict[str, str | int | list[int] | None]
    created: AwareDatetime
    evaluator: int
    changes: dict[str, Any] | None
    components: dict[str, dict[str, Any]]
    files: dict[Short, Short] | None
    resumed: int = 0
    selected: SelectedEpoch | None = None
    recipe: Short | None = None
    """SHA-256 of the method's recipe, by which `changes` and `components` were found; None: it has none."""
    published_protocol: PublishedProtocol | None = None
    """None: the recipe names no published protocol for the dataset."""
    sha256: Short | None = None
    """Checksum of all other keys, from `checksum`; None: not written yet, or a record of an older version."""

    @property
    def length_note(self) -> str | None:
        """A sentence on how the length of training differs from the published one, if it does."""
        published = self.published_protocol
        return published.difference(self.method, self.dataset, self.protocol) if published else None

    @model_validator(mode="before")
    @classmethod
    def _from_older(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        version = data.get("schema_version")
        if version in (1, 2, 3, 4):
            _check_keys(version, data)
        if version == 1:
            data = {**data, "evaluator": 1, "changes": None, "components": {}, "files": None}
        elif None in (data.get("changes", {}), data.get("files", {})):
            raise ValueError("only records of version 1 have no changes and files")
        if version in (1, 2) and isinstance(data.get("config"), dict):
            data = {**data, "config": _with_later_settings(data["config"])}
        return {**data, "schema_version": 4} if version in (1, 2, 3) else data

    @field_validator("environment")
    @classmethod
    def _holds_plain_values(cls, environment: dict[str, Any]) -> dict[str, Any]:
        lists = {key for key, value in environment.items() if isinstance(value, list)}
        if lists - {"threads_before_stop"}:
            raise ValueError("expected texts and numbers, got a list")
        return environment

    @field_validator("config")
    @classmethod
    def _is_a_configuration(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Check all settings; those that a later version brings must be in `_LATER`."""
        _require_all(RunConfig, config, "config")
        _require_all(EvaluationConfig, config["evaluation"], "evaluation")
        return RunConfig.model_validate(config).model_dump(mode="json")


def _require_all(section: type[BaseModel], settings: Any, name: str) -> None:
    lacking = section.model_fields.keys() - (settings if isinstance(settings, dict) else {})
    if lacking:
        raise ValueError(f"{name} lacks {', '.join(sorted(lacking))}")


# Keys of a record, by the first version that has them.
_KEYS_SINCE = {
    2: ("evaluator", "changes", "components", "files"),
    3: ("resumed", "selected"),
    4: ("recipe", "published_protocol", "sha256"),
}


def _check_keys(version: int, data: Mapping[str, Any]) -> None:
    """Refuse a record that lacks a key of its version, or has one of a later version."""
    for since, keys in _KEYS_SINCE.items():
        for key in keys:
            if since > version and key in data:
                raise ValueError(f"records of version {version} have no {key}")
            if since <= version and key not in data:
                raise ValueError(f"records of version {version} have {key}, which is missing")


# Settings that came later, as the runs of records of versions 1 and 2 had them.
_LATER: dict[str, Any] = {
    "processes": 1,
    "views": {"on_device": False},
    "training": {"accumulate": 1, "compile": False},
    "selection": SelectionConfig().model_dump(mode="json"),
    "evaluation": {"graded": False},
}


def _with_later_settings(config: dict[str, Any]) -> dict[str, Any]:
    later = {key: {**v, **config.get(key, {})} if isinstance(v, dict) else v for key, v in _LATER.items()}
    return {**config, **later}


def run_folder(results: Path, dataset: str, protocol: str, method: str, bits: int, run_id: str) -> Path:
    """Where the record of a run is kept, below the results folder."""
    return results / f"{dataset}@{protocol}" / method / f"{bits}bit" / run_id


def run_identity(
    config: Mapping[str, Any],
    split: str,
    validation: str | None,
    code: str,
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """Return what a run's id is a hash of: all that can change its numbers, but for the number of threads.

    Args:
        config: The configuration, as a record has it.
        split: Fingerprint of the split.
        validation: Fingerprint of the protocol's validation images; None: they play no part.
        code: Hash of the source code, from `registry.source_digest`.
        libraries: Versions, from `environment.library_versions`.
    """
    data = {key: value for key, value in config["data"].items() if key not in SPLIT_OPTIONS}
    return {
        "config": {**config, "data": data},
        "split": split,
        **({} if validation is None else {"validation": validation}),
        "code": code,
        "libraries": dict(libraries),
    }


def run_id_of(identity: Mapping[str, Any]) -> str:
    """Return a run's id: a readable stem, and a hash of its `run_identity`."""
    config = identity["config"]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    return f"{config['method']}-{config['dataset']}-{config['bits']}bit-seed{config['seed']}-{digest}"


def checksum(content: Mapping[str, Any]) -> str:
    r"""Return the SHA-256 of a record's content but for the key `sha256` itself.

    It is taken of JSON with sorted keys, without blanks, non-ASCII characters as `\uXXXX`.

    Args:
        content: What `record.json` holds.
    """
    others = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_record(folder: Path | str) -> Record:
    """Read and validate a run's `record.json`.

    Raises:
        UsageError: The folder is no path.
        HashbenchError: The record is not there or not a record.
    """
    path = as_path(folder, "folder") / RECORD
    try:
        return Record.model_validate(_read_content(path.parent))
    except OSError as error:
        raise HashbenchError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:LONGEST] or "the file"
        raise HashbenchError(
            f"{path} is not a record ({where}: {first['msg'][:LONGEST]}); run it again with --force"
        ) from error
    except ValueError as error:
        raise HashbenchError(
            f"{path} is not a record (the file: {error}); run it again with --force"
        ) from error


def _read_content(folder: Path) -> Any:
    """Read `record.json`, also while the run is replaced where folders cannot be exchanged at once."""
    for found in (folder, set_aside(folder)):
        with suppress(FileNotFoundError):
            return read_json(found / RECORD)
    return read_json(folder / RECORD)


def write_record(record: Record, folder: Path) -> None:
    """Write a run's `record.json`, with its checksum."""
    content = json.loads(record.model_dump_json())
    content["sha256"] = checksum(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
