"""Tests of the paired tests: coverage, pairing, agreement with SciPy, and differences without a test."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from hashbench.report.significance import PairedTest, paired_test


def test_the_interval_has_its_nominal_coverage() -> None:
    """Simulate 1,000 pairs of runs on 150 queries, with skewed AP that is strongly correlated per query."""
    random = np.random.default_rng(1)
    truth, covered = 0.03, 0
    for _ in range(1000):
        difficulty = random.beta(2, 1, 150)
        first = 0.7 * difficulty + 0.2 * random.random(150) + truth
        second = 0.7 * difficulty + 0.2 * random.random(150)
        (found,) = paired_test([(first, second)], resamples=400)
        covered += found.lowest <= truth <= found.highest
    assert 0.93 <= covered / 1000 <= 0.97  # three standard errors of 0.95 are 0.02


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    random = np.random.default_rng(2)
    ps = [
        paired_test([(random.normal(0, 1, 100), random.normal(0, 1, 100))], resamples=400)[0].p
        for _ in range(600)
    ]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.027)
    assert np.mean(np.array(ps) < 0.5) == pytest.approx(0.5, abs=0.062)


def test_interval_and_coverage_are_those_of_scipy() -> None:
    """Compare 200 pairs of runs on 60 queries; SciPy draws different resamples of the same kind."""
    random = np.random.default_rng(5)
    truth = 0.2
    differences = 0.3 * random.beta(2, 1, (200, 60)) + 0.2 * random.uniform(-1, 1, (200, 60))
    found = paired_test([(row, np.zeros(60)) for row in differences], resamples=2000)
    lowest, highest = np.array([(one.lowest, one.highest) for one in found]).T
    expected = stats.bootstrap(
        (differences,), np.mean, axis=1, n_resamples=2000, method="percentile", batch=100, rng=1
    ).confidence_interval
    width = (expected.high - expected.low).mean()
    np.testing.assert_allclose(lowest, expected.low, rtol=0, atol=0.1 * width)
    np.testing.assert_allclose(highest, expected.high, rtol=0, atol=0.1 * width)
    assert np.mean(lowest - expected.low) == pytest.approx(0, abs=0.01 * width)
    assert np.mean(highest - expected.high) == pytest.approx(0, abs=0.01 * width)
    covered = np.mean((lowest <= truth) & (truth <= highest))
    assert covered == pytest.approx(np.mean((expected.low <= truth) & (truth <= expected.high)), abs=0.015)
    assert covered == pytest.approx(0.95, abs=0.047)  # three standard errors


def test_the_permutation_test_counts_swaps_of_the_two_values_of_a_query() -> None:
    """Of the 2 ** 20 swaps of 10 ones and 10 minus ones, count those whose sum is as far from 0."""
    first = np.concatenate([np.ones(15), np.zeros(5)])
    (found,) = paired_test([(first, 1 - first)], "permutation", resamples=20_000)
    exact = 2 * sum(math.comb(20, ones) for ones in range(15, 21)) / 2**20
    assert found.p == pytest.approx(exact, abs=0.005)
    assert found.distinguishable == (exact < 0.05)
    (interval,) = paired_test([(first, 1 - first)], "bootstrap", resamples=20_000)
    assert (found.mean, found.lowest, found.highest) == (interval.mean, interval.lowest, interval.highest)


def test_p_values_of_the_permutation_test_are_uniform_where_there_is_no_difference() -> None:
    differences = np.random.default_rng(6).normal(0, 1, (300, 20))
    ps = [one.p for one in paired_test([(row, 0 * row) for row in differences], "permutation", resamples=400)]
    assert np.mean(np.array(ps) < 0.05) == pytest.approx(0.05, abs=0.038)
    assert np.mean(np.array(ps) < 0.5) == pytest.approx(0.5, abs=0.087)


@pytest.mark.parametrize("test", ["bootstrap", "permutation"])
@pytest.mark.parametrize("queries", [1, 2, 19])
def test_few_queries_are_not_tested(queries: int, test: PairedTest) -> None:
    values = np.random.default_rng(0).random(queries)
    (found,) = paired_test([(values + 1, values**2)], test)
    assert found.mean == pytest.approx(np.mean(values + 1 - values**2))
    assert (found.lowest, found.highest, found.p) == (None, None, None)
    assert found.untested == f"{queries} queries, fewer than 20"
    assert not found.distinguishable


@pytest.mark.parametrize("gain", [0, 0.001])
def test_a_difference_without_spread_is_not_tested(gain: float) -> None:
    """Its resamples do not vary, so the interval would have no width."""
    values = np.random.default_rng(0).random((3, 50))
    varying, same = paired_test([(values[0], values[1]), (values[2] + gain, values[2])])
    assert varying.untested is None
    assert same.mean == pytest.approx(gain)
    assert (same.lowest, same.highest, same.p) == (None, None, None)
    assert same.untested == "the difference is the same for every query"
    assert not same.distinguishable


def test_the_same_gain_on_most_queries_is_certain_since_they_are_paired() -> None:
    values = np.random.default_rng(0).random(50)
    (found,) = paired_test([(values + 0.001 + 0.0001 * np.eye(50)[0], values)], resamples=999)
    assert found.mean == pytest.approx(0.001, abs=1e-5)
    assert (found.lowest, found.highest) == pytest.approx((0.001, 0.001), abs=1e-5)
    assert found.p == pytest.approx(2 / 1000)  # the smallest value for 999 resamples
    assert found.distinguishable


def test_the_interval_is_that_of_a_plain_loop() -> None:
    random = np.random.default_rng(3)
    first, second = random.random(40), random.random(40)
    (found,) = paired_test([(first, second)], resamples=20_000)
    means = [(first - second)[random.integers(40, size=40)].mean() for _ in range(20_000)]
    assert found.lowest == pytest.approx(np.quantile(means, 0.025), abs=0.004)
    assert found.highest == pytest.approx(np.quantile(means, 0.975), abs=0.004)
    assert found.mean == pytest.approx(first.mean() - second.mean())


def test_a_result_does_not_depend_on_the_other_pairs() -> None:
    first, second, third = np.random.default_rng(4).random((3, 3000))
    alone = paired_test([(first, third)])
    together = paired_test([(first, second), (first, third)])
    assert asdict(together[1]) == pytest.approx(asdict(alone[0]))
    assert paired_test([]) == []
