"""Measure the speed of counting pairs, and compare the evaluator with a plain NumPy evaluation by `argsort`.

    python benchmarks/evaluation.py

Counting is timed for several code lengths and both kinds of labels: with one thread, with all threads, on the
GPU if there is one, and with two processes that count one shard of the database each. Then the evaluator and
the plain evaluation get the same random codes and labels, in one process.

The plain evaluation does what evaluation scripts of this field commonly do: one function computes mAP and one
the curve, and each ranks the whole database for every query.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import operator
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.evaluation import Counts, Evaluation, Labels, count_pairs, evaluate
from hashbench.evaluation.inputs import read_codes, read_labels

K = 5000
RANKS = [1, *range(500, 10_001, 500)]
COUNTED_BITS = (16, 32, 64, 128)
CLASSES = 10  # number of classes, as ids
COLUMNS = 81  # number of multi-hot labels, with 2.4 per item on average, as in NUS-WIDE

Result = TypeVar("Result")


@dataclass(frozen=True)
class Data:
    """Codes of ±1 [n, bits] and multi-hot labels [n, labels], in float32 as in published scripts."""

    query_codes: NDArray[np.float32]
    database_codes: NDArray[np.float32]
    query_labels: NDArray[np.float32]
    database_labels: NDArray[np.float32]

    @classmethod
    def draw(cls, queries: int, items: int, bits: int, labels: int) -> Data:
        """Draw random labels, and codes that are weakly correlated with them."""
        rng = np.random.default_rng(0)
        projection = rng.standard_normal((labels, bits), dtype=np.float32)

        def side(n: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            hot = (rng.random((n, labels), dtype=np.float32) < 0.1).astype(np.float32)
            noise = rng.standard_normal((n, bits), dtype=np.float32)
            return np.where(hot @ projection + 2 * noise < 0, np.float32(-1), np.float32(1)), hot

        (query_codes, query_labels), (database_codes, database_labels) = side(queries), side(items)
        return cls(query_codes, database_codes, query_labels, database_labels)


def ranked_relevance(data: Data, query: int) -> NDArray[np.float32]:
    """Return the relevance of the item at each rank, float32 [items] of 0 and 1."""
    similarity = data.database_codes @ data.query_codes[query]
    distance = (data.query_codes.shape[1] - similarity) / 2
    relevant = data.database_labels @ data.query_labels[query] > 0
    ranked: NDArray[np.float32] = relevant[np.argsort(distance)].astype(np.float32)
    return ranked


def plain_map(data: Data) -> float:
    """Compute mAP@K by sorting."""
    total = 0.0
    for query in range(len(data.query_codes)):
        ranks = np.flatnonzero(ranked_relevance(data, query)[:K]) + 1
        if len(ranks):
            total += float(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return total / len(data.query_codes)


def plain_curve(data: Data) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean precision and recall at RANKS by sorting."""
    hits = np.zeros((len(data.query_codes), len(RANKS)))
    relevant = np.zeros((len(data.query_codes), 1))
    for query in range(len(data.query_codes)):
        ranking = ranked_relevance(data, query)
        hits[query] = [ranking[:rank].sum() for rank in RANKS]
        relevant[query] = ranking.sum()
    return (hits / RANKS).mean(axis=0), (hits / np.maximum(relevant, 1)).mean(axis=0)


def whole_evaluation(data: Data) -> Evaluation:
    """Compute everything that the plain functions compute, starting from arrays."""
    ev = evaluate(data.query_codes, data.database_codes, data.query_labels, data.database_labels, k=(K,))
    ev.mean_average_precision(K)
    ev.curve_by_rank(RANKS)
    return ev


def seconds(function: Callable[[], Result], repeats: int = 1) -> tuple[float, Result]:
    """Return the best time of several calls, and the result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def peak_memory(function: Callable[[], object]) -> float:
    """Return the peak memory of a function in addition to its inputs, in MB."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def print_throughput(queries: int, items: int, repeats: int) -> None:
    """Print pairs per second by code length, kind of labels and device."""
    rng = np.random.default_rng(0)
    threads: int = numba.config.NUMBA_NUM_THREADS
    labels = {
        f"{CLASSES} classes": Labels.from_array(rng.integers(0, CLASSES, items)),
        f"{COLUMNS} labels": Labels.from_array(rng.random((items, COLUMNS), np.float32) < 2.4 / COLUMNS),
    }
    devices = [("cpu", count) for count in sorted({1, threads})] + [("cuda", 1)] * torch.cuda.is_available()
    print(f"{queries:,} queries x {items:,} items, billion pairs per second")
    names = ["GPU" if device == "cuda" else f"{count} thread(s)" for device, count in devices]
    print(f"{'':20}" + "".join(f"{name:>14}" for name in names))
    for bits in COUNTED_BITS:
        codes = BinaryCodes.from_array(rng.random((items, bits), np.float32) < 0.5)
        for name, database in labels.items():
            pairs = (codes[:queries], codes, Labels(database.packed[:queries], database.columns), database)
            rates = []
            for device, count in devices:
                numba.config.NUMBA_NUM_THREADS = count  # as the environment variable does
                count_pairs(*pairs, device=device)  # compiles
                took, _ = seconds(lambda: count_pairs(*pairs, device=device), repeats)  # noqa: B023
                rates.append(queries * items / took / 1e9)
            print(f"{bits:3} bits, {name:10}" + "".join(f"{rate:14.2f}" for rate in rates))
    numba.config.NUMBA_NUM_THREADS = threads


