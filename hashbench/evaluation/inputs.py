"""What a user hands to the evaluator: read it, or say in one line what is wrong with it."""

from __future__ import annotations

from numpy.typing import ArrayLike

from hashbench.codes import BinaryCodes, code_bits, pack_bits
from hashbench.errors import UsageError
from hashbench.evaluation.labels import Labels


def read_codes(
    query: BinaryCodes | ArrayLike, database: BinaryCodes | ArrayLike
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


def read_labels(labels: ArrayLike, name: str, codes: BinaryCodes) -> Labels:
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


def _read_codes(codes: BinaryCodes | ArrayLike, name: str) -> tuple[BinaryCodes, frozenset[str]]:
    domains: frozenset[str] = frozenset()
    if not isinstance(codes, BinaryCodes):
        bits, domains = code_bits(codes, name)
        codes = BinaryCodes(pack_bits(bits), bits.shape[1])
    if len(codes) == 0:
        raise UsageError(f"{name}: expected at least one code, found none")
    return codes, domains
