"""Runs as reports see them: those that have a record, and those that have not ended."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.config import flatten
from hashbench.errors import HashbenchError
from hashbench.evaluation import VERSION, Evaluation, evaluate
from hashbench.evaluation.files import load_codes
from hashbench.results.record import CODES, QUERIES, STARTED, Record
from hashbench.runtime.array_files import read_npz
from hashbench.runtime.json_files import read_json


@dataclass(frozen=True)
class StoredRun:
    """A run that has a record.

    Attributes:
        record: Its record.
        folder: Where it is.
        common: Changed settings that it shares with all runs of a report, by path; its label leaves them out.
    """

    record: Record
    folder: Path
    common: Collection[str] = ()

    @cached_property
    def label(self) -> str:
        """The method and what was changed of its recipe, as in `wch (balance=false)`."""
        return label_of(self.record.method, self.changes, self.common)

    @property
    def changes(self) -> dict[str, Any] | None:
        """What was changed of the recipe, by dotted path; None: not known."""
        return self.record.changes

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The whole configuration but for the seed, by dotted path."""
        return {path: value for path, value in flatten(self.record.config).items() if path != "seed"}

    def average_precisions(self, metric: str) -> NDArray[np.float64] | None:
        """AP of each query behind a mAP, float64 [queries]; NaN for a query that the mean leaves out.

        Args:
            metric: As in "mAP@1000"; None comes back for a metric of another kind, and if the values are not
                there and codes to compute them are not, or were measured by another evaluator.

        Raises:
            HashbenchError: The values cannot be read, or are not those of the run's queries.
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
        """Ids of the queries, in the order of their values.

        Raises:
            HashbenchError: Neither the values nor the codes are there.
        """
        for path in (self.folder / QUERIES, self.folder / CODES):
            if path.is_file():
                ids: list[str] = _array(path, "query_ids", "U").tolist()
                return ids
        raise HashbenchError(f"{self.folder} has neither {QUERIES} nor {CODES}; run it again with --force")

    def part(self, name: str) -> tuple[list[str], NDArray[Any]]:
        """Return ids and labels of a part of the split, as they are stored with the codes.

        Args:
            name: "train", which files of records before version 4 lack, "query" or "database".

        Raises:
            HashbenchError: They are not there or cannot be read.
        """
        path = self.folder / CODES
        return _array(path, f"{name}_ids", "U").tolist(), _array(path, f"{name}_labels")

    def evaluate(self) -> Evaluation:
        """Evaluate the stored codes anew, as the run did.

        Raises:
            HashbenchError: The codes are not there or cannot be read.
        """
        return evaluate(*self.codes(), **self.record.config["evaluation"])

    def codes(self) -> tuple[Codes | NDArray[Any], Codes, NDArray[Any], NDArray[Any]]:
        """Codes of queries and database, then their labels: the arguments of `hashbench.evaluate`.

        Raises:
            HashbenchError: They are not there or cannot be read.
        """
        path = self.folder / CODES
        if not path.is_file():
            raise HashbenchError(f"{path} is not there: the record came without codes; run it again")
        query, database, *labels = load_codes(path)
        packed = isinstance(database, BinaryCodes) and isinstance(query, BinaryCodes)
        if not (packed or isinstance(database, ProductCodes)):
            raise HashbenchError(f"{path} has no packed codes, as a run writes them")
        assert not isinstance(database, np.ndarray)
        return query, database, labels[0], labels[1]


@dataclass(frozen=True)
class Unfinished:
    """A run that has not ended: it failed, was stopped, or still goes on.

    Attributes:
        dataset: As in a record.
        protocol: As in a record.
        method: As in a record.
        bits: As in a record.
        run_id: As in a record.
        folder: Where its log is.
        common: As of a run that has a record.
    """

    dataset: str
    protocol: str
    method: str
    bits: int
    run_id: str
    folder: Path
    common: Collection[str] = ()

    @property
    def seed(self) -> int | None:
        """The seed, as the run id has it."""
        found = re.search(r"-seed(\d+)-", self.run_id)
        return int(found[1]) if found else None

    @cached_property
    def changes(self) -> dict[str, Any] | None:
        """What was changed of the recipe, by dotted path; None: not known."""
        try:
            changes = read_json(self.folder / STARTED)
        except (OSError, ValueError):
            return None
        return changes if isinstance(changes, dict) else None

    @cached_property
    def label(self) -> str:
        """The method and what was changed of its recipe."""
        return label_of(self.method, self.changes, self.common)


def label_of(method: str, changes: Mapping[str, Any] | None, common: Collection[str] = ()) -> str:
    """A method and what was changed of its recipe, as in `wch (balance=false)`.

    Args:
        method: Its name.
        changes: By dotted path; None: not known.
        common: Paths to leave out.
    """
    if changes is None:
        return f"{method} (settings not recorded)"
    shown = ", ".join(f"{_short(path)}={as_set(v)}" for path, v in changes.items() if path not in common)
    return f"{method} ({shown})" if shown else method


def common_changes(runs: Iterable[StoredRun]) -> dict[str, Any]:
    """What all of these runs, of a report, changed alike of their recipes: what their labels leave out."""
    return {
        path: value
        for run in runs
        for path, value in (run.record.changes or {}).items()
        if path in run.common
    }


def differing(runs: Iterable[StoredRun]) -> dict[str, list[Any]]:
    """Settings in which runs differ but for the seed: their values, each once, by dotted path."""
    settings = [run.settings for run in runs]
    paths = dict.fromkeys(path for one in settings for path in one)
    values = {path: _unique([one.get(path) for one in settings]) for path in paths}
    return {path: several for path, several in values.items() if len(several) > 1}


def as_set(value: Any) -> str:
    """A value in one line, as `--set` and `--where` take it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return " ".join(text.removesuffix("\n").removesuffix("\n...").split())


def _short(path: str) -> str:
    return path.rpartition(".")[2] if path.startswith(("hyperparameters.", "training.")) else path


def _unique(values: list[Any]) -> list[Any]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _array(path: Path, name: str, kinds: str = "") -> NDArray[Any]:
    """Read an array, of one dimension and of a type of these kinds, if any are given."""
    try:
        array = read_npz(path, [name])[name]
        if kinds and not (array.dtype.kind in kinds and array.ndim == 1):
            raise HashbenchError(f"{path} cannot be read: {name} is {array.dtype} {list(array.shape)}")
    except HashbenchError as error:
        raise HashbenchError(f"{error}; `hashbench results verify` names what is damaged") from error
    return array