def count_shard(shard: int, shards: int, queries: int, items: int) -> Counts:
    """Count one of several equal shards of the database with one thread, in a separate process."""
    numba.config.NUMBA_NUM_THREADS = 1
    pairs = one_shard(shard, shards, queries, items)
    return count_pairs(*pairs)


@functools.cache
def one_shard(
    shard: int, shards: int, queries: int, items: int
) -> tuple[BinaryCodes, BinaryCodes, Labels, Labels]:
    """Draw codes of 64 bits and classes of all queries and of a shard of the database."""
    rng = np.random.default_rng(0)
    codes = BinaryCodes.from_array(rng.random((items, 64), np.float32) < 0.5)
    labels = Labels.from_array(rng.integers(0, CLASSES, items))
    own = slice(items * shard // shards, items * (shard + 1) // shards)
    return (
        codes[:queries],
        codes[own],
        Labels(labels.packed[:queries], None),
        Labels(labels.packed[own], None),
    )


def print_processes(queries: int, items: int, repeats: int) -> None:
    """Print pairs per second of 1 and 2 processes, each of which counts a shard."""
    print("64 bits, 10 classes, processes of one thread each, counts added")
    for shards in (1, 2):
        with ProcessPoolExecutor(shards, multiprocessing.get_context("spawn")) as pool:

            def count() -> Counts:
                sizes = [[size] * shards for size in (shards, queries, items)]  # noqa: B023
                parts = pool.map(count_shard, range(shards), *sizes)  # noqa: B023
                return functools.reduce(operator.add, parts)

            for _ in range(3):  # compile, and draw every shard in every process
                count()
            took, _ = seconds(count, repeats)
        print(f"{shards} process(es)      {queries * items / took / 1e9:14.2f}")


def main() -> None:
    """Time the counting, run both evaluations, and print their times and whether they agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queries", type=int, default=2_100)
    parser.add_argument("--items", type=int, default=193_734)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--labels", type=int, default=21)
    parser.add_argument("--repeats", type=int, default=5, help="runs of hashbench; the best is reported")
    parser.add_argument("--only-counts", action="store_true", help="leave out the whole evaluator")
    sizes = parser.parse_args()
    queries = min(sizes.queries, sizes.items)
    print_throughput(queries, sizes.items, sizes.repeats)
    if not sizes.only_counts:
        print_processes(queries, sizes.items, sizes.repeats)
        print_comparison(sizes)


def print_comparison(sizes: argparse.Namespace) -> None:
    """Print the times of both whole evaluations, and whether they agree."""
    data = Data.draw(sizes.queries, sizes.items, sizes.bits, sizes.labels)
    compile_seconds, _ = seconds(lambda: whole_evaluation(Data.draw(2, 100, sizes.bits, sizes.labels)))

    memory = peak_memory(lambda: whole_evaluation(data))
    query, database = read_codes(data.query_codes, data.database_codes)
    query_labels = read_labels(data.query_labels, "query", query)
    database_labels = read_labels(data.database_labels, "database", database)
    count_seconds, _ = seconds(
        lambda: count_pairs(query, database, query_labels, database_labels), sizes.repeats
    )
    whole_seconds, ev = seconds(lambda: whole_evaluation(data), sizes.repeats)
    map_seconds, plain = seconds(lambda: plain_map(data))
    curve_seconds, (precision, recall) = seconds(lambda: plain_curve(data))
    plain_seconds = map_seconds + curve_seconds

    print(f"\n{sizes.queries:,} queries x {sizes.items:,} items, {sizes.bits} bits, {sizes.labels} labels")
    print(f"hashbench, first call (compiles or loads)   {compile_seconds:8.3f} s")
    print(f"hashbench, counts alone                     {count_seconds:8.3f} s")
    print(f"hashbench, arrays to mAP@{K} and curve     {whole_seconds:8.3f} s")
    print(f"hashbench, peak memory above the inputs     {memory:8.0f} MB")
    print(f"NumPy argsort, mAP@{K}                     {map_seconds:8.1f} s")
    print(f"NumPy argsort, curve at {len(RANKS)} ranks            {curve_seconds:8.1f} s")
    print(f"speed-up                                    {plain_seconds / whole_seconds:8.0f} x")

    lowest, highest = ev.bounds(K)
    expected = ev.mean_average_precision(K)
    print(f"mAP@{K}: expected {expected:.6f}, any order {lowest:.6f} to {highest:.6f}, NumPy {plain:.6f}")
    curve = ev.curve_by_rank(RANKS)
    print(f"largest difference in precision {np.abs(curve['precision'] - precision).max():.6f}", end=", ")
    print(f"in recall {np.abs(curve['recall'] - recall).max():.6f}")
    print("agreement:", "yes" if lowest <= plain <= highest else "NO")


if __name__ == "__main__":
    main()
