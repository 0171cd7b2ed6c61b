"""Records of runs, as `record.json` contains them, and the names of all files of a run."""

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
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from hashbench.config import EvaluationConfig, RunConfig
from hashbench.data.options import SPLIT_OPTIONS
from hashbench.data.protocol import Overlaps
from hashbench.errors import LONGEST, HashbenchError
from hashbench.evaluation import CodeHealth
from hashbench.results.published_protocol import PublishedProtocol
from hashbench.results.schema_versions import to_newest
from hashbench.runtime.arguments import as_path
from hashbench.runtime.files import folder_name, set_aside
from hashbench.runtime.json_files import read_json
from hashbench.runtime.summary import Summarized

RECORD = "record.json"
CODES = "codes.npz"
CURVES = "curves.csv"
QUERIES = "queries.npz"
LOG = "log.jsonl"
MODEL = "model.safetensors"
FILES = (CODES, CURVES, LOG, MODEL, QUERIES)  # beside a record, which contains their hashes
TRACE = "trace.json.gz"  # from the profiler
TRACKING = "tracking"  # folder in the results folder, with the files of experiment trackers
STARTED = "started.json"  # of an unfinished run: the settings that differ from the recipe
STATES = "states"  # folder with the checkpoints of an unfinished run
IDENTITY = "identity.json"  # in that folder: the identity of the run
THREADS = (
    "threads"  # key beside that identity: the numbers of threads so far, which the run id does not cover
)

