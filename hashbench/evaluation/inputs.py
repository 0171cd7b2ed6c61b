"""Arguments of the evaluator: conversion and checks of codes, labels and settings."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
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
from hashbench.errors import UsageError, quoted
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.counts.relevance import Relevance
from hashbench.runtime.arguments import as_count, check_choice, check_type

Cutoff = int | Literal["all", "R"]
Cutoffs = Iterable[Cutoff] | Cutoff | NDArray[np.integer[Any]]
Denominator = Literal["hits", "relevant", "all_relevant"]
NoRelevant = Literal["zero", "skip"]
Average = Literal["macro", "micro"]

_SIDES = ("query", "database")


def read_codes(
    query: Codes | ArrayLike, database: BinaryCodes | ArrayLike
) -> tuple[BinaryCodes, BinaryCodes]:
    """Return the codes of the queries and of the database, checked to be comparable.

    Raises:
        UsageError: One is empty or not a code, they differ in length, or one holds ±1 and the other {0, 1}.
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
            f"query_codes contain {min(query_domains)} and database_codes {min(database_domains)}; "
            "pass both in the same domain"
        )
    return query_codes, database_codes


def read_vectors(query: Codes | ArrayLike, database: ProductCodes) -> NDArray[np.float32]:
    """Return the vectors of the queries, checked to be comparable with product codes.

    Args:
        query: Real values [queries, books · dim], or product codes with the codebooks of the database, which
            are replaced by their codewords.
        database: Codes of the database.

    Raises:
        UsageError: `query` is neither, a value is not finite or too large, or either argument is empty.
    """
    for name, codes in (("query_codes", query), ("database_codes", database)):
        if isinstance(codes, ProductCodes) and len(codes) == 0:
            raise UsageError(f"{name}: expected at least one code, got none")
    if isinstance(query, BinaryCodes):
        raise UsageError(
            "query_codes are binary but database_codes are product codes; encode both with the same model"
        )
    if isinstance(query, ProductCodes):
        if not np.array_equal(query.codebooks, database.codebooks):
            raise UsageError(
                "query_codes and database_codes have different codebooks; encode both with the same model"
            )
        return query.reconstruct()
    books, _, dim = database.codebooks.shape
    vectors = as_array(query, "query_codes")
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or vectors.shape[1] != books * dim or len(vectors) == 0:
        raise UsageError(
            f"query_codes: expected real values [queries, books · dim = {books * dim}] to compare with the "
            f"database's product codes, got {vectors.dtype} {list(vectors.shape)}"
        )
    if not (finite := np.isfinite(vectors).all(axis=1)).all():
        raise UsageError(f"query_codes: row {np.argmin(finite)} is not finite; fix the encoder")
    check_magnitude(vectors, books * dim, "query_codes")
    return vectors.astype(np.float32)


def read_labels(labels: ArrayLike, name: str, codes: Sized) -> Labels:
    """Return the labels of the items of `codes`.

    Raises:
        UsageError: The labels are invalid, or their number differs from the number of codes.
    """
    read = Labels.from_array(labels, f"{name}_labels")
    if len(read) != len(codes):
        raise UsageError(f"{name}_labels: expected {len(codes)} rows, one per code, got {len(read)}")
    return read


def read_relevance(
    labels: tuple[ArrayLike | None, ArrayLike | None],
    neighbours: ArrayLike | None,
    exclude_self: bool,
    ids: tuple[ArrayLike | None, ArrayLike | None],
    codes: tuple[Sized, Sized],
) -> Relevance:
    """Return which items are relevant to a query, and which item is itself.

    Args:
        labels: Labels of the queries and of the database, or None.
        neighbours: Rows of the database that are relevant to each query, or None.
        exclude_self: Exclude the item of the database that has the id of the query.
        ids: Ids of the queries and of the database, or None.
        codes: Codes of the queries and of the database.

    Raises:
        UsageError: An argument is invalid, missing or superfluous.
    """
    check_type("exclude_self", exclude_self, bool, np.bool_)
    if exclude_self != (ids[0] is not None) or exclude_self != (ids[1] is not None):
        raise UsageError("exclude_self=True, query_ids and database_ids need each other; pass all or none")
    own = (
        _own_rows(*(_read_ids(*one) for one in zip(ids, _SIDES, codes, strict=True)))
        if exclude_self
        else None
    )
    given = [one is not None for one in (*labels, neighbours)]
    if given not in ([True, True, False], [False, False, True]):
        raise UsageError("expected query_labels and database_labels, or neighbours; pass one of both")
    if neighbours is None:
        query, database = (
            read_labels(one, name, items)  # type: ignore[arg-type]
            for one, name, items in zip(labels, _SIDES, codes, strict=True)
        )
        check_comparable(query, database)
        return Relevance(query, database, own=own)
    listed = _read_neighbours(neighbours, *map(len, codes))
    none = [
        Labels.from_array(np.full(len(items), side)) for side, items in enumerate(codes)
    ]  # none is shared
    return Relevance(none[0], none[1], listed, own)


