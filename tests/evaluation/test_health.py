from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes
from hashbench.evaluation import CodeHealth, Evaluation, code_health, evaluate

RNG = np.random.default_rng(7)
SIGNS = RNG.choice([-1, 1], (20_000, 16))


def health(database: NDArray[Any], queries: int = 10) -> tuple[CodeHealth, Evaluation]:
    ids = RNG.integers(0, 3, len(database))
    ev = evaluate(database[:queries], database, ids[:queries], ids, k=(5, "all"))
    return code_health(BinaryCodes.from_array(database), ev), ev


def test_random_codes_are_healthy() -> None:
    found, ev = health(SIGNS)
    means, correlations = SIGNS.mean(axis=0), np.corrcoef(SIGNS.T)
    assert found.unique_code_ratio == len(np.unique(SIGNS, axis=0)) / len(SIGNS)
    assert found.dead_bits == 0
    assert found.bit_balance == pytest.approx(np.abs(means).mean())
    assert found.mean_bit_correlation == pytest.approx(np.abs(correlations[~np.eye(16, dtype=bool)]).mean())
    shares = ev.counts.items.max(axis=1) / len(SIGNS)
    assert (found.largest_tie_block_mean, found.largest_tie_block_max) == pytest.approx(
        (shares.mean(), shares.max())
    )
    assert found.chance_map == {"mAP@5": ev.chance(5), "mAP@all": ev.chance("all")}
    assert not found.collapsed
    assert json.loads(found.model_dump_json())["reasons"] == []


def test_repeated_bits_are_correlated() -> None:
    found, _ = health(np.repeat(SIGNS[:, :1], 4, axis=1) * [1, -1, 1, -1])
    assert found.mean_bit_correlation == pytest.approx(1)


def test_dead_bits_are_a_collapse() -> None:
    half = SIGNS.copy()
    half[:, :8] = 1
    found, _ = health(half)
    assert (found.dead_bits, found.collapsed) == (8, True)
    assert found.reasons == ("8 of 16 bits have the same value in every code",)
    assert found.mean_bit_correlation < 0.05
    half[0, 0] = -1
    assert not health(half)[0].collapsed


def test_equal_codes_are_a_collapse() -> None:
    found, ev = health(np.ones((300, 16)))
    assert (found.unique_code_ratio, found.dead_bits, found.bit_balance) == (1 / 300, 16, 1)
    assert (found.mean_bit_correlation, found.largest_tie_block_mean, found.collapsed) == (0, 1, True)
    assert found.reasons[0] == "on average 100% of the database lies at one distance from a query"
    assert found.chance_map["mAP@all"] == ev.mean_average_precision("all")
