"""Product codes: distances, ties and metrics against plain statements and golden values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashbench import BinaryCodes, ProductCodes, UsageError, evaluate
from hashbench.evaluation import code_health, product
from hashbench.evaluation.files import load_codes

GOLDEN = Path(__file__).parent / "golden" / "spq.npz"
RNG = np.random.default_rng(0)


def distances(query: np.ndarray, codes: ProductCodes) -> np.ndarray:
    """Asymmetric distances [queries, items], one pair at a time."""
    books, _, dim = codes.codebooks.shape
    found = np.zeros((len(query), len(codes)))
    for q, vector in enumerate(query.astype(float)):
        for i, numbers in enumerate(codes.words):
            for book in range(books):
                piece = vector[book * dim : (book + 1) * dim]
                found[q, i] += np.linalg.norm(piece - codes.codebooks[book, numbers[book]])
    return found


def draw(queries: int, items: int, books: int, words: int, dim: int = 3, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    codebooks = random.standard_normal((books, words, dim)).astype(np.float32)
    return {
        "query_codes": random.standard_normal((queries, books * dim)).astype(np.float32),
        "database_codes": ProductCodes(random.integers(0, words, (items, books)).astype(np.uint8), codebooks),
        "query_labels": random.integers(0, 3, queries),
        "database_labels": random.integers(0, 3, items),
    }


def golden() -> tuple[dict[str, np.ndarray], ProductCodes]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        values = {name: file[name] for name in file.files}
    books, words, dim = (int(values[name]) for name in ("n_books", "n_words", "word_dim"))
    codebooks = values["codebooks"].reshape(words, books, dim).transpose(1, 0, 2).copy()
    return values, ProductCodes(values["gallery_codes"].astype(np.uint8), codebooks)


def test_the_published_evaluation() -> None:
    values, codes = golden()
    np.testing.assert_allclose(distances(values["query"], codes), values["distances"], rtol=1e-4, atol=1e-5)
    ev = evaluate(
        values["query"], codes, values["query_labels"], values["gallery_labels"], k=(10, "all"), radius=2
    )
    assert ev.mean_average_precision(10) == pytest.approx(float(values["map_at_10"]), rel=1e-4)
    assert ev.mean_average_precision("all") == pytest.approx(float(values["map_all"]), rel=1e-4)
    assert "P@H<=2" not in ev.to_dict()["metrics"]


def ranked(data: dict[str, Any], seed: int) -> list[np.ndarray]:
    """Relevance by rank for each query, equal distances in a random order."""
    found = distances(data["query_codes"], data["database_codes"]).round(9)
    random = np.random.default_rng(seed)
    rows = []
    for row, label in zip(found, data["query_labels"], strict=True):
        order = np.lexsort((random.random(len(row)), row))
        rows.append(data["database_labels"][order] == label)
    return rows


@pytest.mark.parametrize("k", [1, 7, 25, "all"])
def test_ties_are_the_mean_over_random_orders(k: Any) -> None:
    data = draw(queries=4, items=60, books=2, words=2)  # four codes in all
    ev = evaluate(**data, k=(k,))

    def average_precision(relevant: np.ndarray) -> float:
        top = relevant[: 60 if k == "all" else k]
        precision = np.cumsum(top) / np.arange(1, len(top) + 1)
        return float(precision[top].mean()) if top.any() else 0.0

    scores = [np.mean([average_precision(row) for row in ranked(data, seed)]) for seed in range(400)]
    error = np.std(scores) / np.sqrt(len(scores))
    assert ev.mean_average_precision(k) == pytest.approx(np.mean(scores), abs=4 * error + 1e-12)
    lowest, highest = ev.bounds(k)
    assert lowest <= min(scores) <= max(scores) <= highest + 1e-12
    assert ev.largest_ties.min() >= 0.25


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([1, 5, 9]), multi_hot=st.booleans())
def test_books_of_two_words_are_binary_codes(seed: int, bits: int, multi_hot: bool) -> None:
    """With codewords −1 and +1, a bit that differs is a distance of 2."""
    random = np.random.default_rng(seed)
    query, database = random.integers(0, 2, (5, bits)), random.integers(0, 2, (40, bits))
    labels = random.integers(0, 4, 5), random.integers(0, 4, 40)
    if multi_hot:
        labels = np.eye(4)[labels[0]], np.eye(4)[labels[1]]
    codebooks = np.tile(np.array([[[-1.0], [1.0]]], np.float32), (bits, 1, 1))
    codes = ProductCodes(database.astype(np.uint8), codebooks)
    hamming = evaluate(query, database, *labels, k=(3, "all"))
    for form in (2.0 * query - 1, ProductCodes(query.astype(np.uint8), codebooks)):
        ev = evaluate(form, codes, *labels, k=(3, "all"))
        metrics = hamming.to_dict()["metrics"]
        del metrics["P@H<=2"]
        assert ev.to_dict()["metrics"] == metrics
        np.testing.assert_allclose(ev.average_precision(11), hamming.average_precision(11))
        for name in ("precision", "recall"):
            np.testing.assert_allclose(ev.curve_by_rank()[name], hamming.curve_by_rank()[name])
        assert ev.chance(3) == pytest.approx(hamming.chance(3))
        assert code_health(codes, ev) == code_health(BinaryCodes.from_array(database), hamming)


def test_a_small_memory_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = draw(queries=9, items=50, books=3, words=4)
    whole = evaluate(**data, k=(5, "all"))
    monkeypatch.setattr(product, "_BYTES", 24 * 50 * 2)  # two queries at a time
    pieces = evaluate(**data, k=(5, "all"))
    assert pieces.to_dict() == whole.to_dict()
    np.testing.assert_array_equal(pieces.average_precision("all"), whole.average_precision("all"))
    monkeypatch.setattr(product, "_BYTES", 1)
    assert evaluate(**data, k=(5, "all")).to_dict() == whole.to_dict()


def test_books_of_many_words() -> None:
    random = np.random.default_rng(1)
    codebooks = random.standard_normal((2, 512, 4)).astype(np.float32)
    codes = ProductCodes(random.integers(0, 512, (80, 2)).astype(np.uint16), codebooks)
    query, labels = random.standard_normal((3, 8)), random.integers(0, 3, 83)
    ev = evaluate(query, codes, labels[:3], labels[3:])
    order = distances(query, codes).argsort(axis=1)
    relevant = labels[3:][order] == labels[:3, None]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, 81)
    expected = [row[hits].mean() for row, hits in zip(precision, relevant, strict=True)]
    np.testing.assert_allclose(ev.average_precision("all"), expected)


def test_what_needs_a_hamming_radius_says_so() -> None:
    ev = evaluate(**draw(2, 10, 2, 4))
    for use in (lambda: ev.precision_within_radius, ev.curve_by_radius, lambda: ev.counts):
        with pytest.raises(UsageError, match="product codes have no Hamming distances"):
            use()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"query_codes": np.zeros((2, 5))},
            r"real values \[queries, books · dim = 6\], found float64 \[2, 5\]",
        ),
        ({"query_codes": np.zeros((2, 6), int)}, "compared with real values"),
        ({"query_codes": np.full((2, 6), np.nan)}, "row 0 is not finite"),
        (
            {"query_codes": BinaryCodes.from_array([[1, -1]] * 2)},
            "are binary and database_codes product codes",
        ),
        ({"query_codes": draw(2, 2, 2, 4, seed=1)["database_codes"]}, "other codebooks"),
        ({"database_codes": np.ones((10, 6))}, "found values such as"),
        ({"database_codes": draw(2, 0, 2, 4)["database_codes"]}, "at least one code"),
        ({"query_labels": np.zeros(3, int)}, "query_labels: expected 2 rows"),
    ],
)
def test_what_does_not_fit_is_an_error_of_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(**{**draw(2, 10, 2, 4), **change})


def test_product_queries_need_a_product_database() -> None:
    codes = draw(2, 10, 2, 4)["database_codes"]
    with pytest.raises(UsageError, match="query_codes are product codes and the database's are not"):
        evaluate(codes, np.ones((3, 4)), np.zeros(10, int), np.zeros(3, int))


def test_product_codes_in_a_file(tmp_path: Path) -> None:
    data = draw(4, 30, 2, 4)
    codes = data.pop("database_codes")
    arrays = {**data, "database_codes": codes.words, "codebooks": codes.codebooks}
    np.savez(tmp_path / "codes.npz", **arrays)
    expected = evaluate(database_codes=codes, **data).to_dict()
    assert evaluate(*load_codes(tmp_path / "codes.npz")).to_dict() == expected
    np.savez(tmp_path / "symmetric.npz", **{**arrays, "query_codes": codes.words[:4]})
    expected = evaluate(codes[:4], codes, data["query_labels"], data["database_labels"]).to_dict()
    assert evaluate(*load_codes(tmp_path / "symmetric.npz")).to_dict() == expected
