from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hashbench.codes import BinaryCodes
from hashbench.errors import UsageError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [1, 12, 48, 64, 65, 128, 200])
def test_signs_survive_packing(bits: int) -> None:
    signs = RNG.choice(np.array([-1, 1], np.int8), (7, bits))
    codes = BinaryCodes.from_array(signs)
    assert (len(codes), codes.bits) == (7, bits)
    assert codes.packed.dtype == np.uint64
    np.testing.assert_array_equal(codes.to_signs(), signs)
    assert codes.to_signs().dtype == np.int8


def test_domains_mean_the_same() -> None:
    signs = RNG.choice([-1.0, 1.0], (5, 70))
    expected = BinaryCodes.from_array(signs).packed
    for same in (
        signs > 0,
        (signs > 0).astype(np.uint8),
        signs.tolist(),
        torch.tensor(signs),
        torch.tensor(signs > 0),
    ):
        np.testing.assert_array_equal(BinaryCodes.from_array(same).packed, expected)


def test_sign_of_real_values_takes_zero_as_plus_one() -> None:
    values = [[0.0, -0.0, 1e-30, -1e-30, np.inf, -np.inf]]
    np.testing.assert_array_equal(BinaryCodes.from_real(values).to_signs(), [[1, 1, 1, -1, 1, -1]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sign_of_tensors(dtype: torch.dtype) -> None:
    values = torch.tensor([[0.5, -2.0]], dtype=dtype, requires_grad=True)
    np.testing.assert_array_equal(BinaryCodes.from_real(values).to_signs(), [[1, -1]])


def test_indexing() -> None:
    signs = RNG.choice([-1, 1], (9, 12))
    codes = BinaryCodes.from_array(signs)
    np.testing.assert_array_equal(codes[:4].to_signs(), signs[:4])
    np.testing.assert_array_equal(codes[np.array([8, 0])].to_signs(), signs[[8, 0]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: BinaryCodes.from_array([[1, -1, 0]]),
            r"codes: expected values of ±1 or of \{0, 1\}, found .*-1, 0, 1",
        ),
        (lambda: BinaryCodes.from_array([[0.3, 1.0]], "my_codes"), "my_codes: .*0.3, 1"),
        (lambda: BinaryCodes.from_array([[1.0], [np.nan]]), "1 rows hold NaN, the first is row 1"),
        (lambda: BinaryCodes.from_array([1, -1]), r"expected an array \[n, bits\], found shape \[2\]"),
        (lambda: BinaryCodes.from_array(np.ones((3, 0))), r"found shape \[3, 0\]"),
        (lambda: BinaryCodes.from_array([["a"]]), "expected numbers"),
        (lambda: BinaryCodes.from_real([[np.nan]]), "NaN"),
        (lambda: BinaryCodes(np.zeros((2, 2), np.uint64), 64), r"expected uint64 \[n, 1\] for 64 bits"),
        (lambda: BinaryCodes(np.zeros((2, 1), np.int64), 64), "found int64"),
        (lambda: BinaryCodes(np.full((2, 1), 16, np.uint64), 4), "set past bit 4"),
    ],
)
def test_what_is_no_code_is_an_error_of_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_importing_codes_and_evaluation_does_not_import_torch() -> None:
    script = "import sys, hashbench.codes, hashbench.evaluation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
