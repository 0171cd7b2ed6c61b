"""Metrics of neighbouring fields: against brute force, and against torchmetrics where definitions agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hashbench import BinaryCodes, ProductCodes, evaluate
from hashbench.errors import UsageError
from hashbench.evaluation.presets import published

RANDOM = np.random.RandomState(0)


def without_ties(queries: int = 6, items: int = 40) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Return arguments of `evaluate` in which no distances are tied, and the distances [queries, items]."""
    distances = np.array([RANDOM.permutation(np.arange(1, items + 1)) for _ in range(queries)])
    # Query q has ones in its own block of bits, of which item i lacks as many as its distance.
    blocks = np.arange(items + 1) >= distances[:, :, None]  # [queries, items, bits of a block]
    ones = np.eye(queries, dtype=bool)[:, :, None] & np.ones(items + 1, bool)
    own = np.where(ones, True, False).reshape(queries, -1)
    database = blocks.transpose(1, 0, 2).reshape(items, -1)
    # Pad each item so that all have the same number of ones outside of any block.
    counts = database.sum(axis=1)
    padding = np.arange(counts.max()) < (counts.max() - counts)[:, None]
    arrays = {
        "query_codes": np.hstack([own, np.zeros((queries, counts.max()), bool)]),
        "database_codes": np.hstack([database, padding]),
        "query_labels": RANDOM.randint(0, 3, queries),
        "database_labels": RANDOM.randint(0, 3, items),
    }
    found = (arrays["query_codes"][:, None] != arrays["database_codes"]).sum(axis=2)
    assert all(len(set(row)) == items for row in found)
    return arrays, found


def test_definitions_that_torchmetrics_shares() -> None:
    functional = pytest.importorskip("torchmetrics.functional.retrieval")
    arrays, distances = without_ties()
    ev = evaluate(**arrays, k=(7, "R", "all"))
    scores, targets = (
        -torch.as_tensor(distances).float() + 1000,
        torch.as_tensor(arrays["query_labels"][:, None] == arrays["database_labels"]),
    )
    rows = [*zip(scores, targets, strict=True)]

    def mean(function: Any, **options: Any) -> float:
        return float(np.mean([function(*row, **options) for row in rows]))

    metrics = {name: figure["expected"] for name, figure in ev.to_dict()["metrics"].items()}
    assert metrics["P@R"] == pytest.approx(mean(functional.retrieval_r_precision), abs=1e-6)
    for k in (7, "all"):
        top = {} if k == "all" else {"top_k": k}
        assert metrics[f"mAP@{k}"] == pytest.approx(mean(functional.retrieval_average_precision, **top))
        assert metrics[f"P@{k}"] == pytest.approx(mean(functional.retrieval_precision, **top), abs=1e-6)
        assert metrics[f"R@{k}"] == pytest.approx(mean(functional.retrieval_recall, **top), abs=1e-6)


def test_r_of_product_codes_and_of_queries_without_relevant_items() -> None:
    codebooks = RANDOM.rand(2, 4, 3).astype(np.float32)
    database = ProductCodes(RANDOM.randint(0, 4, (30, 2)).astype(np.uint8), codebooks)
    labels = RANDOM.randint(0, 3, 30)
    ev = evaluate(database[:3], database, np.array([0, 1, 9]), labels, k=("R",))
    assert ev.average_precision("R")[2] == 0
    for query in range(2):
        k = int((labels == query).sum())
        one = evaluate(database[query : query + 1], database, [query], labels, denominator="relevant")
        assert ev.average_precision("R")[query] == one.average_precision(k)[0]
    assert (
        ev.precision("R") == ev.recall("R") == evaluate(database[:3], database, [0, 1, 9], labels).recall("R")
    )


def test_r_is_not_for_every_metric() -> None:
    codes, labels = BinaryCodes.from_array(RANDOM.randint(0, 2, (9, 8))), RANDOM.randint(0, 2, 9)
    ev = evaluate(codes, codes, labels, labels, k=("R", 3), graded=True)
    assert {"mAP@R", "NDCG@3"} < set(ev.to_dict()["metrics"])
    assert "NDCG@R" not in ev.to_dict()["metrics"]
    for call in (ev.ndcg, ev.acg, ev.curve_by_rank):
        with pytest.raises(UsageError, match="expected a number of items or 'all', got 'R'"):
            call("R")
    with pytest.raises(UsageError, match="paper:wch: k: expected a number of items, .* got 'R'"):
        published(codes, codes, labels, labels, "paper:wch", k="R")


