"""Stored runs: finished ones, which have a record, and unfinished ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.config import EvaluationConfig, flatten
from hashbench.errors import HashbenchError
from hashbench.evaluation import VERSION, Evaluation, evaluate
from hashbench.evaluation.files import NAMES, load_arguments
from hashbench.results.record import CODES, QUERIES, STARTED, Record, protocol_name
from hashbench.runtime.array_files import read_npz
from hashbench.runtime.json_files import read_json
from hashbench.runtime.yaml_values import as_set

FOREIGN = " (foreign)"  # end of the label of codes of another program

IN_PROTOCOL_NAME = ("evaluation.relevance", "evaluation.neighbours")
"""Settings that `Record.protocol_name` contains, so that no label needs to."""


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        record: Its record.
        folder: Its folder.
        common: Paths of changed settings that all runs of a report share; the label leaves them out.
        metric: Name of the metric that a report shows of this run; empty if it shows none.
        name: Name that a report gives to the configuration of the run, from `with_row_names`.
        note: The method and its changed settings, if `name` does not say them.
    """

    record: Record
    folder: Path
    common: Collection[str] = ()
    metric: str = ""
    name: str = ""
    note: str = ""

    @cached_property
    def label(self) -> str:
        """The name of the configuration, else the method and its changed settings; it marks foreign codes.

        An example is `wch (balance=false)`.
        """
        label = label_of(self.record.method, self.changes, {*self.common, *IN_PROTOCOL_NAME})
        return self.name or (f"{label}{FOREIGN}" if self.record.foreign else label)

    @property
    def changes(self) -> dict[str, Any] | None:
        """Settings that differ from the recipe, by dotted path; None if they are not recorded."""
        return self.record.changes

    @property
    def backbone(self) -> str:
        """The backbone with its weights and the size of its images, for example `vgg16, 224 px`."""
        name: str = self.record.config["backbone"]["name"]
        return name if self.record.foreign else describe_backbone(self.record.config)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings except for the seed, by dotted path."""
        return {path: value for path, value in flatten(self.record.config).items() if path != "seed"}

    def average_precisions(self, metric: str) -> NDArray[np.float64] | None:
        """Return the AP of each query for an mAP.

        Returns:
            float64 [queries], with NaN for a query that the mean leaves out. None for any other metric, and
            if the values are missing and cannot be recomputed: the codes are missing, too, or another version
            of the evaluator measured the run.

        Raises:
            HashbenchError: The values cannot be read, or their number is not that of the queries.
        """
        kind, _, k = metric.partition("@")
        if kind != "mAP":
            return None
        path = self.folder / QUERIES
        if path.is_file():
            values: NDArray[np.float64] = _array(path, f"AP@{k}", "f")
            if values.shape != (self.record.split.query,):
                raise HashbenchError(
                    f"{path} has {values.size} values of AP@{k} for {self.record.split.query} queries; "
                    "`hashbench results verify` names what is damaged"
                )
            return values
        if self.record.evaluator != VERSION or not (self.folder / CODES).is_file():
            return None
        evaluation = self.evaluate()
        values = (
            evaluation.average_precision_within_radius
            if k.startswith("H<=")
            else evaluation.average_precision("all" if k == "all" else int(k))
        )
        return np.where(evaluation.counted, values, np.nan)

    def query_ids(self) -> list[str]:
        """Return the ids of the queries, in the order of their values.

        Raises:
            HashbenchError: The files with the values and the codes are both missing.
        """
        for path in (self.folder / QUERIES, self.folder / CODES):
            if path.is_file():
                ids: list[str] = _array(path, "query_ids", "U").tolist()
                return ids
        raise HashbenchError(f"{self.folder} has neither {QUERIES} nor {CODES}; run it again with --force")

    def part(self, name: str) -> tuple[list[str], NDArray[Any]]:
        """Return the ids and labels of a part of the split, which are stored with the codes.

        Args:
            name: "query", "database" or, since version 4 of records, "train".

        Raises:
            HashbenchError: The ids or labels are missing or cannot be read.
        """
        path = self.folder / CODES
        return _array(path, f"{name}_ids", "U").tolist(), _array(path, f"{name}_labels")

    def evaluate(self) -> Evaluation:
        """Evaluate the stored codes again with the settings of the run.

        Raises:
            HashbenchError: The codes are missing or cannot be read.
        """
        settings = EvaluationConfig(**self.record.config["evaluation"])
        query, database = self.codes()
        return evaluate(query, database, **self.relevant(), **settings.arguments)

    def relevant(self) -> dict[str, Any]:
        """Return the arguments of `hashbench.evaluate` that say which images are relevant.

        Raises:
            HashbenchError: The codes are missing or cannot be read.
        """
        by_label = self.record.config["evaluation"]["relevance"] == "labels"
        names = ("query_labels", "database_labels") if by_label else ("neighbours",)
        return {name: _array(self.folder / CODES, name) for name in names}

    def codes(self) -> tuple[Codes | NDArray[Any], Codes]:
        """Return the codes of the queries and of the database.

        Raises:
            HashbenchError: The codes are missing or cannot be read.
        """
        path = self.folder / CODES
        if not path.is_file():
            raise HashbenchError(
                f"{path} is missing, as in records imported without their codes; --force runs it again"
            )
        query, database = load_arguments(path, NAMES[:2]).values()
        packed = isinstance(database, BinaryCodes) and isinstance(query, BinaryCodes)
        if not (packed or isinstance(database, ProductCodes)):
            raise HashbenchError(f"{path} does not contain packed codes, which a run writes")
        assert not isinstance(database, np.ndarray)
        return query, database


@dataclass(frozen=True)
class Unfinished:
    """An unfinished run, which failed, was stopped, or is still running.

    Attributes:
        dataset: Name of the dataset.
        protocol: Name of the protocol.
        method: Name of the method.
        bits: Code length.
        run_id: The run id.
        folder: The hidden folder with its log.
        common: See `StoredRun`, like `name` and `note`.
    """

    dataset: str
    protocol: str
    method: str
    bits: int
    run_id: str
    folder: Path
    common: Collection[str] = ()
    name: str = ""
    note: str = ""

    @property
    def seed(self) -> int | None:
        """The seed, from the run id."""
        found = re.search(r"-seed(\d+)-", self.run_id)
        return int(found[1]) if found else None

    @cached_property
    def changes(self) -> dict[str, Any] | None:
        """Settings that differ from the recipe, by dotted path; None if they cannot be read."""
        try:
            changes = read_json(self.folder / STARTED)
        except (OSError, ValueError):
            return None
        return changes if isinstance(changes, dict) else None

    @cached_property
    def label(self) -> str:
        """The name of the configuration, else the method and its changed settings."""
        return self.name or label_of(self.method, self.changes, {*self.common, *IN_PROTOCOL_NAME})

    @property
    def protocol_name(self) -> str:
        """See `Record.protocol_name`."""
        changes = self.changes or {}
        chosen = {key.rpartition(".")[2]: changes[key] for key in IN_PROTOCOL_NAME if key in changes}
        return protocol_name(self.protocol, **chosen)


def label_of(method: str, changes: Mapping[str, Any] | None, common: Collection[str] = ()) -> str:
    """Return a label of a method and its changed settings, for example `wch (balance=false)`.

    Args:
        method: Name of the method.
        changes: Settings that differ from the recipe, by dotted path; None if they are not recorded.
        common: Paths to leave out.
    """
    if changes is None:
        return f"{method} (settings not recorded)"
    shown = ", ".join(f"{_short(path)}={as_set(v)}" for path, v in changes.items() if path not in common)
    return f"{method} ({shown})" if shown else method


def describe_backbone(config: Mapping[str, Any]) -> str:
    """Describe the backbone of a configuration, its weights and the size of its images."""
    backbone = config["backbone"]
    stage = "" if backbone["stage"] is None else f" stage {backbone['stage']}"
    weights = "" if backbone["pretrained"] else ", untrained"
    return f"{backbone['name']}{stage}{weights}, {config['images']['size']} px"


def common_changes(runs: Iterable[StoredRun]) -> dict[str, Any]:
    """Return the changed settings that the labels of these runs leave out."""
    return {
        path: value
        for run in runs
        for path, value in (run.record.changes or {}).items()
        if path in run.common and path not in IN_PROTOCOL_NAME
    }


def differing(runs: Iterable[StoredRun]) -> dict[str, list[Any]]:
    """Return the different values of each setting, except for the seed, in which runs differ."""
    settings = [run.settings for run in runs]
    paths = dict.fromkeys(path for one in settings for path in one)
    values = {path: _unique([one.get(path) for one in settings]) for path in paths}
    return {path: several for path, several in values.items() if len(several) > 1}


def _short(path: str) -> str:
    return path.rpartition(".")[2] if path.startswith(("hyperparameters.", "training.")) else path


def _unique(values: list[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value not in values[:index]]


def _array(path: Path, name: str, kinds: str = "") -> NDArray[Any]:
    """Read an array; if kinds of types are given, it must have one of them and one dimension."""
    try:
        array = read_npz(path, [name])[name]
        if kinds and not (array.dtype.kind in kinds and array.ndim == 1):
            raise HashbenchError(f"{path} cannot be read: {name} is {array.dtype} {list(array.shape)}")
    except HashbenchError as error:
        raise HashbenchError(f"{error}; `hashbench results verify` names what is damaged") from error
    return array
