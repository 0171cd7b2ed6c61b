"""Codes in the form in which they are compared, stored and passed on: binary codes, and product codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashbench.errors import UsageError

WORD = 64
SIGNS = "±1"
ZERO_ONE = "{0, 1}"


@dataclass(frozen=True, eq=False)
class BinaryCodes:
    """Binary codes of n items.

    Attributes:
        packed: uint64 [n, words] with words = ceil(bits / 64), C-contiguous. Bit i of a code is bit i % 64 of
            word i // 64; 1 stands for +1 and 0 for −1. Bits past the last one are 0.
        bits: Length of a code, in bits.

    Raises:
        UsageError: `packed` has another type or shape, or a bit set past the last one.
    """

    packed: NDArray[np.uint64]
    bits: int

    def __post_init__(self) -> None:
        words = -(-self.bits // WORD)
        if self.bits < 1 or self.packed.dtype != np.uint64 or self.packed.shape[1:] != (words,):
            raise UsageError(
                f"packed codes: expected uint64 [n, {words}] for {self.bits} bits, "
                f"found {self.packed.dtype} {list(self.packed.shape)}; use BinaryCodes.from_array"
            )
        if self.bits % WORD and (self.packed[:, -1] >> np.uint64(self.bits % WORD)).any():
            raise UsageError(f"packed codes: bits are set past bit {self.bits}; check `bits`")

    @classmethod
    def from_array(cls, codes: ArrayLike, name: str = "codes") -> BinaryCodes:
        """Codes from their values.

        Args:
            codes: Array or tensor [n, bits] of ±1, of {0, 1}, or bool.
            name: What an error message calls `codes`.

        Raises:
            UsageError: The values are of another domain or NaN, or the array is not [n, bits].
        """
        return cls._pack(code_bits(codes, name)[0])

    @classmethod
    def from_real(cls, values: ArrayLike, name: str = "codes") -> BinaryCodes:
        """Codes from real values by their sign; 0 becomes +1.

        Args:
            values: Array or tensor [n, bits] of real numbers.
            name: What an error message calls `values`.

        Raises:
            UsageError: A value is NaN, or the array is not [n, bits].
        """
        return cls._pack(_matrix(values, name) >= 0)

    @classmethod
    def _pack(cls, bits: NDArray[np.bool_]) -> BinaryCodes:
        return cls(pack_bits(bits), bits.shape[1])

    def to_signs(self) -> NDArray[np.int8]:
        """The codes as ±1, int8 [n, bits]."""
        signs: NDArray[np.int8] = np.where(unpack_bits(self.packed, self.bits), np.int8(1), np.int8(-1))
        return signs

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, rows: slice | NDArray[Any]) -> BinaryCodes:
        return BinaryCodes(self.packed[rows], self.bits)


@dataclass(frozen=True, eq=False)
class ProductCodes:
    """Product codes of n items: a vector in pieces, each replaced by its nearest codeword.

    Attributes:
        indices: Number of the codeword in each book, uint8 [n, books], or uint16 for more than 256 words.
        codebooks: The codewords, float32 [books, words, dim]; the number of words is a power of 2.

    Raises:
        UsageError: An array has another type or shape, a value is not finite, or there is no such codeword.
    """

    indices: NDArray[np.unsignedinteger[Any]]
    codebooks: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.codebooks.ndim != 3 or self.codebooks.dtype != np.float32 or 0 in self.codebooks.shape:
            raise UsageError(
                "codebooks: expected float32 [books, words, dim], "
                f"found {self.codebooks.dtype} {list(self.codebooks.shape)}"
            )
        books, size, _ = self.codebooks.shape
        if size < 2 or size & (size - 1):
            raise UsageError(f"codebooks: expected a power of 2 as the number of words, found {size}")
        if not np.isfinite(self.codebooks).all():
            raise UsageError("codebooks: a value is not finite; mend the encoder")
        if self.indices.dtype not in (np.uint8, np.uint16) or self.indices.shape[1:] != (books,):
            raise UsageError(
                f"product codes: expected uint8 or uint16 [n, {books}], "
                f"found {self.indices.dtype} {list(self.indices.shape)}"
            )
        if len(self.indices) and self.indices.max() >= size:
            raise UsageError(f"product codes: {self.indices.max()} is no codeword; there are 0 to {size - 1}")

    @property
    def bits(self) -> int:
        """Length of a code, in bits: books · log2(words)."""
        books, size, _ = self.codebooks.shape
        return int(books) * (int(size).bit_length() - 1)

    def to_binary(self) -> BinaryCodes:
        """The numbers of the codewords in binary, one book after the other: a name for each code, no more."""
        digits = np.arange(self.codebooks.shape[1].bit_length() - 1)
        bits = self.indices[:, :, None] >> digits & 1  # [n, books, log2(words)]
        return BinaryCodes.from_array(bits.reshape(-1, self.bits))

    def reconstruct(self) -> NDArray[np.float32]:
        """The vectors that the codes stand for, float32 [n, books · dim]."""
        books, _, dim = self.codebooks.shape
        pieces: NDArray[np.float32] = self.codebooks[np.arange(books), self.indices]  # [n, books, dim]
        return pieces.reshape(-1, books * dim)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice | NDArray[Any]) -> ProductCodes:
        return ProductCodes(self.indices[rows], self.codebooks)


Codes = BinaryCodes | ProductCodes


def pack_bits(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Rows of bits as rows of 64-bit words.

    Args:
        bits: bool [n, bits].

    Returns:
        uint64 [n, ceil(bits / 64)], padded with zero bits.
    """
    words = -(-bits.shape[1] // WORD)
    octets = np.zeros((len(bits), words * WORD // 8), np.uint8)
    packed = np.packbits(bits, axis=1, bitorder="little")
    octets[:, : packed.shape[1]] = packed
    return octets.view(np.uint64)


def unpack_bits(packed: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    """The inverse of `pack_bits`: uint8 [n, bits] of 0 and 1."""
    octets = np.ascontiguousarray(packed).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=bits, bitorder="little")


def as_array(values: ArrayLike) -> NDArray[Any]:
    """A NumPy array of `values`, which may be a tensor on any device; no import of torch is needed."""
    tensor: Any = values
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        # NumPy has no bfloat16.
        return np.asarray((tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy())
    return np.asarray(values)


def code_bits(codes: ArrayLike, name: str) -> tuple[NDArray[np.bool_], frozenset[str]]:
    """The bits of codes, and the domains that their values fit.

    Args:
        codes: Array or tensor [n, bits] of ±1, of {0, 1}, or bool.
        name: What an error message calls `codes`.

    Returns:
        bool [n, bits], and the domains: `SIGNS`, `ZERO_ONE`, or both where every value is 1.

    Raises:
        UsageError: The values are of another domain or NaN, or the array is not [n, bits].
    """
    array = _matrix(codes, name)
    ones = array == 1
    rests = {SIGNS: -1, ZERO_ONE: 0}
    domains = frozenset(domain for domain, rest in rests.items() if (ones | (array == rest)).all())
    if not domains:
        found = ", ".join(f"{value:g}" for value in np.unique(array)[:4])
        raise UsageError(
            f"{name}: expected values of {SIGNS} or of {ZERO_ONE}, found values such as {found}; "
            "take the sign of real values first (BinaryCodes.from_real)"
        )
    return ones, domains


def _matrix(values: ArrayLike, name: str) -> NDArray[Any]:
    array = as_array(values)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UsageError(f"{name}: expected an array [n, bits], found shape {list(array.shape)}")
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{name}: expected numbers, found {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array).any(axis=1))
        raise UsageError(f"{name}: {len(rows)} rows hold NaN, the first is row {rows[0]}; mend the encoder")
    return array
