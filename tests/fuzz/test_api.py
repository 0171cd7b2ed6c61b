"""Invalid arguments of the public functions of the evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from fuzz.outcomes import refused
from hypothesis import given, settings
from hypothesis import strategies as st

import hashbench
from hashbench import BinaryCodes, Counts, Evaluation, ProductCodes, evaluate
from hashbench.evaluation.files import load_arguments
from hashbench.evaluation.presets import published
from hashbench.evaluation.shards import evaluate_shards

SIGNS = np.array([[1, -1, 1, 1], [-1, -1, 1, -1], [1, 1, 1, 1]])
BOOKS = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 4, 3)
PRODUCT = ProductCodes(np.array([[0, 1], [3, 2], [1, 1]], np.uint8), BOOKS)
COUNTS = np.array([[1, 0, 2], [0, 3, 0]])
GOOD: dict[str, tuple[Any, ...]] = {
    "codes": (SIGNS, SIGNS > 0, BinaryCodes.from_array(SIGNS), torch.tensor(SIGNS), SIGNS.tolist(), PRODUCT),
    "labels": ([0, 1, 1], np.eye(3), scipy.sparse.csr_array(np.eye(3)), torch.eye(3).to_sparse()),
    "k": (5, "all", [1, "all", "R"], np.array([1, 5]), torch.tensor([1, 2]), range(1, 3)),
    "radius": (0, 2, np.int64(1), 10**30),
    "denominator": ("hits", "relevant", "all_relevant"),
    "no_relevant": ("zero", "skip"),
    "device": ("cpu", "auto"),
    "preset": ("paper:wch", "paper:spq"),
    "order": ("database", "shuffled"),
    "dataset": ("digits", "folder"),  # no other, since it would be downloaded
    "protocol": ("default", "lists", None),
    "flag": (True, False, np.True_),
    "unset": (False,),
    "none": (None,),
    "path": ("", ".", "nowhere", Path("nowhere.npz"), b"nowhere", "\0", "a" * 5000),
}  # fmt: skip
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of torch, that some of these are new or old
    ODDITIES: list[Any] = [
        object(), object, len, {}, {1: 2}, set(), [], [[]], [[0], [1, 2]], 10**5000, -(10**5000), 1.0, True,
        np.array(5), np.array([]), np.zeros((3, 0)), np.zeros((0, 4)), np.zeros((3, 4, 2)),
        np.array(["a", 1]), np.array([None, 1]), np.array([1j]), np.array(["2001-01-01"], "M8[D]"),
        np.zeros(3, [("a", "i4")]),
        np.ma.masked_equal([1, 2, 3], 2), np.array([np.inf, np.nan, 1]), np.uint64([2**64 - 1, 0, 1]),
        np.longdouble([1, 2, 3]), np.float16([0, 1, 9999]), np.zeros((3, 4), np.int8), SIGNS * 0.5,
        SIGNS[:, :3], SIGNS.astype(object), BOOKS, COUNTS, np.matrix(SIGNS), pd.DataFrame(SIGNS),
        pd.Series([0, 1, 1]), torch.tensor([]), torch.zeros(3, requires_grad=True), torch.eye(3).bfloat16(),
        torch.zeros(3, 4, device="meta"), torch.eye(3).to_sparse_csr(), torch.zeros(3, dtype=torch.complex64),
        [torch.zeros(1), torch.zeros(2)], torch.eye(3).to(torch.float8_e5m2),
        torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)], layout=torch.jagged),
        torch.quantize_per_tensor(torch.eye(3), 1.0, 0, torch.qint8), scipy.sparse.csr_matrix((3, 4)),
        scipy.sparse.coo_array([1, 0, 1]), Counts(COUNTS, COUNTS), np.ndarray,
    ]  # fmt: skip
ODD = st.one_of(
    st.none(), st.integers(), st.floats(), st.complex_numbers(), st.text(max_size=5), st.binary(max_size=5),
    st.sampled_from(ODDITIES),
)  # fmt: skip


def arguments(**kinds: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw arguments that are mostly valid, sometimes swapped and sometimes unusual."""
    every = st.sampled_from([value for values in GOOD.values() for value in values])
    return st.fixed_dictionaries(
        {name: st.one_of(*[st.sampled_from(GOOD[kind])] * 6, every, ODD) for name, kind in kinds.items()}
    )


EVALUATION = {
    "k": "k", "radius": "radius", "denominator": "denominator", "no_relevant": "no_relevant",
    "graded": "flag", "device": "device",
}  # fmt: skip


def load_dataset(dataset: Any, **options: Any) -> hashbench.Dataset:
    """Load a dataset, whose name has no keyword."""
    return hashbench.load_dataset(dataset, **options)


CALLS: list[tuple[Callable[..., Any], dict[str, str]]] = [
    (evaluate, {"query_codes": "codes", "database_codes": "codes", "query_labels": "labels",
                "database_labels": "labels", "neighbours": "none", "exclude_self": "unset",
                "query_ids": "none", "database_ids": "none", **EVALUATION}),
    (evaluate_shards, {"query_codes": "codes", "database": "path", "query_labels": "labels", **EVALUATION}),
    (published, {"query_codes": "codes", "database_codes": "codes", "query_labels": "labels",
                 "database_labels": "labels", "preset": "preset", "k": "k", "order": "order",
                 "seed": "radius"}),
    (BinaryCodes, {"packed": "codes", "bits": "radius"}),
    (BinaryCodes.from_array, {"codes": "codes"}),
    (BinaryCodes.from_real, {"values": "codes", "one_sign": "flag"}),
    (ProductCodes, {"indices": "codes", "codebooks": "codes"}),
    (Counts, {"items": "codes", "relevant": "labels"}),
    (Evaluation, {"rankings": "codes", "k": "k"}),
    (load_arguments, {"path": "path"}),
    (hashbench.read_record, {"folder": "path"}),
    (hashbench.load, {"run": "path"}),
    (load_dataset, {"dataset": "dataset", "protocol": "protocol", "root": "path"}),
]  # fmt: skip
EVALUATED = evaluate(SIGNS[:2], SIGNS, [0, 1], [0, 1, 1], graded=True)
METHODS = [
    EVALUATED.average_precision, EVALUATED.bounds, EVALUATED.chance, EVALUATED.precision, EVALUATED.recall,
    EVALUATED.ndcg, EVALUATED.acg, EVALUATED.curve_by_rank, EVALUATED.curve_by_radius,
    EVALUATED.per_class,
]  # fmt: skip


@pytest.mark.parametrize(("call", "kinds"), CALLS, ids=[call.__qualname__ for call, _ in CALLS])
def test_arguments_that_make_no_sense(
    tries: Callable[[int, int], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Any],
    kinds: dict[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    attempts(tries(30, 2000), arguments(**kinds), lambda drawn: refused(call, **drawn))


@pytest.mark.parametrize("method", METHODS, ids=[method.__name__ for method in METHODS])
def test_cut_offs_that_make_no_sense(tries: Callable[[int, int], int], method: Callable[[Any], Any]) -> None:
    attempts(tries(20, 500), st.one_of(st.sampled_from(GOOD["k"]), ODD), lambda k: refused(method, k))


def attempts(count: int, strategy: st.SearchStrategy[Any], attempt: Callable[[Any], bool]) -> None:
    """Call a function with values of a strategy, some of which must be refused."""
    found: list[bool] = []

    @settings(max_examples=count, deadline=None, database=None, derandomize=True)
    @given(strategy)
    def drawn(value: Any) -> None:
        found.append(attempt(value))

    drawn()
    assert any(found)