Short = Annotated[str, Field(max_length=255)]
"""Names of folders and files, and hashes, which messages may quote."""
Name = Annotated[str, Field(max_length=255, pattern=r"^\w[\w.+-]*$")]
"""Name of a method; see `registry.entries`."""
DatasetName = Annotated[str, Field(max_length=255, pattern=r"^\w[\w.+-]*(:\w[\w.+-]*)?$")]
MetricName = Annotated[str, Field(pattern=r"^\w+@(all|[1-9]\d{0,17}|H<=\d{1,18})$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitRecord(_Part):
    """The data that a run was trained and evaluated on."""

    query: PositiveInt
    train: NonNegativeInt
    """0 if it is not known, as of codes of another program."""
    database: PositiveInt
    sha256: Short
    overlaps: Overlaps
    warnings: tuple[str, ...]
    validation: str | None = None
    """Fingerprint of the protocol's own validation images, if they selected the epoch."""


class Metric(_Part):
    """A metric: its expected value over all orders of equal distances, and the bounds over these orders."""

    expected: float
    lowest: float
    highest: float


class Timing(_Part):
    """Durations in seconds, and the throughput of training; None if unknown or if there were no steps.

    The time before a stop is included.
    """

    train: float
    encode: float
    evaluate: float
    peak_memory: int | None = None
    """Peak memory in bytes of the main process: that of tensors during training on a GPU, that of the process
    since its start on a CPU."""
    images_per_second: float | None = None
    """Number of training images, not views, in all processes."""
    waiting: float | None = None
    """Share of the training time spent waiting for images."""
    features: float | None = None
    """Seconds to compute the features of the training images, whenever that was; not part of `train`. None if
    the method computes no features in advance."""
    encode_features: float | None = None
    """Seconds to compute the features of the queries and the database; not part of `encode`."""

    @property
    def whole_training(self) -> float:
        """Seconds of training, with those of the features that it used."""
        return self.train + (self.features or 0)

    @property
    def whole_encoding(self) -> float:
        """Seconds of encoding, with those of the features that it used."""
        return self.encode + (self.encode_features or 0)


class SelectedEpoch(_Part):
    """The epoch whose weights were selected, and the metric that selected it."""

    name: str
    metric: str
    value: float
    epoch: int
    looks: int


class Record(Summarized, _Part):
    """The record of a run: its configuration, its data, its environment and its results."""

    schema_version: Literal[7] = 7
    run_id: Short
    method: Name
    dataset: DatasetName
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
    """SHA-256 of the method's recipe, which determines `changes` and `components`; None if there is none."""
    published_protocol: PublishedProtocol | None = None
    """None if the recipe names no published protocol for the dataset."""
    name: Short | None = None
    """Name of the configuration in reports, if the user gave one; the run id does not depend on it."""
    foreign: Short | None = None
    """SHA-256 of the file of codes that another program made; None for a run."""
    sha256: Short | None = None
    """Checksum of all other keys, from `checksum`; None before writing and in records of older versions."""

    @property
    def dataset_name(self) -> str:
        """Name of the dataset; for a user's own images, which have a name of their own, with that name."""
        collection = self.config["data"].get("name")
        return f"{self.dataset} ({str(collection)[:LONGEST]})" if collection else self.dataset

    @property
    def protocol_name(self) -> str:
        """Name of the protocol; with the number of neighbours, if these are relevant and not labels."""
        return protocol_name(self.protocol, **self.config["evaluation"])

    @property
    def split_name(self) -> str:
        """Name of the dataset and the protocol, for example "digits@default"."""
        return f"{self.dataset_name}@{self.protocol_name}"

    @property
    def first_metric(self) -> str:
        """The mAP at the first cutoff, which the recipe chooses as the one that is usually reported."""
        return f"mAP@{self.config['evaluation']['k'][0]}"

    @property
    def length_note(self) -> str | None:
        """Description of how the training length differs from the published one; None if it does not."""
        published = self.published_protocol
        return published.difference(self.method, self.dataset, self.protocol) if published else None

    def _summary(self) -> dict[str, object]:
        where = {"dataset": f"{self.dataset}@{self.protocol_name}", "bits": self.bits, "seed": self.seed}
        metrics = {name: f"{metric.expected:.4f}" for name, metric in self.metrics.items()}
        codes = "COLLAPSED" if self.health.collapsed else "healthy"
        return {"run": self.run_id, "method": self.method, **where, **metrics, "codes": codes}

    @model_validator(mode="before")
    @classmethod
    def _from_older(cls, data: Any) -> Any:
        return to_newest(data) if isinstance(data, dict) else data

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
        """Check that all settings are present; `schema_versions` has added later ones."""
        _require_all(RunConfig, config, "config")
        _require_all(EvaluationConfig, config["evaluation"], "evaluation")
        return RunConfig.model_validate(config).model_dump(mode="json")


def _require_all(section: type[BaseModel], settings: Any, name: str) -> None:
    missing = section.model_fields.keys() - (settings if isinstance(settings, dict) else {})
    if missing:
        raise ValueError(f"{name} lacks {', '.join(sorted(missing))}")


def protocol_name(protocol: str, relevance: str = "labels", neighbours: int = 50, **_: Any) -> str:
    """Return the name of a protocol as reports show it, with what is relevant if that is not given by labels.

    Args:
        protocol: Name of the protocol.
        relevance: As in `EvaluationConfig`, like `neighbours`; other settings of the evaluation are ignored.
        neighbours: Number of relevant images.
    """
    return protocol if relevance == "labels" else f"{protocol}, {neighbours} neighbours"


def describe_result(record: Record) -> str:
    """Describe the metric that the recipe puts first, with its bounds over all orders of ties."""
    name = record.first_metric
    metric = record.metrics[name]
    collapsed = ", codes COLLAPSED" if record.health.collapsed else ""
    bounds = f"[{metric.lowest:.4f}, {metric.highest:.4f}]"
    return (
        f"{name} {metric.expected:.4f} {bounds}{collapsed}, {record.timing.whole_training:.1f} s of training"
    )


def run_folder(results: Path, dataset: str, protocol: str, method: str, bits: int, run_id: str) -> Path:
    """Return the folder of a run."""
    return results / f"{folder_name(dataset)}@{protocol}" / method / f"{bits}bit" / run_id


def run_identity(
    config: Mapping[str, Any],
    split: str,
    validation: str | None,
    code: str,
    libraries: Mapping[str, str],
) -> dict[str, Any]:
    """Return the identity of a run: everything that can change its numbers, except the number of threads.

    Args:
        config: The configuration, as in a record.
        split: Fingerprint of the split.
        validation: Fingerprint of the protocol's validation images; None if they are not used.
        code: Hash of the source code, from `registry.source_digest`.
        libraries: Versions of libraries, from `environment.library_versions`.
    """
    data = {key: value for key, value in config["data"].items() if key not in SPLIT_OPTIONS}
    config = {**config, "data": data}
    if "backbone" in config:  # the file of its weights counts by the hash of the content
        config["backbone"] = {key: value for key, value in config["backbone"].items() if key != "weights"}
    return {
        "config": config,
        "split": split,
        **({} if validation is None else {"validation": validation}),
        "code": code,
        "libraries": dict(libraries),
    }


def run_id_of(identity: Mapping[str, Any]) -> str:
    """Return the id of a run: a readable name and a hash of its `run_identity`."""
    config = identity["config"]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    dataset = folder_name(config["dataset"])
    return f"{config['method']}-{dataset}-{config['bits']}bit-seed{config['seed']}-{digest}"


def checksum(content: Mapping[str, Any]) -> str:
    r"""Return the SHA-256 of the content of a record, without the key `sha256` itself.

    The content is hashed as JSON with sorted keys, without blanks, and with non-ASCII characters as `\uXXXX`.
    """
    others = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(others, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_record(folder: Path | str) -> Record:
    """Read and validate the `record.json` of a run.

    Args:
        folder: The folder of the run.

    Raises:
        UsageError: The folder is not a path.
        HashbenchError: The record is missing or invalid.
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
    """Read `record.json`, even if another process is replacing the folder of the run."""
    for found in (folder, set_aside(folder)):
        with suppress(FileNotFoundError):
            return read_json(found / RECORD)
    return read_json(folder / RECORD)


def write_record(record: Record, folder: Path) -> None:
    """Write the `record.json` of a run, with its checksum."""
    content = json.loads(record.model_dump_json())
    content["sha256"] = checksum(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")
