from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.errors import UsageError
from hashbench.evaluation import evaluate

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
        ({"query_codes": [[1, -1, np.nan, 1]] * 2}, "query_codes: 2 rows hold NaN"),
        ({"query_codes": SIGNS[:2] > 0}, r"query_codes hold \{0, 1\} and database_codes ±1; give both"),
        ({"database_codes": (SIGNS > 0).astype(int)}, r"query_codes hold ±1 and database_codes \{0, 1\}"),
        ({"query_codes": SIGNS[:2, :3]}, "query_codes have 3 bits and database_codes 4"),
        ({"query_codes": SIGNS[0]}, r"query_codes: expected an array \[n, bits\], found shape \[4\]"),
        ({"query_codes": SIGNS[:0], "query_labels": []}, "query_codes: expected at least one code"),
        ({"database_codes": SIGNS[:0], "database_labels": []}, "database_codes: expected at least one code"),
        ({"query_labels": [0]}, "query_labels: expected 2 rows, one a code, found 1"),
        ({"database_labels": [0, 1]}, "database_labels: expected 3 rows, one a code, found 2"),
        (
            {**MULTI_HOT, "query_labels": [[1, 0, 0], [1, 0, 0]]},
            r"query_labels are a multi-hot matrix \[n, 3\] and database_labels are .*\[n, 2\]; give both",
        ),
        ({"query_labels": MULTI_HOT["query_labels"]}, r"multi-hot matrix \[n, 2\] .* class ids \[n\]"),
        (
            {**MULTI_HOT, "query_labels": [[2, 0], [0, 1]]},
            "query_labels: a multi-hot matrix holds 0 and 1, found 2",
        ),
        ({**MULTI_HOT, "query_labels": [[np.nan, 0], [0, 1]]}, "holds 0 and 1, found nan"),
        ({"query_labels": [-1, 1]}, "query_labels: class ids must be 0 or more, found -1"),
        ({"query_labels": [0.5, 1]}, "query_labels: class ids must be whole numbers, found 0.5"),
        ({"query_labels": [[0], [7]]}, r"query_labels: one column .*give class ids as a 1-d array \[n\]"),
        ({"query_labels": [[0], [1]]}, "query_labels: one column may be class ids or a single label"),
        (
            {"query_labels": np.zeros((2, 2, 2))},
            r"query_labels: expected class ids \[n\] or .*found \[2, 2, 2\]",
        ),
        ({"query_labels": ["cat", "dog"]}, "query_labels: expected numbers"),
        ({"k": ()}, "k: expected at least one cut-off, found none"),
        ({"k": [0]}, "k: expected a number of items, 1 or more, or 'all', found 0"),
        ({"k": [-1]}, "found -1"),
        ({"k": [True]}, "found True"),
        ({"k": [2.5]}, "found 2.5"),
        ({"k": ["every"]}, "found 'every'"),
        ({"k": "all"}, "expected a list .*found 'all'"),
        ({"k": 1000}, "expected a list .*found 1000"),
        ({"radius": -1}, "radius: expected a number of bits, 0 or more, found -1"),
        ({"radius": True}, "found True"),
        ({"denominator": "all"}, "denominator: expected 'hits' or 'relevant', found 'all'"),
        ({"no_relevant": "drop"}, "no_relevant: expected 'zero' or 'skip', found 'drop'"),
        ({"query_labels": [5, 5], "no_relevant": "skip"}, "leaves no query"),
        ({"device": "tpu"}, "device: expected 'cpu', 'cuda' or 'auto', found 'tpu'"),
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
    ):
        counts = evaluate(**{**GOOD, **change}).counts
        np.testing.assert_array_equal(counts.items, expected.items)
        np.testing.assert_array_equal(counts.relevant, expected.relevant)
