"""The evaluator: retrieval metrics of codes and labels, exact also if distances are tied."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np
from numpy.typing import ArrayLike

from hashbench.codes import Codes, ProductCodes
from hashbench.errors import UsageError
from hashbench.evaluation.counts.binary import Counts, count_pairs
from hashbench.evaluation.counts.graded import GradedCounts, count_graded_pairs
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.counts.product import ProductRankings
from hashbench.evaluation.health import CodeHealth, code_health
from hashbench.evaluation.inputs import (
    Cutoffs,
    Denominator,
    NoRelevant,
    check_comparable,
    check_settings,
    read_codes,
    read_labels,
    read_vectors,
)
from hashbench.evaluation.result import Evaluation
from hashbench.runtime.arguments import check_choice, check_type

__all__ = [
    "VERSION",
    "CodeHealth",
    "Counts",
    "Evaluation",
    "GradedCounts",
    "Labels",
    "code_health",
    "count_graded_pairs",
    "count_pairs",
    "evaluate",
]

VERSION = 1
"""Version of the metric definitions. It is raised when the value of a metric changes for the same codes."""


def evaluate(
    query_codes: Codes | ArrayLike,
    database_codes: Codes | ArrayLike,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    k: Cutoffs = (1000, "all"),
    radius: int = 2,
    denominator: Denominator = "hits",
    no_relevant: NoRelevant = "zero",
    graded: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Rank the database by distance from each query and compute retrieval metrics.

    An item is relevant to a query if they share at least one label. The order of items at the same distance
    is undefined, so each metric is the exact expectation over all orders of tied items, with bounds.

    Args:
        query_codes: Codes of the queries: BinaryCodes, or an array or tensor [queries, bits] of ±1, {0, 1} or
            bool.
        database_codes: Codes of the database, in the same domain. If they are ProductCodes, the queries are
            real values [queries, books · dim] (distances are then asymmetric), or ProductCodes, which are
            replaced by their codewords.
        query_labels: Labels of the queries: class ids [queries], or multi-hot [queries, classes].
        database_labels: Labels of the database, in the same form.
        k: The cut-offs to report, each a number of items retrieved or "all": a single one, or a list, array
            or tensor.
        radius: Hamming radius, in bits, of the precision and the mAP within a radius.
        denominator: Divisor of AP@k: "hits", the number of relevant items in the top k; "relevant",
            min(k, number of relevant items); or "all_relevant", the number of relevant items in the database.
        no_relevant: Queries without a relevant item in the database score 0 ("zero") or are excluded from
            every mean ("skip").
        graded: Count the labels that two items share, for NDCG@k and ACG@k. Binary codes only.
        device: Device on which pairs are counted: "cpu", "cuda", or "auto", which is a GPU if there is one.
            Product codes and graded counts are always computed on the CPU.

    Returns:
        The metrics; see `Evaluation`.

    Raises:
        UsageError: An argument is invalid or does not match another one.

    Example:
        >>> codes = [[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]]
        >>> evaluate(codes[:1], codes[1:], [0], [0, 1]).mean_average_precision("all")
        1.0
    """
    check_choice("device", device, ("cpu", "cuda", "auto"))
    check_type("graded", graded, bool, np.bool_)
    settings = check_settings(k, radius, denominator, no_relevant)
    if isinstance(database_codes, ProductCodes):
        if graded:
            raise UsageError("graded: expected binary codes, got product codes; remove `graded`")
        vectors = read_vectors(query_codes, database_codes)
        labels = _read_labels(query_labels, vectors, database_labels, database_codes)
        ranked = ProductRankings(vectors, database_codes, *labels)
        return Evaluation(ranked, **settings)
    query, database = read_codes(query_codes, database_codes)
    labels = _read_labels(query_labels, query, database_labels, database)
    if graded:
        shared = count_graded_pairs(query, database, *labels)
        return Evaluation(shared.counts, **settings, graded=shared)
    if device == "auto":
        from hashbench.runtime.device import resolve_device  # torch takes a second to import

        device = resolve_device(device)
    counts = count_pairs(query, database, *labels, device=device)
    return Evaluation(counts, **settings)


def _read_labels(
    query_labels: ArrayLike, query: Sized, database_labels: ArrayLike, database: Sized
) -> tuple[Labels, Labels]:
    query_classes = read_labels(query_labels, "query", query)
    database_classes = read_labels(database_labels, "database", database)
    check_comparable(query_classes, database_classes)
    return query_classes, database_classes
