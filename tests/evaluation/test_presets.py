"""Presets: against golden values of the published scripts, and against plain loops that rank as they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from hashbench import BinaryCodes, ProductCodes, UsageError, evaluate
from hashbench.evaluation.presets import PRESETS, Order, published, resolve_preset

GOLDEN = Path(__file__).parents[1] / "golden"
HAMMING = [name for name, preset in PRESETS.items() if not preset.product]


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def with_ties() -> dict[str, Any]:
    golden = load("ranking_with_ties.npz")
    return {
        name: golden[name] for name in ("query_codes", "database_codes", "query_labels", "database_labels")
    }


def script(
    query_codes: np.ndarray,
    database_codes: np.ndarray,
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    k: int,
) -> float:
    """As the three scripts of Hamming distances rank: single precision, NumPy's default sort."""
    query, database = query_codes.astype(np.float32), database_codes.astype(np.float32)
    total = 0.0
    for code, labels in zip(query, query_labels.astype(int), strict=True):
        relevant = database_labels.astype(int) @ labels > 0
        distance = 0.5 * (database.shape[1] - np.dot(code, database.transpose()))
        hits = score = 0
        for rank, item in enumerate(np.argsort(distance)[:k], start=1):
            if relevant[item]:
                hits += 1
                score += hits / rank
        total += score / hits if hits else 0
    return total / len(query)


def product_codes() -> dict[str, Any]:
    golden = load("spq.npz")
    books, words, dim = (int(golden[name]) for name in ("n_books", "n_words", "word_dim"))
    codebooks = golden["codebooks"].reshape(words, books, dim).transpose(1, 0, 2).copy()
    return {
        "query_codes": golden["query"],
        "database_codes": ProductCodes(golden["gallery_codes"].astype(np.uint8), codebooks),
        "query_labels": golden["query_labels"],
        "database_labels": golden["gallery_labels"],
    }


@pytest.mark.parametrize("name", HAMMING)
def test_golden_values_without_ties(name: str) -> None:
    golden = load("ranking_without_ties.npz")
    for query in range(len(golden["query_codes"])):
        one = slice(query, query + 1)
        inputs = (
            golden["query_codes"][one],
            golden["database_codes"][query],
            golden["query_labels"][one],
            golden["database_labels"][query],
        )
        for k, expected in zip(golden["k"].tolist(), golden["map_at_k"][query], strict=True):
            assert published(*inputs, name, k=k) == pytest.approx(expected, rel=1e-12)


def test_golden_values_of_shuffled_databases(with_ties: dict[str, Any]) -> None:
    golden = load("ranking_with_ties.npz")
    for column, k in enumerate(golden["k"].tolist()):
        found = [published(**with_ties, preset="paper:bihalf", k=k, seed=seed) for seed in range(50)]
        error = np.std(found, ddof=1) / np.sqrt(len(found))
        published_error = golden["map_at_k_standard_error"][column]
        # The mean of 4,000 orders, and of these; five standard errors of the difference.
        assert abs(np.mean(found) - golden["map_at_k_mean_over_orders"][column]) < 5 * np.hypot(
            error, published_error
        )
        lowest, highest = evaluate(**with_ties).bounds(k)
        assert lowest <= min(found) < max(found) <= highest


def test_golden_values_of_product_codes() -> None:
    golden, inputs = load("spq.npz"), product_codes()
    assert published(**inputs, preset="paper:spq", k=10) == pytest.approx(
        float(golden["map_at_10"]), rel=1e-6
    )
    assert published(**inputs, preset="paper:spq") == pytest.approx(float(golden["map_all"]), rel=1e-6)


@pytest.mark.parametrize("name", HAMMING)
@pytest.mark.parametrize("k", [1, 20, 200])
def test_hamming_scripts(with_ties: dict[str, Any], name: str, k: int) -> None:
    assert published(**with_ties, preset=name, k=k, order="database") == pytest.approx(
        script(**with_ties, k=k), rel=1e-12
    )
    order = np.random.default_rng(7).permutation(200)
    shuffled = {key: value[order] if "database" in key else value for key, value in with_ties.items()}
    assert published(**with_ties, preset=name, k=k, order="shuffled", seed=7) == pytest.approx(
        script(**shuffled, k=k), rel=1e-12
    )


