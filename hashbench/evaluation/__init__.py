"""The evaluator: retrieval metrics of codes and labels, exact also if distances are tied."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hashbench.codes import Codes, ProductCodes
from hashbench.errors import UsageError
from hashbench.evaluation.counts.binary import Counts, count_pairs
from hashbench.evaluation.counts.graded import GradedCounts, count_graded_pairs
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.counts.product import ProductRankings
from hashbench.evaluation.counts.relevance import Relevance
from hashbench.evaluation.health import CodeHealth, code_health
from hashbench.evaluation.inputs import (
    Cutoffs,
    Denominator,
    NoRelevant,
    check_settings,
    read_codes,
    read_relevance,
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
    query_labels: ArrayLike | None = None,
    database_labels: ArrayLike | None = None,
    k: Cutoffs = (1000, "all"),
    radius: int = 2,
    denominator: Denominator = "hits",
    no_relevant: NoRelevant = "zero",
    graded: bool = False,
    device: str = "cpu",
    neighbours: ArrayLike | None = None,
    exclude_self: bool = False,
    query_ids: ArrayLike | None = None,
    database_ids: ArrayLike | None = None,
) -> Evaluation:
    """Rank the database by distance from each query and compute retrieval metrics.

    An item is relevant to a query if they share at least one label. The order of items at the same distance
    is undefined, so each metric is the exact expectation over all orders of tied items, with bounds.

    Args:
        query_codes: BinaryCodes, or an array or tensor [queries, bits] of ±1, {0, 1} or bool.
        database_codes: Codes in the same domain. If they are ProductCodes, the queries are real values
            [queries, books · dim] (distances are then asymmetric), or ProductCodes, which are replaced by
            their codewords.
        query_labels: Class ids [queries], or multi-hot [queries, classes].
        database_labels: Labels of the database, in the same form.
        k: The cut-offs to report, each a number of items retrieved, "all", or "R", the number of relevant
            items of each query: a single one, or a list, array or tensor.
        radius: Hamming radius, in bits, of the precision and the mAP within a radius.
        denominator: Divisor of AP@k: "hits", the number of relevant items in the top k; "relevant",
            min(k, number of relevant items); or "all_relevant", the number of relevant items in the database.
        no_relevant: Queries without relevant items score 0 ("zero") or are excluded from every mean ("skip").
        graded: Count the labels that two items share, for NDCG@k and ACG@k. Binary codes only.
        device: Device on which pairs are counted: "cpu", "cuda", or "auto", which is a GPU if there is one
            and there are at least 10 billion pairs. Product codes and graded counts are always computed on
            the CPU.
        neighbours: Rows of the database [queries, n] that are relevant to each query, instead of labels.
        exclude_self: Exclude the item with the id of the query from a database that holds the queries.
        query_ids: Ids of the queries, for `exclude_self`.
        database_ids: Ids of the database, for `exclude_self`.

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
    labels, ids = (query_labels, database_labels), (query_ids, database_ids)
    read = functools.partial(read_relevance, labels, neighbours, exclude_self, ids)
    return Evaluation(**_count(query_codes, database_codes, read, graded, device), **settings)


def _count(
    query_codes: Codes | ArrayLike,
    database_codes: Codes | ArrayLike,
    read: Callable[[tuple[Sized, Sized]], Relevance],
    graded: bool,
    device: str,
) -> dict[str, Any]:
    """Return the arguments of `Evaluation` that are not settings."""
    if isinstance(database_codes, ProductCodes):
        if graded:
            raise UsageError("graded: expected binary codes, got product codes; remove `graded`")
        vectors = read_vectors(query_codes, database_codes)
        relevance = read((vectors, database_codes))
        rankings = ProductRankings(vectors, database_codes, relevance)
        return {"rankings": rankings, "query_labels": relevance.labels}
    codes = read_codes(query_codes, database_codes)
    relevance = read(codes)
    if graded:
        if relevance.labels is None:
            raise UsageError("graded: expected labels, got neighbours; remove `graded`")
        shared = relevance.count_graded(*codes)
        return {"rankings": shared.counts, "graded": shared, "query_labels": relevance.labels}
    return {"rankings": relevance.count(*codes, device), "query_labels": relevance.labels}
