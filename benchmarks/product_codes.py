"""Compare the evaluation of product codes with a plain one: a distance table and an `argsort` per query.

Both get the same random features and codes, in one process:

    python benchmarks/product_codes.py

The plain evaluation does what evaluation scripts of product quantization commonly do, in torch: for each
query, a loop over books and words for the table of distances, a lookup per item and book, and a sort of the
whole database. Its time is proportional to the number of queries, so it runs on some of them and is scaled.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hashbench import ProductCodes, evaluate

K = 1000
CLASSES = 10


@dataclass(frozen=True)
class Data:
    """Features of the queries [n, books · dim], codes of the database, and class ids of both."""

    query: NDArray[np.float32]
    database: ProductCodes
    query_ids: NDArray[np.int64]
    database_ids: NDArray[np.int64]

    @classmethod
    def draw(cls, queries: int, items: int, books: int, words: int, dim: int) -> Data:
        """Draw random classes, features that are weakly correlated with them, and codewords nearby."""
        rng = np.random.default_rng(0)
        centers = rng.standard_normal((CLASSES, books * dim), dtype=np.float32)
        ids = rng.integers(0, CLASSES, queries + items)
        features = centers[ids] + 2 * rng.standard_normal((len(ids), books * dim), dtype=np.float32)
        codebooks = 2 * rng.standard_normal((books, words, dim), dtype=np.float32)
        subvectors = features[queries:].reshape(items, books, dim)
        numbers = np.empty((items, books), np.uint8)
        for book, words_of_book in enumerate(codebooks):
            distances = -2 * subvectors[:, book] @ words_of_book.T + np.square(words_of_book).sum(1)
            numbers[:, book] = distances.argmin(1)
        return cls(features[:queries], ProductCodes(numbers, codebooks), ids[:queries], ids[queries:])


def plain_map(data: Data, queries: int) -> float:
    """Compute mAP@K of the first queries, one at a time."""
    codebooks = torch.from_numpy(data.database.codebooks)
    books, words, dim = codebooks.shape
    numbers = torch.from_numpy(data.database.indices.astype(np.int64))
    query_labels, labels = (
        torch.nn.functional.one_hot(torch.from_numpy(ids), CLASSES).float()
        for ids in (data.query_ids[:queries], data.database_ids)
    )
    total = 0.0
    for vector, label in zip(torch.from_numpy(data.query[:queries]), query_labels, strict=True):
        table = torch.zeros(words, books)
        for book in range(books):
            piece = vector[book * dim : (book + 1) * dim]
            for word in range(words):
                table[word, book] = torch.norm(piece - codebooks[book, word])
        distance = torch.zeros(len(numbers))
        for book in range(books):
            distance += table[numbers[:, book], book]
        relevant = (labels @ label > 0)[torch.argsort(distance)][:K]
        places = relevant.nonzero().flatten() + 1
        if len(places):
            total += float((torch.arange(1, len(places) + 1) / places).mean())
    return total / queries


def main() -> None:
    """Run both evaluations, and print their times and whether they agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--books", type=int, default=8)
    parser.add_argument("--words", type=int, default=16)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--plain-queries", type=int, default=1_000, help="queries of the plain evaluation")
    parser.add_argument("--repeats", type=int, default=3, help="runs of hashbench; the best is reported")
    sizes = parser.parse_args()
    data = Data.draw(sizes.queries, sizes.items, sizes.books, sizes.words, sizes.dim)
    arguments = data.query, data.database, data.query_ids, data.database_ids
    some = min(sizes.plain_queries, sizes.queries)

    evaluate(*(argument[:10] for argument in arguments), k=(K,))  # compile or load the kernels
    times = []
    for _ in range(sizes.repeats):
        start = time.perf_counter()
        evaluation = evaluate(*arguments, k=(K,))
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    plain = plain_map(data, some)
    plain_seconds = (time.perf_counter() - start) * sizes.queries / some
    start = time.perf_counter()
    whole = evaluate(*arguments, k=(K, "all"))
    whole.curve_by_rank()
    whole_seconds = time.perf_counter() - start

    print(f"{sizes.queries:,} queries x {sizes.items:,} items, {sizes.books} books of {sizes.words} words")
    print(f"hashbench, mAP@{K}                          {min(times):8.2f} s")
    print(f"hashbench, mAP@{K}, mAP@all and a curve     {whole_seconds:8.2f} s")
    print(f"plain, mAP@{K} ({some:,} queries, scaled)    {plain_seconds:8.1f} s")
    print(f"speed-up                                   {plain_seconds / min(times):8.1f} x")
    expected = float(evaluation.average_precision(K)[:some].mean())
    print(f"mAP@{K} of {some:,} queries: hashbench {expected:.6f}, plain {plain:.6f}")


if __name__ == "__main__":
    main()