def _read_ids(ids: Any, name: str, codes: Sized) -> Any:
    """Return ids as a pandas.Index."""
    array = as_array(ids, f"{name}_ids").reshape(-1)
    if len(array) != len(codes):
        raise UsageError(f"{name}_ids: expected {len(codes)} ids, one per code, got {len(array)}")
    if array.dtype.kind not in "biufUO":
        raise UsageError(f"{name}_ids: expected texts or numbers, got {array.dtype}")
    return pd.Index(array.astype(str) if array.dtype.kind == "O" else array)


def _own_rows(query: Any, database: Any) -> NDArray[np.int64]:
    """Return the row of the database that has the id of each query."""
    if not database.is_unique:
        twice = quoted(database[database.duplicated()][0])
        raise UsageError(f"database_ids: expected different ids, got {twice} more than once")
    rows = np.asarray(database.get_indexer(query), np.int64)
    if (missing := rows < 0).any():
        raise UsageError(
            f"query_ids: {missing.sum():,} of {len(rows):,} ids are not in database_ids, such as "
            f"{quoted(query[missing][0])}; exclude_self needs a database that holds the queries"
        )
    return rows


def _read_neighbours(neighbours: ArrayLike, queries: int, items: int) -> NDArray[np.int64]:
    rows = as_array(neighbours, "neighbours")
    if rows.dtype.kind not in "iu" or rows.ndim != 2 or len(rows) != queries or rows.shape[1] == 0:
        raise UsageError(
            f"neighbours: expected rows of the database, integers [queries = {queries}, n], "
            f"got {rows.dtype} {list(rows.shape)}"
        )
    if rows.min() < 0 or rows.max() >= items:
        raise UsageError(f"neighbours: expected rows from 0 to {items - 1}, got {rows.min()} to {rows.max()}")
    ordered = np.sort(rows, axis=1)
    if (twice := (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)).any():
        raise UsageError(
            f"neighbours: expected different rows for each query, got some twice at {np.argmax(twice)}"
        )
    return rows.astype(np.int64)


def check_comparable(query: Labels, database: Labels) -> None:
    """Raise UsageError unless both are class ids or both are multi-hot with the same number of columns."""
    if query.columns != database.columns:
        raise UsageError(
            f"query_labels are {query} and database_labels are {database}; pass both in the same form, "
            "with the same labels in the same order"
        )


def check_settings(k: Cutoffs, radius: int, denominator: str, no_relevant: str) -> dict[str, Any]:
    """Return the settings of an `Evaluation` in the form in which it stores them.

    Raises:
        UsageError: A setting is invalid.
    """
    check_choice("denominator", denominator, get_args(Denominator))
    check_choice("no_relevant", no_relevant, get_args(NoRelevant))
    return {
        "k": read_cutoffs(k, "k"),
        "radius": as_count(radius, "radius", "a number of bits, 0 or more", least=0),
        "denominator": denominator,
        "no_relevant": no_relevant,
    }


def read_cutoffs(values: Cutoffs, name: str) -> tuple[Cutoff, ...]:
    """Return cut-offs given as a list, an array or a tensor, or as a single value.

    Raises:
        UsageError: There is no cut-off, or one is neither a number of items, "all" nor "R".
    """
    given: Any = values
    if hasattr(given, "tolist"):
        given = as_array(given, name).tolist()
    listed = [*given] if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if not listed:
        raise UsageError(f"{name}: expected at least one cut-off, got none")
    return tuple(check_cutoff(value, name) for value in listed)


def check_cutoff(k: Cutoff, name: str = "k") -> Cutoff:
    """Return a cut-off, which is a number of items, "all" or "R".

    Raises:
        UsageError: `k` is none of them.
    """
    if isinstance(k, str) and k in get_args(get_args(Cutoff)[1]):
        return k
    return as_count(k, name, "a number of items, 1 or more, 'all' or 'R'", least=1)


def _read_codes(codes: Codes | ArrayLike, name: str) -> tuple[BinaryCodes, frozenset[str]]:
    domains: frozenset[str] = frozenset()
    if isinstance(codes, ProductCodes):
        raise UsageError(
            f"{name} are product codes but database_codes are not; encode both with the same model"
        )
    if not isinstance(codes, BinaryCodes):
        bits, domains = code_bits(codes, name)
        codes = BinaryCodes(pack_bits(bits), bits.shape[1])
    if len(codes) == 0:
        raise UsageError(f"{name}: expected at least one code, got none")
    return codes, domains
