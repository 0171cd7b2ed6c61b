"""Binary codes and product codes, in the form in which they are stored and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashbench.errors import UsageError
from hashbench.runtime.arguments import as_count, check_choice, check_type

WORD = 64
SIGNS = "±1"
ZERO_ONE = "{0, 1}"
ProductDistance = Literal["l2", "squared_l2", "inner_product"]
_ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)  # bits of a byte that are 1


@dataclass(frozen=True, eq=False)
class BinaryCodes:
    """Binary codes of n items.

    Attributes:
        packed: uint64 [n, words] with words = ceil(bits / 64), C-contiguous. Bit i of a code is bit i % 64 of
            word i // 64; 1 represents +1 and 0 represents −1. Padding bits are 0.
        bits: Length of a code, in bits.

    Raises:
        UsageError: The type or shape of `packed` is wrong, or a padding bit is set.
    """

    packed: NDArray[np.uint64]
    bits: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", as_array(self.packed, "packed codes"))
        object.__setattr__(self, "bits", as_count(self.bits, "bits", "a number of bits, 1 or more", least=1))
        words = -(-self.bits // WORD)
        if self.packed.dtype != np.uint64 or self.packed.shape[1:] != (words,):
            raise UsageError(
                f"packed codes: expected uint64 [n, {words}] for {self.bits} bits, "
                f"got {self.packed.dtype} {list(self.packed.shape)}; use BinaryCodes.from_array"
            )
        if self.bits % WORD and (self.packed[:, -1] >> np.uint64(self.bits % WORD)).any():
            last = np.ascontiguousarray(self.packed[:, -1:]).view(np.uint8)
            big_endian = not np.unpackbits(last, axis=1)[:, self.bits % WORD :].any()
            advice = (
                "they look like numpy.packbits in its default, big-endian order: pass bitorder='little' to it"
                if big_endian
                else "check `bits`"
            )
            raise UsageError(f"packed codes: bits are set past bit {self.bits}; {advice}")

    @classmethod
    def from_array(cls, codes: ArrayLike, name: str = "codes") -> BinaryCodes:
        """Create codes from their values.

        Args:
            codes: Array or tensor [n, bits] of ±1, of {0, 1}, or bool.
            name: Name of `codes` in error messages.

        Raises:
            UsageError: The values are of another domain or NaN, or the shape is not [n, bits].
        """
        return cls._pack(code_bits(codes, name)[0])

    @classmethod
    def from_real(cls, values: ArrayLike, name: str = "codes", *, one_sign: bool = False) -> BinaryCodes:
        """Create codes from the signs of real values; 0 becomes +1.

        Several rows without a value of either sign are an error: they are probably outputs of a sigmoid or
        codes of {0, 1}, whose signs are meaningless. A single row may have one sign by chance.

        Args:
            values: Array or tensor [n, bits] of real numbers of both signs.
            name: Name of `values` in error messages.
            one_sign: Accept values of one sign, such as those of a collapsed encoder.

        Raises:
            UsageError: A value is NaN, the shape is not [n, bits], or the values do not have both signs.
        """
        check_type("one_sign", one_sign, bool, np.bool_)
        array = _matrix(values, name)
        if array.dtype.kind in "bu":
            raise UsageError(
                f"{name}: expected real numbers of both signs, got {array.dtype}, which has no sign; "
                f"{_without_signs(array)}"
            )
        if len(array) > 1 and not one_sign and not array.min() < 0 < array.max():
            raise UsageError(
                f"{name}: expected real numbers of both signs, got {array.min():g} to {array.max():g}; "
                f"{_without_signs(array)}; if their signs are meant nevertheless, pass one_sign=True"
            )
        return cls._pack(array >= 0)

    @classmethod
    def _pack(cls, bits: NDArray[np.bool_]) -> BinaryCodes:
        return cls(pack_bits(bits), bits.shape[1])

    def to_signs(self) -> NDArray[np.int8]:
        """Return the codes as ±1, int8 [n, bits]."""
        signs: NDArray[np.int8] = np.where(unpack_bits(self.packed, self.bits), np.int8(1), np.int8(-1))
        return signs

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, rows: slice | NDArray[Any]) -> BinaryCodes:
        return BinaryCodes(self.packed[rows], self.bits)


@dataclass(frozen=True, eq=False)
class ProductCodes:
    """Product codes of n items: vectors split into pieces, each replaced by its nearest codeword.

    Attributes:
        indices: Index of the codeword in each codebook, uint8 [n, books], or uint16 for more than 256 words.
        codebooks: The codewords, float32 [books, words, dim]; the number of words is a power of 2.
        distance: What is summed over the books to rank items: "l2", the Euclidean distance between the piece
            of the query and the codeword (SPQ), "squared_l2", its square (PQ), or "inner_product", of which a
            larger one is nearer (MeCoQ).

    Raises:
        UsageError: The type or shape of an array is wrong, a value is not finite, an index is too large, or
            the distance is unknown.
    """

    indices: NDArray[np.unsignedinteger[Any]]
    codebooks: NDArray[np.float32]
    distance: ProductDistance = "l2"

    def __post_init__(self) -> None:
        check_choice("distance", self.distance, get_args(ProductDistance))
        object.__setattr__(self, "indices", as_array(self.indices, "product codes"))
        object.__setattr__(self, "codebooks", as_array(self.codebooks, "codebooks"))
        if self.codebooks.ndim != 3 or self.codebooks.dtype != np.float32 or 0 in self.codebooks.shape:
            raise UsageError(
                "codebooks: expected float32 [books, words, dim], "
                f"got {self.codebooks.dtype} {list(self.codebooks.shape)}"
            )
        books, size, dim = self.codebooks.shape
        if size < 2 or size & (size - 1):
            raise UsageError(f"codebooks: expected a power of 2 as the number of words, got {size}")
        if not np.isfinite(self.codebooks).all():
            raise UsageError("codebooks: expected finite values, got NaN or infinity; fix the encoder")
        check_magnitude(self.codebooks, books * dim, "codebooks")
        if self.indices.dtype not in (np.uint8, np.uint16) or self.indices.shape[1:] != (books,):
            raise UsageError(
                f"product codes: expected uint8 or uint16 [n, {books}], "
                f"got {self.indices.dtype} {list(self.indices.shape)}"
            )
        if len(self.indices) and self.indices.max() >= size:
            raise UsageError(f"product codes: expected indices of 0 to {size - 1}, got {self.indices.max()}")

    @property
    def bits(self) -> int:
        """Length of a code, in bits: books · log2(words)."""
        books, size, _ = self.codebooks.shape
        return int(books) * (int(size).bit_length() - 1)

    def tables(self, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return what each codeword adds to the distance from each query.

        Inner products are subtracted from the largest one of the book, so that the nearest codeword adds 0.

        Args:
            queries: Vectors [queries, books · dim].

        Returns:
            float64 [queries, books, words], nonnegative.
        """
        books, _, dim = self.codebooks.shape
        pieces, codebooks = queries.reshape(-1, books, 1, dim), self.codebooks.astype(np.float64)
        if self.distance == "inner_product":
            products = (pieces * codebooks).sum(axis=-1)
            return np.asarray(products.max(axis=-1, keepdims=True) - products)
        squares = np.square(pieces - codebooks).sum(axis=-1)
        return np.asarray(squares if self.distance == "squared_l2" else np.sqrt(squares))

    def to_binary(self) -> BinaryCodes:
        """Return the indices in binary, one codebook after the other; Hamming distances have no meaning."""
        digits = np.arange(self.codebooks.shape[1].bit_length() - 1)
        bits = self.indices[:, :, None] >> digits & 1  # [n, books, log2(words)]
        return BinaryCodes.from_array(bits.reshape(-1, self.bits))

    def reconstruct(self) -> NDArray[np.float32]:
        """Return the vectors that the codes represent, float32 [n, books · dim]."""
        books, _, dim = self.codebooks.shape
        pieces: NDArray[np.float32] = self.codebooks[np.arange(books), self.indices]  # [n, books, dim]
        return pieces.reshape(-1, books * dim)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice | NDArray[Any]) -> ProductCodes:
        return ProductCodes(self.indices[rows], self.codebooks, self.distance)


