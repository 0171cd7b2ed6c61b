"""The paired bootstrap: nominal coverage, pairing, and no difference where there is none."""

from dataclasses import astuple

import numpy as np
import pytest

from hashbench.report.significance import paired_bootstrap


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """1,000 simulated pairs of runs on 150 queries; AP is skewed, and strongly correlated within a query."""
    random = np.random.default_rng(1)
    truth, covered = 0.03, 0
    for _ in range(1000):
        difficulty = random.beta(2, 1, 150)
        first = 0.7 * difficulty + 0.2 * random.random(150) + truth
        second = 0.7 * difficulty + 0.2 * random.random(150)
        (found,) = paired_bootstrap([(first, second)], resamples=400)
        covered += found.lowest <= truth <= found.highest
    assert 0.93 <= covered / 1000 <= 0.97  # three standard errors of 0.95 are 0.02


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    random = np.random.default_rng(2)
    ps = [
        paired_bootstrap([(random.normal(0, 1, 100), random.normal(0, 1, 100))], resamples=400)[0].p
        for _ in range(600)
    ]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.027)
    assert np.mean(np.array(ps) < 0.5) == pytest.approx(0.5, abs=0.062)


def test_identical_runs_do_not_differ() -> None:
    values = np.random.default_rng(0).random(50)
    (found,) = paired_bootstrap([(values, values.copy())])
    assert (found.mean, found.lowest, found.highest, found.p) == (0, 0, 0, 1)
    assert not found.distinguishable


def test_a_constant_gain_is_certain_since_the_queries_are_paired() -> None:
    values = np.random.default_rng(0).random(50)
    (found,) = paired_bootstrap([(values + 0.001, values)], resamples=999)
    assert found.mean == pytest.approx(0.001)
    assert (found.lowest, found.highest) == pytest.approx((0.001, 0.001))
    assert found.p == pytest.approx(2 / 1000)  # the least that 999 resamples can say
    assert found.distinguishable


def test_the_interval_is_that_of_a_plain_loop() -> None:
    random = np.random.default_rng(3)
    first, second = random.random(40), random.random(40)
    (found,) = paired_bootstrap([(first, second)], resamples=20_000)
    means = [(first - second)[random.integers(40, size=40)].mean() for _ in range(20_000)]
    assert found.lowest == pytest.approx(np.quantile(means, 0.025), abs=0.004)
    assert found.highest == pytest.approx(np.quantile(means, 0.975), abs=0.004)
    assert found.mean == pytest.approx(first.mean() - second.mean())


def test_the_same_values_give_the_same_result_in_whatever_company() -> None:
    first, second, third = np.random.default_rng(4).random((3, 3000))
    alone = paired_bootstrap([(first, third)])
    together = paired_bootstrap([(first, second), (first, third)])
    assert astuple(together[1]) == pytest.approx(astuple(alone[0]))
    assert paired_bootstrap([]) == []
