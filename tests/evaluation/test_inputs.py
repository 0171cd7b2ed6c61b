from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_array

from hashbench.codes import BinaryCodes
from hashbench.errors import UsageError
from hashbench.evaluation import Counts, Evaluation, evaluate
from hashbench.evaluation.presets import published

SIGNS = np.array([[1, -1, 1, 1], [-1, -1, 1, -1], [1, 1, 1, 1]])
GOOD: dict[str, Any] = {
    "query_codes": SIGNS[:2],
    "database_codes": SIGNS,
    "query_labels": [0, 1],
    "database_labels": [0, 1, 1],
}
MULTI_HOT = {"query_labels": [[1, 0], [0, 1]], "database_labels": [[1, 0], [0, 1], [1, 1]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_codes": [[1, -1, 0, 1], [1, 1, 1, 1]]}, "query_codes: expected values of ±1"),
        ({"database_codes": SIGNS * 0.5}, "database_codes: .*-0.5, 0.5.*take the sign"),
        ({"query_codes": [[1, -1, np.nan, 1]] * 2}, "query_codes: 2 rows contain NaN"),
        ({"query_codes": SIGNS[:2] > 0}, r"query_codes contain \{0, 1\} and database_codes ±1; pass both"),
        ({"database_codes": (SIGNS > 0).astype(int)}, r"query_codes contain ±1 and database_codes \{0, 1\}"),
        ({"query_codes": SIGNS[:2, :3]}, "query_codes have 3 bits and database_codes 4"),
        ({"query_codes": SIGNS[0]}, r"query_codes: expected an array \[n, bits\], got shape \[4\]"),
        ({"query_codes": SIGNS[:0], "query_labels": []}, "query_codes: expected at least one code"),
        ({"database_codes": SIGNS[:0], "database_labels": []}, "database_codes: expected at least one code"),
        ({"query_labels": [0]}, "query_labels: expected 2 rows, one per code, got 1"),
        ({"database_labels": [0, 1]}, "database_labels: expected 3 rows, one per code, got 2"),
        (
            {**MULTI_HOT, "query_labels": [[1, 0, 0], [1, 0, 0]]},
            r"query_labels are a multi-hot matrix \[n, 3\] and database_labels are .*\[n, 2\]; pass both",
        ),
        ({"query_labels": MULTI_HOT["query_labels"]}, r"multi-hot matrix \[n, 2\] .* class ids \[n\]"),
        (
            {**MULTI_HOT, "query_labels": [[2, 0], [0, 1]]},
            "query_labels: a multi-hot matrix contains 0 and 1, got 2",
        ),
        ({**MULTI_HOT, "query_labels": [[np.nan, 0], [0, 1]]}, "contains 0 and 1, got nan"),
        ({"query_labels": [-1, 1]}, "query_labels: class ids must be 0 or more, got -1"),
        ({"query_labels": [0.5, 1]}, "query_labels: class ids must be whole numbers, got 0.5"),
        (
            {"query_labels": [2**63 + 1, 1]},
            r"query_labels: class ids of float64 are exact below 2\*\*53 only, got 9223372036854775808",
        ),
        (
            {"database_labels": [[0], [2.0**53], [1]]},
            r"database_labels: class ids of float64 .*got 900719925474",
        ),
        ({"query_labels": np.float32([0, 2**24])}, r"float32 are exact below 2\*\*24 only, got 16777216;"),
        ({"query_labels": np.float16([0, 2048])}, r"float16 are exact below 2\*\*11 only"),
        (
            {"query_labels": torch.tensor([0, 256.0]).bfloat16()},
            r"torch.bfloat16 are exact below 2\*\*8 only",
        ),
        ({"query_labels": [0, np.inf]}, r"class ids of float64 are exact below 2\*\*53 only, got inf"),
        ({"query_labels": [0, 2**64]}, "query_labels: expected numbers, got object"),
        (
            {"query_labels": np.ma.masked_equal([0, 9], 9)},
            "query_labels: expected no masked values, got 1",
        ),
        (
            {"query_codes": SIGNS[:2] * 127 + 128},
            "query_codes: .*got values such as 1, 255; if they are packed",
        ),
        (
            {"query_labels": np.zeros((2, 2, 2))},
            r"query_labels: expected class ids \[n\] or .*got \[2, 2, 2\]",
        ),
        ({"query_labels": ["cat", "dog"]}, "query_labels: expected numbers"),
        ({"k": ()}, "k: expected at least one cut-off, got none"),
        ({"k": [0]}, "k: expected a number of items, 1 or more, 'all' or 'R', got 0"),
        ({"k": [-1]}, "got -1"),
        ({"k": [True]}, "got True"),
        ({"k": [2.5]}, "got 2.5"),
        ({"k": ["every"]}, "got 'every'"),
        ({"k": "every"}, "got 'every'"),
        ({"k": 1.0}, "got 1.0"),
        ({"k": np.array([1.0, 5.0])}, "got 1.0"),
        ({"k": None}, "got None"),
        ({"k": True}, "got True"),
        ({"k": [[1, 2]]}, r"got \[1, 2\]"),
        ({"k": 10**5000}, "got a value of the type int"),
        ({"radius": 10**5000}, "radius: expected a number of bits"),
        ({"radius": 2.0}, "radius: expected a number of bits, 0 or more, got 2.0"),
        (
            {"denominator": np.array(["hits"])},
            "denominator: expected 'hits', 'relevant' or 'all_relevant', got array",
        ),
        ({"graded": "no"}, "graded: expected bool"),
        (
            {"query_labels": [[0], [1, 2]]},
            "query_labels: expected an array, a tensor or rows of equal length, got list, which cannot",
        ),
        ({"query_labels": [torch.tensor([0]), torch.tensor([1, 2])]}, "query_labels: expected an array"),
        (
            {
                "query_labels": torch.nested.nested_tensor(
                    [torch.zeros(1), torch.zeros(2)], layout=torch.jagged
                )
            },
            "query_labels: expected an array",
        ),
        ({"query_labels": None}, "expected query_labels and database_labels, or neighbours"),
        ({"query_codes": "codes.npy"}, r"query_codes: expected an array \[n, bits\]"),
        ({"query_codes": torch.empty(2, 4, device="meta")}, "query_codes: expected an array"),
        ({"radius": -1}, "radius: expected a number of bits, 0 or more, got -1"),
        ({"radius": True}, "got True"),
        ({"denominator": "all"}, "denominator: expected 'hits', 'relevant' or 'all_relevant', got 'all'"),
        ({"no_relevant": "drop"}, "no_relevant: expected 'zero' or 'skip', got 'drop'"),
        ({"query_labels": [5, 5], "no_relevant": "skip"}, "leaves no query"),
        ({"device": "tpu"}, "device: expected 'cpu', 'cuda' or 'auto', got 'tpu'"),
    ],
)
def test_wrong_input_is_an_error_of_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        evaluate(**{**GOOD, **changes})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("database", [SIGNS, SIGNS > 0, (SIGNS > 0).astype(np.float32)])
def test_codes_of_ones_fit_either_domain(database: NDArray[Any]) -> None:
    ones = np.ones((2, 4))
    evaluate(**{**GOOD, "query_codes": ones, "database_codes": database})
    evaluate(**{**GOOD, "query_codes": database[:2], "database_codes": np.ones((3, 4))})


