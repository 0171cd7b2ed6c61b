"""The comparison of two runs: difference, interval, changed queries, different settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hashbench.config import flatten
from hashbench.errors import UsageError
from hashbench.report.aggregate import counted_queries, require_one_protocol
from hashbench.report.significance import Difference, PairedTest, paired_test
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


def compare(first: StoredRun, second: StoredRun, metric: str, test: PairedTest = "bootstrap") -> Comparison:
    """Compare two runs on the same queries.

    Args:
        first: The first run.
        second: The second run, on the same split; method, code length and all other settings may differ.
        metric: Name of a mAP that both runs have.
        test: The test of the difference.

    Raises:
        UsageError: The runs differ in the split or in definitions of metrics, or a value is missing.
        HashbenchError: The runs do not count the same queries.
    """
    runs = (first, second)
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
