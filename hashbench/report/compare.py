"""Comparisons of two runs query by query, and of two methods over their common seeds and code lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hashbench.config import flatten
from hashbench.errors import UsageError
from hashbench.report.aggregate import Cell, Column, cells, counted_queries, paired, require_one_protocol
from hashbench.report.significance import Difference, Pair, PairedTest, paired_test
from hashbench.results.stored_run import StoredRun

_COMPARED = {"config", "environment", "evaluator"}


@dataclass(frozen=True)
class QueryChange:
    """AP of one query by two runs.

    Attributes:
        query: Id of the image.
        first: AP by the first run.
        second: AP by the second run.
    """

    query: str
    first: float
    second: float


@dataclass(frozen=True)
class Comparison:
    """The differences between two runs.

    Attributes:
        metric: Name of the compared mAP.
        means: The mAP of the first and of the second run.
        difference: First minus second.
        queries: The queries, sorted by the change of their AP, largest first.
        settings: Differences in configuration and environment by dotted path: the values of the first and of
            the second run.
    """

    metric: str
    means: tuple[float, float]
    difference: Difference
    queries: list[QueryChange]
    settings: dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class MethodDifference:
    """The difference of two methods on one split.

    Attributes:
        split: Name of the dataset and the protocol.
        bits: The code lengths over which the AP of each query is averaged.
        seeds: The seeds that both methods have at each of them; empty if they share none and all seeds count.
        metric: Name of the mAP.
        means: The mAP of the first and of the second method.
        difference: First minus second.
    """

    split: str
    bits: tuple[int, ...]
    seeds: tuple[int, ...]
    metric: str
    means: tuple[float, float]
    difference: Difference


def compare_methods(
    runs: Sequence[StoredRun], test: PairedTest = "bootstrap", across_backbones: bool = False
) -> tuple[tuple[str, str], list[MethodDifference]]:
    """Compare two methods at each code length and over all code lengths that both have.

    Args:
        runs: The runs of both methods, from `select` with a mAP.
        test: The test of the differences.
        across_backbones: Compare the methods even if their backbones or image sizes differ.

    Returns:
        The labels of the methods, in the order of the runs, and their differences.

    Raises:
        UsageError: There are not two methods, they share no split and code length, or their backbones differ.
        HashbenchError: The AP of the queries of a run is damaged.
    """
    labels = list(dict.fromkeys(run.label for run in runs))
    if len(labels) != 2:
        raise UsageError(
            f"expected the runs of two methods, got those of {', '.join(labels)}; choose two with --method "
            "A,B and, if their settings differ, --where or --unchanged"
        )
    first, second = labels
    compared: dict[str, list[_Compared]] = {}  # by split
    for column, row in cells(runs).items():
        pair = paired(row[first], row[second]) if len(row) == 2 else None
        if pair is None:
            continue
        backbones = row[first].backbone, row[second].backbone
        if backbones[0] != backbones[1] and not across_backbones:
            raise UsageError(
                f"on {column}, {first} runs on {backbones[0]} and {second} on {backbones[1]}; choose one "
                "with --backbone or --where, or add --across-backbones"
            )
        compared.setdefault(column.split_name, []).append(_Compared(column, row[first], row[second], pair))
    if not compared:
        raise UsageError(f"{first} and {second} share no dataset and code length with AP of the queries")
    groups = []  # each code length of a split, then all of them
    for columns in compared.values():
        groups += [[column] for column in columns] + ([columns] if len(columns) > 1 else [])
    return (first, second), _differences(groups, test)


class _Compared(NamedTuple):
    """Two cells of a column, and the AP of each query in both."""

    column: Column
    first: Cell
    second: Cell
    pair: Pair


def _differences(groups: Sequence[Sequence[_Compared]], test: PairedTest) -> list[MethodDifference]:
    """Test the difference of two methods in each group of columns."""
    pairs = [
        (
            np.mean([compared.pair[0] for compared in group], axis=0),
            np.mean([compared.pair[1] for compared in group], axis=0),
        )
        for group in groups
    ]
    return [
        MethodDifference(
            group[0].column.split_name,
            tuple(compared.column.bits for compared in group),
            tuple(sorted(set.intersection(*({*c.first.seeds} & {*c.second.seeds} for c in group)))),
            group[0].first.metric,
            (float(one.mean()), float(other.mean())),
            difference,
        )
        for group, (one, other), difference in zip(groups, pairs, paired_test(pairs, test), strict=True)
    ]


def compare(
    first: StoredRun, second: StoredRun, metric: str | None = None, test: PairedTest = "bootstrap"
) -> Comparison:
    """Compare two runs on the same queries.

    Args:
        first: The first run.
        second: The second run, on the same split; method, code length and all other settings may differ.
        metric: Name of a mAP that both runs have; None: the first of the first run.
        test: The test of the difference.

    Raises:
        UsageError: The runs differ in the split or in definitions of metrics, or a value is missing.
        HashbenchError: The runs do not count the same queries.
    """
    runs, metric = (first, second), metric or first.record.first_metric
    require_one_protocol("the two runs cannot be compared", runs)
    for run in runs:
        if metric not in run.record.metrics or not metric.startswith("mAP@"):
            known = ", ".join(name for name in run.record.metrics if name.startswith("mAP@"))
            raise UsageError(
                f"{run.record.run_id} has no {metric} of each query; choose --metric from {known}"
            )
    values = [run.average_precisions(metric) for run in runs]
    if values[0] is None or values[1] is None:
        lacking = first if values[0] is None else second
        raise UsageError(
            f"{lacking.folder} has no AP of its queries by the installed evaluator; run it again with --force"
        )
    counted = counted_queries(runs, [values[0], values[1]])
    ids = np.array(first.query_ids())[counted]
    one, other = values[0][counted], values[1][counted]
    order = np.argsort(-np.abs(one - other), kind="stable")
    settings = [flatten(run.record.model_dump(mode="json", include=_COMPARED)) for run in runs]
    differing = {
        path: (settings[0].get(path), settings[1].get(path))
        for path in dict.fromkeys([*settings[0], *settings[1]])
        if settings[0].get(path) != settings[1].get(path)
    }
    return Comparison(
        metric,
        (first.record.metrics[metric].expected, second.record.metrics[metric].expected),
        paired_test([(one, other)], test)[0],
        [QueryChange(str(ids[row]), float(one[row]), float(other[row])) for row in order],
        differing,
    )