def test_every_form_of_codes_and_labels_gives_the_same_counts() -> None:
    expected = evaluate(**GOOD).counts
    for change in (
        {"query_codes": BinaryCodes.from_array(SIGNS[:2])},
        {"query_codes": torch.tensor(SIGNS[:2]), "database_codes": torch.tensor(SIGNS, dtype=torch.bfloat16)},
        {"query_codes": (SIGNS[:2] > 0).tolist(), "database_codes": SIGNS > 0},
        {"query_labels": torch.tensor([0, 1]), "database_labels": torch.tensor([0.0, 1.0, 1.0])},
        {"query_labels": np.eye(2)[[0, 1]], "database_labels": np.eye(2, dtype=bool)[[0, 1, 1]]},
        {"query_labels": [[0], [1]], "database_labels": np.array([[0.0], [1.0], [1.0]])},
        {"query_labels": csr_array(np.eye(2)), "database_labels": coo_matrix([[1, 0], [0, 1], [0, 1]])},
        {"query_labels": torch.eye(2).to_sparse(), "database_labels": np.ma.array([[1, 0], [0, 1], [0, 1]])},
    ):
        counts = evaluate(**{**GOOD, **change}).counts
        np.testing.assert_array_equal(counts.items, expected.items)
        np.testing.assert_array_equal(counts.relevant, expected.relevant)


@pytest.mark.parametrize(
    ("k", "read"),
    [
        (5, (5,)),
        ("all", ("all",)),
        (np.int64(5), (5,)),
        (np.array([1, 5]), (1, 5)),
        (np.array(5), (5,)),
        (torch.tensor([1, 5]), (1, 5)),
        (torch.tensor(5), (5,)),
        ([torch.tensor(5), np.array(1), "all"], (5, 1, "all")),
        (range(1, 3), (1, 2)),
        ((k for k in (1, "all")), (1, "all")),
    ],
)
def test_cut_offs_in_every_form(k: Any, read: tuple[int | str, ...]) -> None:
    result = evaluate(**GOOD, k=k)
    assert result.k == read
    assert json.loads(json.dumps(result.to_dict()))["settings"]["k"] == list(read)


def test_wrong_use_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="k: expected"):
        evaluate(**GOOD, k=0)


def test_counts_and_codes_of_lists() -> None:
    counts: Any = [[1, 0, 1], [0, 2, 0]]
    assert Counts(counts, counts).database == 2
    packed: Any = [[1]]
    assert BinaryCodes(np.uint64(packed), np.int64(4)).bits == 4  # type: ignore[arg-type]
    for values in (packed, "text", None):
        with pytest.raises(UsageError, match="packed codes: expected uint64"):
            BinaryCodes(values, 4)
    with pytest.raises(UsageError, match="bits: expected a number of bits, 1 or more, got 4.0"):
        BinaryCodes(np.uint64(packed), 4.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="rankings: expected Counts or ProductRankings, got 'counts'"):
        Evaluation("counts")  # type: ignore[arg-type]


def test_large_class_ids_are_compared_exactly() -> None:
    """Compare ids that are equal in float64, with equal codes, so that the two items are tied."""
    ids = np.array([2**63 + 1, 2**63 + 3], np.uint64)
    labels: dict[str, Any] = {"query_labels": ids[:1], "database_labels": ids}
    result = evaluate(SIGNS[:1], SIGNS[:2], **labels, k=("all",))
    assert result.mean_average_precision("all") == 1.0
    assert result.counts.relevant.sum() == 1
    with pytest.raises(UsageError, match="query_labels: class ids of float64"):
        published(SIGNS[:1], SIGNS[:2], ids[:1].astype(float), ids, "paper:wch")


def test_a_cut_off_or_radius_beyond_everything_is_everything() -> None:
    result = evaluate(**{**GOOD, "k": (10**30,), "radius": 10**30}).to_dict()["metrics"]
    assert result[f"mAP@{10**30}"] == evaluate(**GOOD).to_dict()["metrics"]["mAP@all"]
    assert result[f"mAP@H<={10**30}"] == evaluate(**GOOD).to_dict()["metrics"]["mAP@all"]
