"""Health of codes: signs of collapse that a retrieval metric can hide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.evaluation.result import Evaluation

_COLLAPSED = 0.5  # fractions of tied items and of dead bits from which codes are considered collapsed

# Sums of products of ±1 over this many codes are exact in float32.
_BLOCK = 16384


class CodeHealth(BaseModel):
    """Statistics on how well codes use their bits.

    Codes are *collapsed* if, averaged over the queries, at least half of the database is at the same distance
    from the query, or if at least half of the bits are dead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unique_code_ratio: float = Field(description="number of distinct codes in the database / number of items")
    dead_bits: int = Field(
        description="number of bits with the same value in every code of the database; "
        "the bits of product codes are the indices of their codewords in binary"
    )
    bit_balance: float = Field(
        description="mean over bits of |mean sign|; 0: both values equally frequent, 1: dead"
    )
    mean_bit_correlation: float = Field(
        description="mean |Pearson correlation| over pairs of bits that are not dead; 0 if there are no pairs"
    )
    largest_tie_block_mean: float = Field(
        description="largest fraction of the database at one distance from a query, mean over the queries"
    )
    largest_tie_block_max: float = Field(
        description="largest fraction of the database at one distance from a query, maximum over the queries"
    )
    chance_map: dict[str, float] = Field(description="expected mAP of a random ranking, for each reported k")
    collapsed: bool
    reasons: tuple[str, ...] = Field(description="why the codes are considered collapsed, in words")


def code_health(database_codes: Codes, evaluation: Evaluation) -> CodeHealth:
    """Check codes for signs of collapse.

    Args:
        database_codes: Codes of the database.
        evaluation: Evaluation of queries against this database.
    """
    binary = database_codes.to_binary() if isinstance(database_codes, ProductCodes) else database_codes
    means, products = moments(binary)
    dead = np.abs(means) == 1
    tie_blocks = evaluation.largest_ties
    reasons = []
    if tie_blocks.mean() >= _COLLAPSED:
        reasons.append(
            f"on average {tie_blocks.mean():.0%} of the database lies at one distance from a query"
        )
    if dead.mean() >= _COLLAPSED:
        reasons.append(f"{dead.sum()} of {binary.bits} bits have the same value in every code")
    return CodeHealth(
        unique_code_ratio=len(np.unique(binary.packed, axis=0)) / len(binary),
        dead_bits=int(dead.sum()),
        bit_balance=float(np.abs(means).mean()),
        mean_bit_correlation=_mean_correlation(means[~dead], products[np.ix_(~dead, ~dead)]),
        largest_tie_block_mean=float(tie_blocks.mean()),
        largest_tie_block_max=float(tie_blocks.max()),
        chance_map={f"mAP@{cutoff}": evaluation.chance(cutoff) for cutoff in evaluation.k},
        collapsed=bool(reasons),
        reasons=tuple(reasons),
    )


def moments(codes: BinaryCodes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of the signs [bits] and of the products of pairs of signs [bits, bits]."""
    sums, products = np.zeros(codes.bits), np.zeros((codes.bits, codes.bits))
    for start in range(0, len(codes), _BLOCK):
        signs = codes[start : start + _BLOCK].to_signs().astype(np.float32)
        sums += signs.sum(axis=0)
        products += signs.T @ signs
    return sums / len(codes), products / len(codes)


def _mean_correlation(means: NDArray[np.float64], products: NDArray[np.float64]) -> float:
    if len(means) < 2:
        return 0.0
    deviations = np.sqrt(1 - means**2)
    correlations = (products - np.outer(means, means)) / np.outer(deviations, deviations)
    return float(np.abs(correlations[~np.eye(len(means), dtype=bool)]).mean())
