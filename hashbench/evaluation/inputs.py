"""What a user hands to the evaluator: read it, or say in one line what is wrong with it."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashbench.codes import (
    BinaryCodes,
    Codes,
    ProductCodes,
    as_array,
    check_magnitude,
    code_bits,
    pack_bits,
)
from hashbench.errors import UsageError
from hashbench.evaluation.counts.labels import Labels


def read_codes(
    query: Codes | ArrayLike, database: BinaryCodes | ArrayLike
) -> tuple[BinaryCodes, BinaryCodes]:
    """Codes of the queries and of the database, fit to be compared.

    Raises:
        UsageError: One is empty or no code, they differ in bits, or one holds ±1 and the other {0, 1}.
    """
    query_codes, query_domains = _read_codes(query, "query_codes")
    database_codes, database_domains = _read_codes(database, "database_codes")
    if query_codes.bits != database_codes.bits:
        raise UsageError(
            f"query_codes have {query_codes.bits} bits and database_codes {database_codes.bits}; "
            "encode both with the same model"
        )
    if query_domains and database_domains and not query_domains & database_domains:
        raise UsageError(
            f"query_codes hold {min(query_domains)} and database_codes {min(database_domains)}; "
            "give both in the same domain"
        )
    return query_codes, database_codes


def read_vectors(query: Codes | ArrayLike, database: ProductCodes) -> NDArray[np.float32]:
    """Vectors of the queries, fit to be compared with product codes.

    Args:
        query: Real values [queries, books · dim]; or product codes with the codebooks of the database, which
            stand for their codewords.
        database: Codes of the database.

    Raises:
        UsageError: They are neither, a value is not finite or too large, or one of both is empty.
    """
    for name, codes in (("query_codes", query), ("database_codes", database)):
        if isinstance(codes, ProductCodes) and len(codes) == 0:
            raise UsageError(f"{name}: expected at least one code, found none")
    if isinstance(query, BinaryCodes):
        raise UsageError(
            "query_codes are binary and database_codes product codes; encode both with one model"
        )
    if isinstance(query, ProductCodes):
        if not np.array_equal(query.codebooks, database.codebooks):
            raise UsageError(
                "query_codes and database_codes have other codebooks; encode both with one model"
            )
        return query.reconstruct()
    books, _, dim = database.codebooks.shape
    vectors = as_array(query, "query_codes")
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or vectors.shape[1] != books * dim or len(vectors) == 0:
        raise UsageError(
            "query_codes: the database's product codes are compared with real values "
            f"[queries, books · dim = {books * dim}], found {vectors.dtype} {list(vectors.shape)}"
        )
    if not (finite := np.isfinite(vectors).all(axis=1)).all():
        raise UsageError(f"query_codes: row {np.argmin(finite)} is not finite; mend the encoder")
    check_magnitude(vectors, books * dim, "query_codes")
    return vectors.astype(np.float32)


def read_labels(labels: ArrayLike, name: str, codes: Sized) -> Labels:
    """Labels of the items of `codes`.

    Raises:
        UsageError: They are no labels, or not as many as codes.
    """
    read = Labels.from_array(labels, f"{name}_labels")
    if len(read) != len(codes):
        raise UsageError(f"{name}_labels: expected {len(codes)} rows, one a code, found {len(read)}")
    return read


def check_comparable(query: Labels, database: Labels) -> None:
    """Raise UsageError unless both are class ids, or multi-hot over the same labels."""
    if query.columns != database.columns:
        raise UsageError(
            f"query_labels are {query} and database_labels are {database}; give both in the same form, "
            "with the same labels in the same order"
        )


def _read_codes(codes: Codes | ArrayLike, name: str) -> tuple[BinaryCodes, frozenset[str]]:
    domains: frozenset[str] = frozenset()
    if isinstance(codes, ProductCodes):
        raise UsageError(f"{name} are product codes and the database's are not; encode both with one model")
    if not isinstance(codes, BinaryCodes):
        bits, domains = code_bits(codes, name)
        codes = BinaryCodes(pack_bits(bits), bits.shape[1])
    if len(codes) == 0:
        raise UsageError(f"{name}: expected at least one code, found none")
    return codes, domains
