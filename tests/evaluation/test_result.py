from __future__ import annotations

import json
from typing import Any, cast, get_args

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from hashbench.errors import UsageError
from hashbench.evaluation import Counts, Evaluation, evaluate
from hashbench.evaluation.inputs import Average, Cutoff

CUTOFFS: tuple[Cutoff, ...] = (1, 7, 50, "all")


@pytest.fixture(scope="module")
def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    signs = rng.choice([-1, 1], (220, 16))
    labels = rng.random((220, 5)) < 0.2
    labels[:20, 0] = True
    labels[0] = False  # the only query without a relevant item
    return {
        "query_codes": signs[:20],
        "database_codes": signs[20:],
        "query_labels": labels[:20],
        "database_labels": labels[20:],
    }


def metrics(**inputs: Any) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = evaluate(**inputs, k=CUTOFFS).to_dict()["metrics"]
    return found


def test_order_of_database_and_of_labels_does_not_matter(inputs: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    order, columns = rng.permutation(200), rng.permutation(5)
    shuffled = {
        **inputs,
        "database_codes": inputs["database_codes"][order],
        "database_labels": inputs["database_labels"][order][:, columns],
        "query_labels": inputs["query_labels"][:, columns],
    }
    assert metrics(**shuffled) == metrics(**inputs)


def test_any_order_of_equal_distances_lies_within_the_bounds(inputs: dict[str, Any]) -> None:
    ev = evaluate(**inputs)
    rng = np.random.default_rng(5)
    distance = (16 - inputs["query_codes"] @ inputs["database_codes"].T) / 2
    relevant = inputs["query_labels"].astype(int) @ inputs["database_labels"].T.astype(int) > 0
    for k in CUTOFFS:
        top = 200 if k == "all" else int(k)
        lowest, highest = ev.bounds(k)
        assert lowest <= ev.mean_average_precision(k) <= highest
        for _ in range(20):
            order = np.lexsort((rng.random(distance.shape), distance))
            hits = np.take_along_axis(relevant, order, axis=1)[:, :top]
            precision = np.cumsum(hits, axis=1) / np.arange(1, top + 1)
            mean = ((precision * hits).sum(axis=1) / np.maximum(hits.sum(axis=1), 1)).mean()
            assert lowest - 1e-12 <= mean <= highest + 1e-12


def test_without_ties_it_is_the_average_precision_of_scikit_learn() -> None:
    rng = np.random.default_rng(6)
    distances = rng.permutation(65)[:40]
    database = np.where(np.arange(64) < distances[:, None], -1, 1)
    labels = rng.integers(0, 2, 40)
    ev = evaluate(np.ones((1, 64)), database, [1], labels)
    expected = average_precision_score(labels, -distances)
    assert ev.mean_average_precision("all") == pytest.approx(expected)
    assert ev.bounds("all") == pytest.approx((expected, expected))


def test_perfect_and_worst_ranking() -> None:
    items = np.array([[30, 70]])
    perfect = Evaluation(Counts(items, np.array([[30, 0]])))
    assert perfect.mean_average_precision("all") == pytest.approx(1)
    assert perfect.bounds(10) == pytest.approx((1, 1))
    assert perfect.recall(30) == perfect.precision(30) == 1
    assert Evaluation(Counts(items, np.array([[0, 70]]))).mean_average_precision(30) == 0


def test_denominators() -> None:
    counts = Counts(np.array([[1, 3]]), np.array([[1, 3]]))
    assert Evaluation(counts).mean_average_precision(2) == pytest.approx(1)
    counts = Counts(np.array([[1, 2, 3]]), np.array([[1, 0, 3]]))
    assert Evaluation(counts).mean_average_precision(2) == pytest.approx(1)
    assert Evaluation(counts, denominator="relevant").mean_average_precision(2) == pytest.approx(0.5)


def test_k_beyond_the_database_means_the_database(inputs: dict[str, Any]) -> None:
    ev = evaluate(**inputs, k=(1000, "all"))
    found = ev.to_dict()["metrics"]
    for name in ("mAP", "P", "R"):
        assert found[f"{name}@1000"] == found[f"{name}@all"]


def test_queries_without_relevant_items(inputs: dict[str, Any]) -> None:
    zero, skip = evaluate(**inputs), evaluate(**inputs, no_relevant="skip")
    assert zero.queries_without_relevant == skip.queries_without_relevant == 1
    assert zero.average_precision(50)[0] == 0
    for metric in ("mean_average_precision", "precision", "recall"):
        assert getattr(skip, metric)(50) == pytest.approx(getattr(zero, metric)(50) * 20 / 19)
    assert skip.precision_within_radius == pytest.approx(zero.precision_within_radius * 20 / 19)
    without = {**inputs, "query_codes": inputs["query_codes"][1:], "query_labels": inputs["query_labels"][1:]}
    expected = evaluate(**without)
    for average in get_args(Average):
        assert skip.curve_by_radius(average).equals(expected.curve_by_radius(average))
    assert skip.curve_by_rank().equals(expected.curve_by_rank())


def test_precision_within_radius_counts_an_empty_ball_as_zero() -> None:
    counts = Counts(np.array([[0, 1, 1, 2], [0, 0, 0, 4]]), np.array([[0, 1, 0, 1], [0, 0, 0, 4]]))
    assert Evaluation(counts).precision_within_radius == pytest.approx((1 / 2 + 0) / 2)
    assert Evaluation(counts, radius=1).precision_within_radius == pytest.approx((1 + 0) / 2)
    assert Evaluation(counts, radius=9).precision_within_radius == pytest.approx((2 / 4 + 1) / 2)


def test_average_precision_within_radius_is_of_the_ball_alone() -> None:
    items = np.array([[0, 2, 1, 9], [0, 0, 0, 12], [3, 0, 0, 9]])
    relevant = np.array([[0, 1, 1, 9], [0, 0, 0, 12], [0, 0, 0, 1]])
    # The first query has [+ − +] or [− + +]; the others have nothing, or nothing relevant, within the radius.
    first, second = (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2
    ev = Evaluation(Counts(items, relevant), denominator="relevant")
    assert ev.mean_average_precision_within_radius == pytest.approx((first + second) / 2 / 3)
    assert ev.bounds_within_radius == pytest.approx((second / 3, first / 3))
    whole = Evaluation(Counts(items, relevant), radius=9)
    assert whole.mean_average_precision_within_radius == pytest.approx(whole.mean_average_precision("all"))
    assert whole.bounds_within_radius == pytest.approx(whole.bounds("all"))


def test_device(inputs: dict[str, Any]) -> None:
    assert evaluate(**inputs, device="auto").to_dict() == evaluate(**inputs).to_dict()
    for graded in (False, True):
        with pytest.raises(UsageError, match="device: expected 'cpu', 'cuda' or 'auto', got 'tpu'"):
            evaluate(**inputs, graded=graded, device="tpu")


def test_curve_by_rank(inputs: dict[str, Any]) -> None:
    ev = evaluate(**inputs, no_relevant="skip")
    curve = ev.curve_by_rank()
    assert list(curve.columns) == ["rank", "precision", "recall"]
    assert curve["rank"].is_monotonic_increasing
    assert (curve["rank"].iloc[0], curve["rank"].iloc[-1]) == (1, 200)
    assert curve["recall"].iloc[-1] == pytest.approx(1)
    asked = ev.curve_by_rank([3, 17])
    assert asked["precision"].tolist() == [ev.precision(3), ev.precision(17)]
    assert asked["recall"].tolist() == [ev.recall(3), ev.recall(17)]
    for one in (5, np.array([5]), "all"):
        found = ev.curve_by_rank(one)
        k = one if isinstance(one, str) else 5
        assert found["rank"].tolist() == [k]
        assert found["precision"].tolist() == pytest.approx([ev.precision(k)])
    with pytest.raises(UsageError, match="ranks: expected at least one"):
        ev.curve_by_rank([])
    with pytest.raises(UsageError, match="ranks: expected a number of items, 1 or more, 'all' or 'R', got 0"):
        ev.curve_by_rank(0)


def test_curve_by_radius(inputs: dict[str, Any]) -> None:
    ev = evaluate(**inputs)
    macro, micro = ev.curve_by_radius(), ev.curve_by_radius("micro")
    assert list(macro.columns) == ["radius", "precision", "recall"]
    assert macro["radius"].tolist() == micro["radius"].tolist() == list(range(17))
    assert macro["precision"][2] == pytest.approx(ev.precision_within_radius)
    assert micro["precision"][16] == pytest.approx(ev.counts.relevant.sum() / ev.counts.items.sum())
    assert (macro["recall"][16], micro["recall"][16]) == pytest.approx((19 / 20, 1))
    with pytest.raises(UsageError, match="average: expected 'macro' or 'micro', got 'mean'"):
        ev.curve_by_radius(cast(Average, "mean"))


def test_chance_is_the_score_of_codes_that_are_all_equal(inputs: dict[str, Any]) -> None:
    constant = {**inputs, "query_codes": np.ones((20, 16)), "database_codes": np.ones((200, 16))}
    for k in CUTOFFS:
        assert evaluate(**inputs).chance(k) == pytest.approx(evaluate(**constant).mean_average_precision(k))


def test_to_dict_is_ready_for_json(inputs: dict[str, Any]) -> None:
    ev = evaluate(**inputs, k=cast(list[Cutoff], [np.int64(5), "all"]), radius=1)
    found = json.loads(json.dumps(ev.to_dict()))
    assert found["settings"] == {
        "k": [5, "all"],
        "radius": 1,
        "denominator": "hits",
        "no_relevant": "zero",
        "bits": 16,
        "queries": 20,
        "queries_without_relevant": 1,
        "database": 200,
    }
    ranked = [f"{name}@{k}" for name in ("mAP", "P", "R") for k in (5, "all")]
    assert list(found["metrics"]) == [*ranked, "P@H<=1", "mAP@H<=1"]
    for values in found["metrics"].values():
        assert values["lowest"] <= values["expected"] <= values["highest"]
    assert found["metrics"]["mAP@5"]["expected"] == ev.mean_average_precision(5)
    assert (found["metrics"]["mAP@5"]["lowest"], found["metrics"]["mAP@5"]["highest"]) == ev.bounds(5)
