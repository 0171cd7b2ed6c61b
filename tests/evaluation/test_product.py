"""Product codes: distances, ties and metrics, against plain implementations and golden values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hashbench import BinaryCodes, ProductCodes, UsageError, evaluate
from hashbench.evaluation import Counts, Evaluation, code_health
from hashbench.evaluation.counts import product
from hashbench.evaluation.files import load_arguments
from hashbench.evaluation.presets import published

GOLDEN = Path(__file__).parents[1] / "golden"


def distances(query: np.ndarray, codes: ProductCodes) -> np.ndarray:
    """Compute asymmetric distances [queries, items], one pair at a time."""
    books, _, dim = codes.codebooks.shape
    found = np.zeros((len(query), len(codes)))
    for q, vector in enumerate(query.astype(float)):
        for i, numbers in enumerate(codes.indices):
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


def read(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def golden() -> tuple[dict[str, np.ndarray], ProductCodes]:
    values = read("spq")
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
    order = values["distances"].argsort(axis=1)
    relevant = np.take_along_axis(values["query_labels"] @ values["gallery_labels"].T > 0, order, axis=1)
    precision = (np.cumsum(relevant, axis=1) / np.arange(1, 41)).mean(axis=0)
    np.testing.assert_allclose(ev.curve_by_rank(range(1, 41))["precision"], precision)


def summed(query: np.ndarray, codes: ProductCodes) -> np.ndarray:
    """Return the distances [queries, items] that the tables of codes give."""
    return codes.tables(query)[:, np.arange(codes.indices.shape[1]), codes.indices].sum(axis=-1)


def test_squared_distances_of_faiss() -> None:
    values = read("pq")
    codes = ProductCodes(values["codes"], values["codebooks"], "squared_l2")
    query = ProductCodes(values["query_codes"], values["codebooks"], "squared_l2").reconstruct()
    for vectors, name in ((values["query"], "asymmetric"), (query, "symmetric")):
        expected = values[f"distances_{name}_squared"]
        np.testing.assert_allclose(summed(vectors, codes), expected, rtol=1e-4, atol=1e-4)


def test_inner_products_of_mecoq() -> None:
    values = read("mecoq")
    codes = ProductCodes(values["gallery_codes"].astype(np.uint8), values["codebooks"], "inner_product")
    found, scores = summed(values["query"], codes), values["scores_asymmetric"]
    shift = found + scores  # the same for all items, since the nearest codewords add 0
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(np.argsort(found, kind="stable"), values["ranking_asymmetric"])
    labels = values["query_labels"], values["gallery_labels"]
    ev = evaluate(values["query"], codes, *labels, k=(5, "all"))
    assert ev.mean_average_precision(5) == pytest.approx(float(values["map_at_5"]), rel=1e-5)
    assert ev.mean_average_precision("all") == pytest.approx(float(values["map_all"]), rel=1e-5)


@pytest.mark.parametrize("distance", ["squared_l2", "inner_product"])
def test_every_distance_is_counted_and_stored(tmp_path: Path, distance: Any) -> None:
    arguments = draw(7, 60, 3, 4)
    codes = arguments["database_codes"] = replace(arguments["database_codes"], distance=distance)
    assert codes[:5].distance == distance
    pieces = arguments["query_codes"].astype(float).reshape(7, 1, 3, 3)
    words = codes.reconstruct().astype(float).reshape(1, 60, 3, 3)
    inner = distance == "inner_product"
    found = -(pieces * words).sum((2, 3)) if inner else ((pieces - words) ** 2).sum((2, 3))
    relevant = arguments["query_labels"][:, None] == arguments["database_labels"]
    expected = Evaluation(counted(found.round(9), relevant), k=(1000, "all"))
    assert_same(evaluate(**arguments), expected)
    extra = {"codebooks": codes.codebooks, "distance": np.array(distance)}
    np.savez(tmp_path / "codes.npz", **{**arguments, "database_codes": codes.indices, **extra})
    assert load_arguments(tmp_path / "codes.npz")["database_codes"].distance == distance
    with pytest.raises(UsageError, match="paper:spq: the script ranks by l2, not by "):
        published(**arguments, preset="paper:spq")
    with pytest.raises(UsageError, match="distance"):
        replace(codes, distance="cosine")


def counted(found: np.ndarray, relevant: np.ndarray) -> Counts:
    """Count items per distinct distance of each query, from distances [queries, items] and relevance."""
    items, hits = np.zeros((2, *found.shape), np.int64)
    for q, row in enumerate(found):
        distinct, places = np.unique(row, return_inverse=True)
        items[q, : len(distinct)] = np.bincount(places)
        hits[q, : len(distinct)] = np.bincount(places, weights=relevant[q])
    return Counts(items, hits)


def assert_same(ev: Evaluation, expected: Evaluation) -> None:
    metrics, others = ev.to_dict()["metrics"], expected.to_dict()["metrics"]
    assert set(others) - set(metrics) == {"P@H<=2", "mAP@H<=2"}
    for name, metric in metrics.items():
        assert metric == pytest.approx(others[name], rel=1e-12)
    np.testing.assert_array_equal(ev.largest_ties, expected.largest_ties)
    assert ev.queries_without_relevant == expected.queries_without_relevant
    assert ev.chance(3) == expected.chance(3)
    for k in ev.k:
        np.testing.assert_allclose(ev.average_precision(k), expected.average_precision(k), rtol=1e-12)
    assert ev.mean_average_precision(11) == pytest.approx(expected.mean_average_precision(11), rel=1e-12)
    assert ev.bounds(11) == pytest.approx(expected.bounds(11), rel=1e-12)
    np.testing.assert_allclose(ev.curve_by_rank(), expected.curve_by_rank(), rtol=1e-12)


@pytest.mark.parametrize(("books", "words"), [(1, 2), (2, 2), (2, 4), (3, 8), (9, 16)])
@pytest.mark.parametrize("denominator", ["hits", "relevant"])
def test_counts_of_all_pairs_give_the_same(books: int, words: int, denominator: Any) -> None:
    """Cover the range from two distances with many ties to codes that all differ."""
    data = draw(queries=6, items=90, books=books, words=words, seed=books)
    data["query_labels"][0] = 9  # a class without items
    # Rounded, because this sum differs from the evaluator's in the last digit.
    counts = counted(
        distances(data["query_codes"], data["database_codes"]).round(9),
        data["query_labels"][:, None] == data["database_labels"],
    )
    ks = (1, 7, 25, "all")
    ev = evaluate(**data, k=ks, denominator=denominator)
    assert_same(ev, Evaluation(counts, ks, denominator=denominator))


@pytest.mark.parametrize("shape", ["spread", "outlier", "clusters", "equal", "zeros"])
def test_distances_of_any_shape_are_sorted(shape: str) -> None:
    """Use one book of one dimension and a query at 0, so that distances are exactly the codewords."""
    random = np.random.default_rng(2)
    sizes = random.exponential(size=4096).astype(np.float32)
    if shape == "outlier":
        sizes[0] = 9e18  # the largest possible value
    elif shape == "clusters":
        sizes = np.nextafter(np.float32(1), random.choice([0, 2], 4096).astype(np.float32)) + sizes.round()
    elif shape == "equal":
        sizes[:] = 1
    elif shape == "zeros":
        sizes[::2] = 0
    codes = ProductCodes(random.integers(0, 4096, (3000, 1)).astype(np.uint16), sizes[None, :, None])
    codes.indices[0] = 0  # the outlier is used
    labels = random.integers(0, 3, 3001)
    ev = evaluate(np.zeros((1, 1)), codes, labels[:1], labels[1:])
    found = sizes[codes.indices[:, 0]][None].astype(float)
    assert_same(ev, Evaluation(counted(found, labels[None, 1:] == labels[0])))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([1, 5, 9]), multi_hot=st.booleans())
def test_books_of_two_words_are_binary_codes(seed: int, bits: int, multi_hot: bool) -> None:
    """Use codewords −1 and +1, for which a differing bit is a distance of 2."""
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
        assert_same(ev, hamming)
        assert code_health(codes, ev) == code_health(BinaryCodes.from_array(database), hamming)


@pytest.mark.parametrize(
    ("memory", "threads", "rows"), [(2**23, 1, 9), (2**23, 2, 5), (5000, 1, 2), (5000, 3, 2), (1, 2, 1)]
)
def test_blocks_of_queries_do_not_matter(
    memory: int, threads: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw(queries=9, items=50, books=3, words=4)  # 2,176 bytes a query
    whole = evaluate(**data, k=(5, "all"))
    monkeypatch.setattr(product, "_BYTES", memory)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", threads)
    pieces = evaluate(**data, k=(5, "all"))
    sizes = pieces.rankings.each(lambda items, _: np.full((1, len(items)), len(items), float))
    assert (sizes.shape, sizes.max()) == ((1, 9), rows)
    assert pieces.to_dict() == whole.to_dict()
    np.testing.assert_array_equal(pieces.average_precision("all"), whole.average_precision("all"))


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
            r"real values \[queries, books · dim = 6\] .* got float64 \[2, 5\]",
        ),
        ({"query_codes": np.zeros((2, 6), int)}, "expected real values .* product codes"),
        ({"query_codes": np.full((2, 6), np.nan)}, "row 0 is not finite"),
        (
            {"query_codes": BinaryCodes.from_array([[1, -1]] * 2)},
            "are binary but database_codes are product codes",
        ),
        (
            {"query_codes": np.full((2, 6), 1e300)},
            r"query_codes: expected values within ±3.8e\+18, got 1e\+300: squared distances of 6 dimensions",
        ),
        ({"query_codes": np.full((2, 6), 3e38, np.float32)}, r"query_codes: .*got 3e\+38: squared distances"),
        ({"query_codes": np.full((2, 6), np.inf)}, "row 0 is not finite"),
        ({"query_codes": np.zeros((0, 6)), "query_labels": []}, r"got float64 \[0, 6\]"),
        ({"query_codes": draw(2, 0, 2, 4)["database_codes"], "query_labels": []}, "at least one code"),
        ({"query_codes": draw(2, 2, 2, 4, seed=1)["database_codes"]}, "different codebooks"),
        ({"database_codes": np.ones((10, 6))}, "got values such as"),
        ({"database_codes": draw(2, 0, 2, 4)["database_codes"]}, "at least one code"),
        ({"query_labels": np.zeros(3, int)}, "query_labels: expected 2 rows"),
    ],
)
def test_what_does_not_fit_is_an_error_of_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(**{**draw(2, 10, 2, 4), **change})


def test_product_queries_need_a_product_database() -> None:
    codes = draw(2, 10, 2, 4)["database_codes"]
    with pytest.raises(UsageError, match="query_codes are product codes but database_codes are not"):
        evaluate(codes, np.ones((3, 4)), np.zeros(10, int), np.zeros(3, int))


def test_product_codes_in_a_file(tmp_path: Path) -> None:
    data = draw(4, 30, 2, 4)
    codes = data.pop("database_codes")
    arrays = {**data, "database_codes": codes.indices, "codebooks": codes.codebooks}
    np.savez(tmp_path / "codes.npz", **arrays)
    expected = evaluate(database_codes=codes, **data).to_dict()
    assert evaluate(**load_arguments(tmp_path / "codes.npz")).to_dict() == expected
    np.savez(tmp_path / "symmetric.npz", **{**arrays, "query_codes": codes.indices[:4]})
    expected = evaluate(codes[:4], codes, data["query_labels"], data["database_labels"]).to_dict()
    assert evaluate(**load_arguments(tmp_path / "symmetric.npz")).to_dict() == expected


def test_product_codes_of_another_type_in_a_file(tmp_path: Path) -> None:
    data = draw(4, 30, 2, 4)
    codes = data.pop("database_codes")
    np.savez(
        tmp_path / "codes.npz", **data, database_codes=codes.indices.astype(int), codebooks=codes.codebooks
    )
    with pytest.raises(UsageError, match=r"expected uint8 or uint16 \[n, 2\], got int64 \[30, 2\]"):
        load_arguments(tmp_path / "codes.npz")


def test_bits_in_a_file_are_those_of_its_product_codes(tmp_path: Path) -> None:
    data = draw(4, 30, 2, 4)
    codes = data.pop("database_codes")
    arrays = {**data, "database_codes": codes.indices, "codebooks": codes.codebooks}
    np.savez(tmp_path / "right.npz", **arrays, bits=4)
    np.savez(tmp_path / "wrong.npz", **arrays, bits=16)
    load_arguments(tmp_path / "right.npz")
    with pytest.raises(
        UsageError, match=r"wrong.npz: database_codes: expected codes of bits = 16, got .* of 4"
    ):
        load_arguments(tmp_path / "wrong.npz")
