"""Groups of comparable runs: columns of one protocol and code length, and cells that average over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashbench.errors import HashbenchError, UsageError
from hashbench.report.significance import Pair
from hashbench.results.record import QUERIES, Record
from hashbench.results.selection import measured
from hashbench.results.stored_run import StoredRun, differing
from hashbench.runtime.yaml_values import as_set


class Column(NamedTuple):
    """The dataset, protocol and code length that figures must share to be compared."""

    dataset: str
    protocol: str
    bits: int

    @property
    def split_name(self) -> str:
        """Name of the dataset and the protocol."""
        return f"{self.dataset}@{self.protocol}"

    def __str__(self) -> str:
        return f"{self.split_name}, {self.bits} bits"


def column_of(record: Record) -> Column:
    """Return the column of a run."""
    return Column(record.dataset_name, record.protocol_name, record.bits)


@dataclass(frozen=True)
class Cell:
    """Runs that differ only in their seed, and one of their metrics.

    Attributes:
        runs: One run per seed, sorted by seed.
        metric: Name of the metric, as in a record.
    """

    runs: tuple[StoredRun, ...]
    metric: str

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.record.seed for run in self.runs)

    @property
    def backbone(self) -> str:
        """The backbone of the runs, with its weights and the size of its images."""
        return self.runs[0].backbone

    @property
    def mean(self) -> float:
        """Mean of the expected metric over the seeds."""
        return self._mean("expected")

    @property
    def lowest(self) -> float:
        """Mean of the lower bound over all orders of ties, over the seeds."""
        return self._mean("lowest")

    @property
    def highest(self) -> float:
        """Mean of the upper bound over all orders of ties, over the seeds."""
        return self._mean("highest")

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (divisor n − 1); None for a single seed."""
        values = [run.record.metrics[self.metric].expected for run in self.runs]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @property
    def code_versions(self) -> int:
        """Number of versions of the source code that ran the seeds."""
        return len({run.record.environment.get("source") for run in self.runs})

    @property
    def collapsed(self) -> tuple[int, ...]:
        """Seeds whose codes collapsed."""
        return tuple(run.record.seed for run in self.runs if run.record.health.collapsed)

    @cached_property
    def average_precisions(self) -> dict[int, NDArray[np.float64]] | None:
        """AP of each query by seed, NaN for queries that are left out; None if not known for all seeds."""
        values = {run.record.seed: run.average_precisions(self.metric) for run in self.runs}
        known = {seed: value for seed, value in values.items() if value is not None}
        return known if len(known) == len(values) else None

    def _mean(self, part: str) -> float:
        return float(np.mean([getattr(run.record.metrics[self.metric], part) for run in self.runs]))


def paired(first: Cell, second: Cell) -> Pair | None:
    """Return the AP of each counted query in two cells of a column, as means over the seeds that both have.

    If they share no seed, the means are over all seeds. If the AP is not known, return None.

    Raises:
        HashbenchError: The runs do not count the same queries.
    """
    values = first.average_precisions, second.average_precisions
    if values[0] is None or values[1] is None:
        return None
    counted = counted_queries([*first.runs, *second.runs], [*values[0].values(), *values[1].values()])
    common = values[0].keys() & values[1].keys()
    one, other = (
        np.mean([value[counted] for seed, value in by_seed.items() if seed in common or not common], axis=0)
        for by_seed in (values[0], values[1])
    )
    return one, other


def counted_queries(runs: Sequence[StoredRun], values: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Return a mask [queries] of the queries that the means of runs of one protocol include.

    Args:
        runs: The runs.
        values: AP of each query [queries] for each run; NaN for queries that are left out.

    Raises:
        HashbenchError: The values of a run are NaN for a different number of queries than its record leaves
            out, or for different queries than those of the first run.
    """
    missing = [np.isnan(value) for value in values]
    for run, row in zip(runs, missing, strict=True):
        skips = run.record.config["evaluation"]["no_relevant"] == "skip"
        left_out = run.record.queries_without_relevant if skips else 0
        if row.sum() != left_out or not np.array_equal(row, missing[0]):
            raise HashbenchError(
                f"{run.folder / QUERIES}: the AP of {row.sum()} queries is NaN, expected that of the "
                f"{left_out} that the mean leaves out; `hashbench results verify` shows what is damaged"
            )
    return ~missing[0]


def cells(runs: Sequence[StoredRun]) -> dict[Column, dict[str, Cell]]:
    """Group runs into cells: by column, from short to long codes, and by label, in the order of the runs.

    Raises:
        UsageError: Runs of a cell differ in more than the seed.
    """
    columns: dict[Column, dict[str, list[StoredRun]]] = {}
    for run in runs:
        columns.setdefault(column_of(run.record), {}).setdefault(run.label, []).append(run)
    for name, rows in columns.items():
        for label, row in rows.items():
            _require_one_setting(f"{label}, {name}", row)
    return {
        name: {
            label: Cell(tuple(sorted(row, key=lambda run: run.record.seed)), row[0].metric)
            for label, row in columns[name].items()
        }
        for name in in_order(columns)
    }


def by_split(runs: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    """Group runs by the name of their dataset and protocol."""
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(run.record.split_name, []).append(run)
    return groups


def in_order(columns: Iterable[Column]) -> list[Column]:
    """Sort columns by the first occurrence of their dataset and protocol, then by code length."""
    found = list(columns)
    first_index = {name: index for index, name in reversed(list(enumerate(column[:2] for column in found)))}
    return sorted(found, key=lambda column: (first_index[column[:2]], column.bits))


def require_one_protocol(refusal: str, runs: Iterable[StoredRun]) -> None:
    """Check that the figures of runs measure the same on the same images.

    Args:
        refusal: Beginning of the error message.
        runs: The runs.

    Raises:
        UsageError: The runs differ in their split, the definitions of the metrics or the evaluator's version.
    """
    values: dict[str, dict[Any, str]] = {}
    for run in runs:
        for key, value in measured(run.record).items():
            values.setdefault(key, {}).setdefault(value, run.record.run_id)
    for key, found in values.items():
        if len(found) > 1:
            examples = "; ".join(f"{value} ({run_id})" for value, run_id in found.items())
            raise UsageError(f"{refusal}, since they differ in {key}: {examples}")


def _require_one_setting(cell: str, runs: Sequence[StoredRun]) -> None:
    """Raise UsageError if runs differ in more than the seed, since they are no sample of one setting."""
    for path, values in differing(runs).items():
        found = ", ".join(map(as_set, values))
        raise UsageError(
            f"runs of {cell} differ in more than the seed ({path}: {found}), so their mean is undefined; "
            f"choose one value with --where {path}={as_set(values[0])}"
        )