@pytest.mark.parametrize("k", [1, 10, 300])
def test_the_script_of_product_codes_with_ties(k: int) -> None:
    rng = np.random.default_rng(2)
    codebooks = rng.standard_normal((2, 4, 3)).astype(np.float32)
    codes = ProductCodes(rng.integers(0, 4, (300, 2)).astype(np.uint8), codebooks)
    query = rng.standard_normal((8, 6)).astype(np.float32)
    query_ids, ids = rng.integers(0, 3, 8), rng.integers(0, 3, 300)
    total = 0.0
    for vector, label in zip(query, query_ids, strict=True):
        pieces = vector.reshape(2, 3)
        parts = [
            np.array([np.linalg.norm(pieces[book] - word) for word in codebooks[book]]) for book in range(2)
        ]
        distance = parts[0][codes.indices[:, 0]] + parts[1][codes.indices[:, 1]]
        ranking = torch.argsort(torch.from_numpy(distance))[:k]
        relevant = torch.from_numpy(ids)[ranking] == label
        ranks = torch.nonzero(relevant).flatten() + 1
        total += float((torch.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0
    found = published(query, codes, query_ids, ids, "paper:spq", k=k)
    assert found == pytest.approx(total / 8, rel=1e-6)


def test_class_ids_score_as_their_multi_hot_form(with_ties: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    query_ids, ids = rng.integers(0, 6, 15), rng.integers(0, 6, 200)
    codes = with_ties["query_codes"], with_ties["database_codes"]
    assert published(*codes, query_ids, ids, "paper:wch", k=20) == published(
        *codes, np.eye(6)[query_ids], np.eye(6)[ids], "paper:wch", k=20
    )


def test_rules_by_dataset(with_ties: dict[str, Any]) -> None:
    rules = {
        (name, dataset): PRESETS[f"paper:{name}"].rules(dataset)
        for name in ("wch", "cibhash", "bihalf", "spq")
        for dataset in ("cifar10", "nuswide", "coco", "flickr25k", "another")
    }
    known = {
        ("wch", "nuswide"): (5000, "shuffled"),
        ("wch", "coco"): (5000, "shuffled"),
        ("bihalf", "coco"): (5000, "shuffled"),
        ("bihalf", "flickr25k"): ("all", "shuffled"),
    }
    for key, found in rules.items():
        assert found == known.get(key, (1000, "shuffled" if key[0] == "bihalf" else "database"))
    repeated = {
        key: np.concatenate([value] * 30) if "database" in key else value for key, value in with_ties.items()
    }  # 6,000 items, more than any K
    found = published(**repeated, preset="paper:wch", dataset="coco", seed=4)
    assert found == published(**repeated, preset="paper:wch", k=5000, order="shuffled", seed=4)
    assert found != published(**repeated, preset="paper:wch", dataset="coco", seed=5)
    assert found != published(**repeated, preset="paper:wch")


@pytest.mark.parametrize("name", HAMMING)
def test_the_nearest_settings_bound_it(with_ties: dict[str, Any], name: str) -> None:
    labels = {**with_ties, "query_labels": with_ties["query_labels"].copy()}
    labels["query_labels"][0] = 0  # a query without a relevant item
    (k,) = resolve_preset(name).k
    lowest, highest = evaluate(**labels, k=(k,)).bounds(k)
    assert lowest < published(**labels, preset=name) < highest


def test_packed_codes(with_ties: dict[str, Any]) -> None:
    packed = {
        key: BinaryCodes.from_array(value) if "codes" in key else value for key, value in with_ties.items()
    }
    assert published(**packed, preset="paper:cibhash") == published(**with_ties, preset="paper:cibhash")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"preset": "paper:wch2"}, "unknown preset 'paper:wch2'; did you mean 'paper:wch'?"),
        ({"preset": "paper:spq"}, "paper:spq: the script ranks only product codes"),
        ({"k": 0}, "k: expected a number of items"),
        ({"order": cast(Order, "sorted")}, "order: expected 'database' or 'shuffled', got 'sorted'"),
        ({"query_labels": np.zeros(15, int)}, "query_labels are class ids"),
        ({"database_labels": np.zeros((3, 6))}, "database_labels: expected 200 rows"),
    ],
)
def test_wrong_use(with_ties: dict[str, Any], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        published(**{**with_ties, "preset": "paper:wch", **changed})


def test_scripts_of_hamming_distances_rank_no_product_codes() -> None:
    with pytest.raises(UsageError, match="paper:wch: the script ranks only binary codes"):
        published(**product_codes(), preset="paper:wch")