def draw(kind: str, queries: int = 12, items: int = 60) -> dict[str, Any]:
    """Draw arguments of `evaluate` in which the database holds the queries, in another order and code."""
    random = np.random.RandomState(3)
    labels = random.randint(0, 2, (items, 4)) if kind == "multi-hot" else random.randint(0, 4, items)
    own = random.permutation(items)[:queries]
    ids = np.array([f"image {number}" for number in range(items)])
    arrays = {
        "query_labels": labels[own],
        "database_labels": labels,
        "query_ids": ids[own],
        "database_ids": ids,
    }
    if kind == "product":
        database = ProductCodes(
            random.randint(0, 4, (items, 2)).astype(np.uint8), random.rand(2, 4, 3).astype(np.float32)
        )
        return {
            **arrays,
            "query_codes": random.rand(queries, 6).astype(np.float32),
            "database_codes": database,
        }
    codes = random.randint(0, 2, (items, 9))
    changed = codes[own] ^ (random.rand(queries, 9) < 0.2)  # the own item is not always at distance 0
    return {**arrays, "query_codes": changed, "database_codes": codes}


def one_by_one(arrays: dict[str, Any], own: NDArray[np.int64], **settings: Any) -> list[Any]:
    """Evaluate each query with a database without its own item."""
    found = []
    for query, item in enumerate(own):
        rest = np.arange(len(arrays["database_codes"])) != item
        part = {name: arrays[name][query : query + 1] for name in ("query_codes", "query_labels")}
        part |= {name: arrays[name][rest] for name in ("database_codes", "database_labels")}
        found.append(evaluate(**part, **settings))
    return found


@pytest.mark.parametrize("kind", ["ids", "multi-hot", "product"])
def test_exclude_self_equals_a_database_without_the_query(kind: str) -> None:
    arrays = draw(kind)
    own = np.array([arrays["database_ids"].tolist().index(name) for name in arrays["query_ids"]])
    settings: dict[str, Any] = {"k": (5, "R", "all"), "graded": kind != "product"}
    found = evaluate(**arrays, exclude_self=True, **settings)
    assert found.rankings.database == 59
    alone = [one.to_dict()["metrics"] for one in one_by_one(arrays, own, **settings)]
    for name, metric in found.to_dict()["metrics"].items():
        for part, value in metric.items():
            assert value == pytest.approx(np.mean([one[name][part] for one in alone]), abs=1e-14), name
    without = {name: array for name, array in arrays.items() if not name.endswith("ids")}
    assert evaluate(**without, **settings).to_dict() != found.to_dict()


def test_own_items_without_labels_are_not_relevant() -> None:
    codes, labels = np.eye(3, 8, dtype=int), np.array([[0, 0], [1, 0], [1, 1]])
    ev = evaluate(
        codes, codes, labels, labels, exclude_self=True, query_ids=[1, 2, 3], database_ids=[1, 2, 3]
    )
    assert ev.counts.relevant.sum(axis=1).tolist() == [0, 1, 1]


@pytest.mark.parametrize("kind", ["ids", "product"])
@pytest.mark.parametrize("exclude", [False, True])
def test_neighbours_equal_labels_that_say_the_same(kind: str, exclude: bool) -> None:
    arrays = draw(kind)
    random = np.random.RandomState(5)
    neighbours = np.array([random.permutation(60)[:7] for _ in range(12)])
    neighbours[:4, 0] = [arrays["database_ids"].tolist().index(name) for name in arrays["query_ids"][:4]]
    neighbours[:4, 1:] = [
        [item for item in random.permutation(60) if item != row[0]][:6] for row in neighbours[:4]
    ]
    # Label q is on query q and on its neighbours.
    multi_hot = np.zeros((60, 12), int)
    for query, row in enumerate(neighbours):
        multi_hot[row, query] = 1
    ids = {name: arrays.pop(name) for name in ("query_ids", "database_ids")}
    rule = {"exclude_self": True, **ids} if exclude else {}
    labels = {"query_labels": np.eye(12, dtype=int), "database_labels": multi_hot}
    codes = {name: arrays[name] for name in ("query_codes", "database_codes")}
    found = evaluate(**codes, neighbours=neighbours, k=(5, "R", "all"), **rule)
    assert found.to_dict() == evaluate(**codes, **labels, k=(5, "R", "all"), **rule).to_dict()
    with pytest.raises(UsageError, match="per_class needs the labels"):
        found.per_class()


