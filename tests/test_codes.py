from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from hashbench.codes import BinaryCodes, ProductCodes
from hashbench.errors import UsageError

RNG = np.random.default_rng(0)
SIGMOID = 1 / (1 + np.exp(-RNG.standard_normal((6, 8))))


@pytest.mark.parametrize("bits", [1, 12, 48, 64, 65, 128, 200])
def test_signs_survive_packing(bits: int) -> None:
    signs = RNG.choice(np.array([-1, 1], np.int8), (7, bits))
    codes = BinaryCodes.from_array(signs)
    assert (len(codes), codes.bits) == (7, bits)
    assert codes.packed.dtype == np.uint64
    np.testing.assert_array_equal(codes.to_signs(), signs)
    assert codes.to_signs().dtype == np.int8


def test_all_domains_give_the_same_codes() -> None:
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


def test_the_sign_of_zero_is_plus_one() -> None:
    values = [[0.0, -0.0, 1e-30, -1e-30, np.inf, -np.inf]]
    np.testing.assert_array_equal(BinaryCodes.from_real(values).to_signs(), [[1, 1, 1, -1, 1, -1]])


def test_values_of_one_sign_are_accepted_in_one_row_or_on_request() -> None:
    np.testing.assert_array_equal(BinaryCodes.from_real([[0.2, 0.9]]).to_signs(), [[1, 1]])
    np.testing.assert_array_equal(BinaryCodes.from_real([[-0.2, -0.9]]).to_signs(), [[-1, -1]])
    np.testing.assert_array_equal(BinaryCodes.from_real(SIGMOID, one_sign=True).to_signs(), np.ones((6, 8)))
    assert len(BinaryCodes.from_real(np.zeros((0, 3)))) == 0
    np.testing.assert_array_equal(BinaryCodes.from_array(np.ma.array([[1, -1]])).to_signs(), [[1, -1]])


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
            r"codes: expected values of ±1, got exact zeros: 1 of 3 values, at row 0; .*BinaryCodes",
        ),
        (
            lambda: BinaryCodes.from_array(np.where(np.arange(40).reshape(10, 4) % 5, -1, 0)),
            r"zeros: 8 of 40 values, at rows 0, 1, 2, 3, 5 and 3 more; torch\.sign",
        ),
        (lambda: BinaryCodes.from_array([[0.5, -2.0]]), r"got values such as -2, 0.5; take the sign of real"),
        (lambda: BinaryCodes.from_array([[-0.5, -2.0]]), "threshold them first"),
        (lambda: BinaryCodes.from_array([[0.5, 0.9]]), "threshold them first, at 0.5 .* at the mean of"),
        (lambda: BinaryCodes.from_array([[0, 255]]), "if they are packed codes, .*bits=64.*pass `codes > 0`"),
        (lambda: BinaryCodes.from_array([[2**63 + 1, 2**63 + 3]]), "if they are packed codes"),
        (lambda: BinaryCodes.from_array([[0.3, 1.0]], "my_codes"), "my_codes: .*0.3, 1"),
        (lambda: BinaryCodes.from_array([[1.0], [np.nan]]), "1 rows contain NaN, the first is row 1"),
        (lambda: BinaryCodes.from_array([1, -1]), r"expected an array \[n, bits\], got shape \[2\]"),
        (lambda: BinaryCodes.from_array(np.ones((3, 0))), r"got shape \[3, 0\]"),
        (lambda: BinaryCodes.from_array([["a"]]), "expected numbers"),
        (lambda: BinaryCodes.from_real([[np.nan]]), "NaN"),
        (
            lambda: BinaryCodes.from_real(SIGMOID, "mine"),
            r"mine: .*both signs, got 0\.\d+ to .*, at 0.5 for the",
        ),
        (lambda: BinaryCodes.from_real(torch.tensor(SIGMOID)), "threshold them first"),
        (lambda: BinaryCodes.from_real(np.log(SIGMOID)), "threshold them first"),
        (lambda: BinaryCodes.from_real(np.zeros((2, 4))), "got 0 to 0; codes of {0, 1} are read by"),
        (
            lambda: BinaryCodes.from_real([[0, 1], [1, 1]]),
            "codes of {0, 1} are read by BinaryCodes.from_array",
        ),
        (lambda: BinaryCodes.from_real([[0, 255], [255, 255]]), "0 and another number, pass `codes > 0`"),
        (
            lambda: BinaryCodes.from_real(SIGMOID > 0.5),
            "got bool, which has no sign; codes of {0, 1} are read by",
        ),
        (lambda: BinaryCodes.from_real(torch.tensor([[True]])), "got bool, which has no sign"),
        (
            lambda: BinaryCodes.from_real(np.full((1, 2), 7, np.uint8)),
            "got uint8, .*if they are packed codes",
        ),
        (lambda: BinaryCodes.from_real(np.full((1, 2), 1, np.uint64)), "got uint64, which has no sign"),
        (
            lambda: BinaryCodes.from_array(np.ma.masked_equal([[1, -1], [1, 1]], -1)),
            "codes: expected no masked values, got 1; fill them, or remove their rows",
        ),
        (lambda: BinaryCodes(np.zeros((2, 2), np.uint64), 64), r"expected uint64 \[n, 1\] for 64 bits"),
        (lambda: BinaryCodes(np.zeros((2, 1), np.int64), 64), "got int64"),
        (lambda: BinaryCodes(np.full((2, 1), 31, np.uint64), 4), "set past bit 4; check `bits`"),
        (
            lambda: BinaryCodes(np.array([[0b1101_0000_1011_0110]], np.uint64), 12),
            "set past bit 12; they look like numpy.packbits in its default, big-endian order: pass bitorder=",
        ),
    ],
)
def test_invalid_codes_are_an_error_of_one_line(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def product_codes(n: int = 6, books: int = 3, words: int = 8, dim: int = 5) -> ProductCodes:
    numbers = RNG.integers(0, words, (n, books)).astype(np.uint8)
    return ProductCodes(numbers, RNG.standard_normal((books, words, dim)).astype(np.float32))


def test_product_codes_are_reconstructed() -> None:
    codes = product_codes()
    assert (len(codes), codes.bits) == (6, 9)
    vectors = codes.reconstruct()
    assert vectors.shape == (6, 15)
    np.testing.assert_array_equal(vectors[4, 5:10], codes.codebooks[1, codes.indices[4, 1]])
    np.testing.assert_array_equal(codes[2:4].reconstruct(), vectors[2:4])
    assert codes[:0].reconstruct().shape == (0, 15)
    assert len(codes[:0].to_binary()) == 0


@pytest.mark.parametrize(
    ("words", "kind"), [(2, np.uint8), (16, np.uint8), (256, np.uint8), (1024, np.uint16)]
)
def test_product_codes_have_a_binary_form(words: int, kind: type) -> None:
    numbers = RNG.integers(0, words, (50, 2)).astype(kind)
    codes = ProductCodes(numbers, np.zeros((2, words, 1), np.float32))
    binary = codes.to_binary()
    assert binary.bits == codes.bits == 2 * int(np.log2(words))
    bits = (binary.to_signs().astype(int) + 1) // 2
    digits = 2 ** np.arange(binary.bits // 2)
    np.testing.assert_array_equal(bits.reshape(50, 2, -1) @ digits, numbers)


@pytest.mark.parametrize(
    ("words", "codebooks", "message"),
    [
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((3, 6, 1), np.float32),
            "a power of 2 as the number of words, got 6",
        ),
        (np.zeros((2, 3), np.uint8), np.zeros((3, 1, 1), np.float32), "a power of 2"),
        (np.zeros((2, 3), np.uint8), np.zeros((3, 8, 1)), "expected float32"),
        (np.zeros((2, 3), np.uint8), np.full((3, 8, 1), np.nan, np.float32), "expected finite values"),
        (
            np.zeros((2, 3), np.uint8),
            np.full((3, 8, 1), -3e38, np.float32),
            r"codebooks: expected values within ±5.3e\+18, got 3e\+38: squared distances of 3 dim",
        ),
        (np.zeros((2, 3), np.int64), np.zeros((3, 8, 1), np.float32), "uint8 or uint16"),
        (np.zeros((2, 4), np.uint8), np.zeros((3, 8, 1), np.float32), r"\[n, 3\], got uint8 \[2, 4\]"),
        (
            np.full((2, 3), 8, np.uint8),
            np.zeros((3, 8, 1), np.float32),
            "product codes: expected indices of 0 to 7, got 8",
        ),
    ],
)
def test_invalid_product_codes(words: np.ndarray, codebooks: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProductCodes(words, codebooks)


def test_importing_codes_and_evaluation_does_not_import_torch() -> None:
    script = "import sys, hashbench.codes, hashbench.evaluation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
