"""Tests of the comparison of two runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.given_runs import given_run
from scipy import stats

from hashbench.results.query import find_run

VALUES = np.linspace(0.2, 0.8, 30)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "runs"
    given_run(folder, "wch", VALUES)
    other = VALUES - 0.01
    other[4] -= 0.15
    given_run(folder, "itq", other, epochs=3)
    return folder


def test_difference_changed_queries_and_settings(
    cli: Callable[..., Any], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli("compare", "wch", "itq", "--json", "--queries", "2")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert shown["difference"]["mean"] == pytest.approx(0.01 + 0.15 / 30)
    assert (
        0.01 <= shown["difference"]["lowest"] < shown["difference"]["mean"] < shown["difference"]["highest"]
    )
    assert shown["difference"]["p"] < 0.001
    first, second = shown["queries"]
    assert first == {
        "query": "q4",
        "first": pytest.approx(VALUES[4]),
        "second": pytest.approx(VALUES[4] - 0.16),
    }
    assert second["query"] == "q0"  # of equal changes the first
    assert shown["settings"] == {"config.method": ["wch", "itq"], "config.training.epochs": [10, 3]}
    monkeypatch.setenv("COLUMNS", "120")
    text = cli("compare", "wch", "itq").out
    for part in ("+0.0150", "training.epochs", "q4", "95 % interval"):
        assert part in text


def test_a_loss_counts_as_a_change_like_a_gain(cli: Callable[..., Any], results: Path) -> None:
    shown = json.loads(cli("compare", "itq", "wch", "--json", "--queries", "1").out)
    assert shown["queries"][0]["query"] == "q4"
    assert shown["difference"]["mean"] == pytest.approx(-0.01 - 0.15 / 30)


def test_queries_that_are_left_out_are_not_compared(cli: Callable[..., Any], results: Path) -> None:
    skipped = VALUES.copy()
    skipped[0] = np.nan
    given_run(results, "sh", skipped, suffix="x", no_relevant="skip")
    given_run(results, "sh", skipped - 0.1, suffix="y", no_relevant="skip")
    shown = json.loads(cli("compare", "x", "y", "--json", "--queries", "99").out)
    assert {query["query"] for query in shown["queries"]} == {f"q{n}" for n in range(1, 30)}
    assert shown["difference"]["mean"] == pytest.approx(0.1)


def test_collapsed_codes_are_shown(cli: Callable[..., Any], results: Path) -> None:
    given_run(results, "dead", VALUES, collapsed=True)
    assert (
        "dead-digits-16bit-seed0- COLLAPSED: half of the bits are dead" in cli("compare", "dead", "itq").out
    )


def test_a_run_does_not_differ_from_itself(cli: Callable[..., Any], results: Path) -> None:
    done = cli("compare", "wch", "wch", "--json")
    shown = json.loads(done.out)
    assert shown["difference"] == {
        **{"mean": 0, "lowest": None, "highest": None, "p": None, "test": "bootstrap"},
        "untested": "the difference is the same for every query",
    }
    assert shown["settings"] == {}
    text = cli("compare", "wch", "wch").out
    assert (
        "Not tested: the difference is the same for every query; the difference may be due to chance." in text
    )
    assert "either run could be ahead" not in text


@pytest.mark.parametrize("test", ["bootstrap", "permutation"])
def test_few_queries_are_not_tested(cli: Callable[..., Any], tmp_path: Path, test: str) -> None:
    folder = tmp_path / "results" / "runs"
    for queries in (1, 19, 20):
        values = VALUES[:queries]
        given_run(folder, f"a{queries}-", values, sha256=str(queries))
        given_run(folder, f"b{queries}-", values**2, sha256=str(queries))
    for queries in (1, 19):
        command = ["compare", f"a{queries}-", f"b{queries}-", "--test", test]
        shown = json.loads(cli(*command, "--json").out)["difference"]
        assert shown.pop("mean") == pytest.approx(np.mean(VALUES[:queries] - VALUES[:queries] ** 2))
        reason = f"{queries} queries, fewer than 20"
        assert shown == {"lowest": None, "highest": None, "p": None, "test": test, "untested": reason}
        text = cli(*command).out
        assert f"Not tested: {reason}; the difference may be due to chance." in text
        assert "either run could be ahead" not in text
    shown = json.loads(cli("compare", "a20-", "b20-", "--test", test, "--json").out)["difference"]
    assert shown["untested"] is None
    assert shown["p"] < 0.001


def test_the_permutation_test(cli: Callable[..., Any], results: Path) -> None:
    level = VALUES - 0.01 * np.where(np.arange(30) % 2, 1, -1.1)
    given_run(results, "sh", level)
    shown = json.loads(cli("compare", "wch", "sh", "--test", "permutation", "--json").out)["difference"]
    expected = stats.permutation_test(
        (VALUES - level,), np.mean, permutation_type="samples", n_resamples=50_000, rng=1
    )
    assert shown["p"] == pytest.approx(expected.pvalue, abs=0.02)
    assert shown["lowest"] < shown["mean"] < shown["highest"]
    text = cli("compare", "wch", "sh", "--test", "permutation").out
    assert "p (permutation)" in text
    assert "p is not below 0.05: on other queries of this kind, either run could be ahead." in text


def test_runs_that_count_different_queries_are_rejected(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    given_run(folder, "a", [np.nan, *VALUES], no_relevant="skip")
    given_run(folder, "b", [*VALUES, np.nan], no_relevant="skip")
    given_run(folder, "c", [np.nan, *VALUES])  # counts all queries, but lacks the value of one
    for first, second, wrong in (("a", "b", "b"), ("c", "c", "c")):
        done = cli("compare", first, second)
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
        assert f"digits@default/{wrong}/16bit/" in done.err
        assert "queries.npz: the AP of 1 queries is NaN, expected that of the " in done.err


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"sha256": "bb"}, "the two runs cannot be compared, since they differ in split.sha256"),
        ({"evaluator": 2}, "since they differ in evaluator: 1"),
        ({"metrics": ["mAP@10"]}, "has no mAP@all of each query; choose --metric from mAP@10"),
    ],
)
def test_incomparable_runs_are_rejected(
    cli: Callable[..., Any], results: Path, other: dict[str, Any], message: str
) -> None:
    given_run(results, "sh", VALUES, **other)
    done = cli("compare", "wch", "sh")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err


def test_without_values_of_queries_there_is_no_comparison(cli: Callable[..., Any], results: Path) -> None:
    next(results.glob("*/itq/*/*/queries.npz")).unlink()
    done = cli("compare", "wch", "itq")
    assert done.code == 2
    assert "has no AP of its queries by the installed evaluator" in done.err
    file = next(results.glob("*/wch/*/*/queries.npz"))
    file.write_bytes(file.read_bytes()[:100])
    done = cli("compare", "wch", "wch")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"{file.relative_to(results.parents[1])} is not an .npz file" in done.err
    assert "has no run 'lsh'" in cli("compare", "wch", "lsh").err


@pytest.fixture
def grids(tmp_path: Path) -> Path:
    """Return a folder with runs of two methods at two code lengths, with three and two seeds."""
    folder = tmp_path / "results" / "runs"
    random = np.random.default_rng(0)
    for bits in (16, 32):
        for seed in range(3):
            given_run(folder, "wch", VALUES + bits / 1000 + random.normal(0, 0.01, 30), bits=bits, seed=seed)
            if seed:
                given_run(folder, "itq", VALUES + random.normal(0, 0.01, 30), bits=bits, seed=seed)
    return folder


def test_methods_are_compared_over_common_seeds_and_all_lengths(
    cli: Callable[..., Any], grids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = cli("compare", "--method", "wch,itq", "--dataset", "digits", "--json")
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert (shown["first"], shown["second"]) == ("wch", "itq")
    assert [(row["bits"], row["seeds"]) for row in shown["differences"]] == [
        ([16], [1, 2]), ([32], [1, 2]), ([16, 32], [1, 2]),
    ]  # fmt: skip

    def mean(method: str, lengths: list[int]) -> Any:
        ids = [f"{method}-digits-{bits}bit-seed{seed}-" for bits in lengths for seed in (1, 2)]
        return np.mean([find_run(grids, name).average_precisions("mAP@all") for name in ids], axis=0)

    for row in shown["differences"]:
        one, other = mean("wch", row["bits"]), mean("itq", row["bits"])
        assert row["means"] == pytest.approx([one.mean(), other.mean()])
        found = row["difference"]
        assert found["mean"] == pytest.approx((one - other).mean())
        interval = stats.bootstrap(
            (one - other,), np.mean, method="percentile", rng=np.random.default_rng(1)
        ).confidence_interval
        assert (found["lowest"], found["highest"]) == pytest.approx(interval, abs=5e-4)
    monkeypatch.setenv("COLUMNS", "160")
    text = cli("compare", "--method", "wch,itq").out
    assert "paired bootstrap over the queries, 95 %" in text
    done = cli("plot", "difference", "--method", "wch,itq", "--output", "difference.png", "--csv", "d.csv")
    assert done.code == 0, done.err
    assert (tmp_path / "difference.png").stat().st_size > 1000
    assert len((tmp_path / "d.csv").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected two runs, or two methods as --method A,B"),
        (["wch"], "expected two runs, or two methods"),
        (["--method", "wch"], "expected the runs of two methods, got those of wch; choose two with --method"),
        (
            ["wch-digits-16bit-seed0-", "itq-digits-16bit-seed1-", "--bits", "16"],
            "pass either two runs or opt",
        ),
        (
            ["--method", "wch,sh"],
            "on digits@default, 16 bits, wch runs on resnet18, 224 px and sh on vgg16, ",
        ),
    ],
)
def test_what_cannot_be_compared_is_said(
    cli: Callable[..., Any], grids: Path, arguments: list[str], message: str
) -> None:
    given_run(grids, "sh", VALUES, backbone={"name": "vgg16"})
    done = cli("compare", *arguments)
    assert (done.code, message in done.err) == (2, True), done.err
    assert cli("compare", "--method", "wch,sh", "--across-backbones").code == 0
