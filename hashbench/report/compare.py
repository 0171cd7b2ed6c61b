"""Comparisons of two runs query by query, and of two methods over their common seeds and code lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    compared: dict[str, dict[Column, tuple[Cell, Cell, Pair]]] = {}
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
        compared.setdefault(column.split_name, {})[column] = row[first], row[second], pair
    if not compared:
        raise UsageError(f"{first} and {second} share no dataset and code length with AP of the queries")
    groups = [
        group
        for columns in compared.values()
        for group in [*([column] for column in columns), *([list(columns)] if len(columns) > 1 else [])]
    ]
    found = [[compared[group[0].split_name][column] for column in group] for group in groups]
    means = [tuple(np.mean([pair[side] for *_, pair in row], axis=0) for side in (0, 1)) for row in found]
    tests = paired_test([(one, other) for one, other in means], test)
    return (first, second), [
        MethodDifference(
            group[0].split_name,
            tuple(column.bits for column in group),
            tuple(
                sorted(set.intersection(*({*cell.seeds} for one, other, _ in row for cell in (one, other))))
            ),
            row[0][0].metric,
            (float(one.mean()), float(other.mean())),
            difference,
        )
        for group, row, (one, other), difference in zip(groups, found, means, tests, strict=True)
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
    runs, metric = (first, second), metric or first.first_metric
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
