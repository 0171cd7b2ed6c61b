"""Golden values from published scripts and enumerated cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hashbench.evaluation import Counts, Evaluation, evaluate

GOLDEN = Path(__file__).parents[1] / "golden"
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-12}
# The published scripts compute in float32.
PUBLISHED: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def with_ties() -> Mapping[str, NDArray[Any]]:
    golden: Mapping[str, NDArray[Any]] = np.load(GOLDEN / "ranking_with_ties.npz")
    return golden


@pytest.fixture
def evaluation(with_ties: Mapping[str, NDArray[Any]]) -> Evaluation:
    return evaluate(
        with_ties["query_codes"],
        with_ties["database_codes"],
        with_ties["query_labels"],
        with_ties["database_labels"],
    )


def test_without_ties() -> None:
    golden = np.load(GOLDEN / "ranking_without_ties.npz")
    for query in range(len(golden["query_codes"])):
        one = slice(query, query + 1)
        ev = evaluate(
            golden["query_codes"][one],
            golden["database_codes"][query],
            golden["query_labels"][one],
            golden["database_labels"][query],
        )
        for k, expected in zip(golden["k"], golden["map_at_k"][query], strict=True):
            assert ev.mean_average_precision(k) == pytest.approx(expected, rel=1e-6)
            assert ev.bounds(k) == pytest.approx((expected, expected), rel=1e-6)
        curve = ev.curve_by_rank(golden["pr_ranks"])
        np.testing.assert_allclose(curve["precision"], golden["precision_at_rank"][query], **PUBLISHED)
        np.testing.assert_allclose(curve["recall"], golden["recall_at_rank"][query], **PUBLISHED)


def test_with_ties(with_ties: Mapping[str, NDArray[Any]], evaluation: Evaluation) -> None:
    for column, k in enumerate(with_ties["k"]):
        expected = with_ties["map_at_k_expected"][column]
        lowest, highest = evaluation.bounds(k)
        np.testing.assert_allclose(
            evaluation.average_precision(k), with_ties["ap_at_k_expected"][:, column], **CLOSE
        )
        assert evaluation.mean_average_precision(k) == pytest.approx(expected, abs=1e-12)
        sampled, error = (
            with_ties["map_at_k_mean_over_orders"][column],
            with_ties["map_at_k_standard_error"][column],
        )
        assert abs(evaluation.mean_average_precision(k) - sampled) < 4 * error
        assert lowest <= with_ties["map_at_k_lowest_seen"][column]
        assert highest >= with_ties["map_at_k_highest_seen"][column]


def test_published_micro_curve_leaves_the_last_radius_out(
    with_ties: Mapping[str, NDArray[Any]], evaluation: Evaluation
) -> None:
    precision, recall = with_ties["micro_precision_by_radius"], with_ties["micro_recall_by_radius"]
    curve = evaluation.curve_by_radius("micro")
    np.testing.assert_allclose(curve["precision"][: len(precision)], precision, **PUBLISHED)
    np.testing.assert_allclose(curve["recall"][: len(recall)], recall, **PUBLISHED)
    assert curve["recall"].iloc[-1] == 1


def test_published_macro_curve_averages_over_queries_with_precision(
    with_ties: Mapping[str, NDArray[Any]], evaluation: Evaluation
) -> None:
    items = np.cumsum(evaluation.counts.items, axis=1)
    relevant = np.cumsum(evaluation.counts.relevant, axis=1)
    counted = np.maximum((relevant > 0).sum(axis=0), 1)
    precision, recall = relevant / np.maximum(items, 1), relevant / relevant[:, -1:]
    np.testing.assert_allclose(
        precision.sum(axis=0) / counted, with_ties["macro_precision_by_radius"], **PUBLISHED
    )
    np.testing.assert_allclose(recall.sum(axis=0) / counted, with_ties["macro_recall_by_radius"], **PUBLISHED)
    curve = evaluation.curve_by_radius("macro")
    np.testing.assert_allclose(curve["precision"], precision.mean(axis=0), **CLOSE)
    np.testing.assert_allclose(curve["recall"], recall.mean(axis=0), **CLOSE)


def test_enumerated_cases() -> None:
    for case in json.loads((GOLDEN / "tie_aware_ap.json").read_text()):
        counts = Counts(np.array([case["items_per_distance"]]), np.array([case["relevant_per_distance"]]))
        ev = Evaluation(counts)
        found = (ev.mean_average_precision(case["k"]), *ev.bounds(case["k"]))
        expected = [np.divide(*case[name]) for name in ("expected", "lowest", "highest")]
        assert found == pytest.approx(expected, abs=1e-14), case