Codes = BinaryCodes | ProductCodes


def pack_bits(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack rows of bits into 64-bit words.

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


def count_bits(packed: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the number of bits that are 1 in each row of packed bits [n, words], int64 [n]."""
    return np.asarray(_ONES[packed.view(np.uint8)].sum(axis=1, dtype=np.int64))


def unpack_bits(packed: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    """Unpack the words of `pack_bits` to 0 and 1, uint8 [n, bits]."""
    octets = np.ascontiguousarray(packed).view(np.uint8)
    return np.unpackbits(octets, axis=1, count=bits, bitorder="little")


def as_array(values: ArrayLike, name: str) -> NDArray[Any]:
    """Convert values to a dense NumPy array.

    Args:
        values: Array, tensor on any device, or sparse matrix; torch and SciPy are not imported.
        name: Name of `values` in error messages.

    Raises:
        UsageError: Values are masked or cannot be converted, such as rows of different lengths.
    """
    array: Any = values
    if np.ma.is_masked(array):
        raise UsageError(
            f"{name}: expected no masked values, got {array.mask.sum()}; fill them, or remove their rows"
        )
    try:
        if hasattr(array, "detach"):
            tensor = array.detach().cpu().to_dense()
            # NumPy has no bfloat16.
            return np.asarray((tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy())
        return np.asarray(array.toarray() if hasattr(array, "toarray") else array)
    except Exception as error:  # torch, SciPy and other libraries raise errors of many types
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(
            f"{name}: expected an array, a tensor or rows of equal length, got {type(values).__name__}, "
            f"which cannot be converted ({reason[:200]})"
        ) from None


def code_bits(codes: ArrayLike, name: str) -> tuple[NDArray[np.bool_], frozenset[str]]:
    """Return the bits of codes, and the possible domains of their values.

    Args:
        codes: Array or tensor [n, bits] of ±1, of {0, 1}, or bool.
        name: Name of `codes` in error messages.

    Returns:
        bool [n, bits], and the domains: `SIGNS`, `ZERO_ONE`, or both if every value is 1.

    Raises:
        UsageError: The values are of another domain or NaN, or the shape is not [n, bits].
    """
    array = _matrix(codes, name)
    ones = array == 1
    rests = {SIGNS: -1, ZERO_ONE: 0}
    domains = frozenset(domain for domain, rest in rests.items() if (ones | (array == rest)).all())
    if not domains:
        zeros = array == 0
        if (ones | zeros | (array == -1)).all():
            raise UsageError(
                f"{name}: expected values of {SIGNS}, got exact zeros: {zeros.sum():,} of {zeros.size:,} "
                f"values, at {_rows(zeros.any(axis=1))}; torch.sign and numpy.sign map 0 to 0: replace it by "
                "1, as BinaryCodes.from_real does"
            )
        found = ", ".join(f"{value:g}" for value in np.unique(array)[:4])
        mixed = array.min() < 0 < array.max()
        advice = (
            "take the sign of real values first (BinaryCodes.from_real)" if mixed else _without_signs(array)
        )
        raise UsageError(
            f"{name}: expected values of {SIGNS} or of {ZERO_ONE}, got values such as {found}; {advice}"
        )
    return ones, domains


def check_magnitude(values: NDArray[Any], dimensions: int, name: str) -> None:
    """Raise UsageError if squared distances of vectors could overflow single precision.

    Args:
        values: Coordinates of the vectors; they may be infinite.
        dimensions: Number of coordinates of a vector.
        name: Name of `values` in error messages.
    """
    limit = float(np.sqrt(np.finfo(np.float32).max / dimensions) / 2)
    largest = float(np.abs(values).max(initial=0))
    if largest > limit:
        raise UsageError(
            f"{name}: expected values within ±{limit:.2g}, got {largest:.2g}: squared distances of "
            f"{dimensions} dimensions would overflow single precision; scale the vectors, or fix the encoder"
        )


def _without_signs(array: NDArray[Any]) -> str:
    """Return advice for values [n, bits], none of them NaN, that do not have both signs."""
    if array.dtype.kind == "b" or ((array == 0) | (array == 1)).all():
        return "codes of {0, 1} are read by BinaryCodes.from_array"
    if array.min() >= 0 and (array == np.floor(array)).all():
        return (
            "if they are packed codes, save their length with them, as in numpy.savez(..., bits=64), or "
            "unpack them with numpy.unpackbits; if they are 0 and another number, pass `codes > 0`"
        )
    return "threshold them first, at 0.5 for the outputs of a sigmoid, else at the mean of each bit"


def _rows(which: NDArray[np.bool_]) -> str:
    """Return the indices of the marked rows in words, as in "rows 2, 5"."""
    rows = np.flatnonzero(which)
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"{'rows' if len(rows) > 1 else 'row'} {', '.join(map(str, rows[:5]))}{more}"


def _matrix(values: ArrayLike, name: str) -> NDArray[Any]:
    array = as_array(values, name)
    if array.ndim != 2 or array.shape[1] == 0:
        raise UsageError(f"{name}: expected an array [n, bits], got shape {list(array.shape)}")
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{name}: expected numbers, got {array.dtype}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        rows = np.flatnonzero(np.isnan(array).any(axis=1))
        raise UsageError(f"{name}: {len(rows)} rows contain NaN, the first is row {rows[0]}; fix the encoder")
    return array