def test_recall_of_true_neighbours_by_brute_force() -> None:
    arrays, distances = without_ties()
    neighbours = np.array([RANDOM.permutation(40)[:5] for _ in distances])
    ev = evaluate(arrays["query_codes"], arrays["database_codes"], None, None, k=(10,), neighbours=neighbours)
    nearest = np.argsort(distances)[:, :10]
    expected = [len(set(top) & set(true)) / 5 for top, true in zip(nearest, neighbours, strict=True)]
    assert ev.recall(10) == pytest.approx(np.mean(expected))


def test_per_class_by_brute_force() -> None:
    for kind in ("ids", "multi-hot"):
        arrays = {name: array for name, array in draw(kind).items() if not name.endswith("ids")}
        ev = evaluate(**arrays)
        labels = arrays["query_labels"]
        of = {c: labels[:, c] == 1 if kind == "multi-hot" else labels == c for c in range(4)}
        present = {c: mask for c, mask in of.items() if mask.any()}
        table = ev.per_class(5)
        assert table.index.tolist() == [*present, "macro", "micro"]
        for c, mask in present.items():
            assert table.loc[c, "queries"] == mask.sum()
            assert table.loc[c, "expected"] == pytest.approx(ev.average_precision(5)[mask].mean())
            one = evaluate(**arrays | {name: arrays[name][mask] for name in ("query_codes", "query_labels")})
            assert tuple(table.loc[c, ["lowest", "highest"]]) == pytest.approx(one.bounds(5))
        macro = np.mean([ev.average_precision(5)[mask].mean() for mask in present.values()])
        assert table.loc["macro", "expected"] == pytest.approx(macro)
        assert table.loc["micro", "expected"] == pytest.approx(ev.mean_average_precision(5))
        assert table.loc["micro", "queries"] == 12


def test_per_class_leaves_out_queries_that_are_not_counted() -> None:
    codes = np.eye(4, 8, dtype=int)
    ev = evaluate(codes, codes[:2], [0, 0, 1, 7], [0, 1], no_relevant="skip")
    assert ev.per_class()["queries"].to_dict() == {0: 2, 1: 1, "macro": 3, "micro": 3}


CODES = np.eye(3, 8, dtype=int)
IDS = {"query_ids": ["a", "b", "c"], "database_ids": ["c", "b", "a"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude_self": True}, "exclude_self=True, query_ids and database_ids need each other"),
        (IDS, "exclude_self=True, query_ids and database_ids need each other"),
        ({"exclude_self": 1}, "exclude_self: expected bool"),
        ({**IDS, "exclude_self": True, "query_ids": ["a", "x", "c"]}, "1 of 3 ids are not in .* such as 'x'"),
        (
            {**IDS, "exclude_self": True, "database_ids": ["a", "a", "c"]},
            "database_ids: .*'a' more than once",
        ),
        (
            {**IDS, "exclude_self": True, "query_ids": [1, 2]},
            "query_ids: expected 3 ids, one per code, got 2",
        ),
        ({"query_labels": None}, "expected query_labels and database_labels, or neighbours"),
        ({"neighbours": [[0]] * 3}, "expected query_labels and database_labels, or neighbours"),
        ({"neighbours": [[0, 0]] * 3, "query_labels": None, "database_labels": None}, "some twice at 0"),
        (
            {"neighbours": [[3]] * 3, "query_labels": None, "database_labels": None},
            "rows from 0 to 2, got 3 to 3",
        ),
        (
            {"neighbours": [[0.0]] * 3, "query_labels": None, "database_labels": None},
            "integers .queries = 3, n",
        ),
        (
            {"neighbours": [[0]] * 3, "query_labels": None, "database_labels": None, "graded": True},
            "graded: expected labels, got neighbours",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_of_one_line(changes: dict[str, Any], message: str) -> None:
    arguments = {
        "query_codes": CODES,
        "database_codes": CODES,
        "query_labels": [0, 1, 2],
        "database_labels": [0, 1, 2],
    }
    with pytest.raises(UsageError, match=message):
        evaluate(**{**arguments, **changes})
