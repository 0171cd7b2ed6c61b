"""Codes of other programs get records, which reports, verification and comparison treat like runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hashbench
from hashbench.experiment.foreign import UNCHECKED, record_codes
from hashbench.results.query import RunFilter, find_run
from hashbench.results.selection import select

SETTINGS = {"k": ["all", 1000], "radius": 2, "denominator": "hits", "no_relevant": "zero", "graded": False}
WHO = {"sha256": "f" * 64, "method": "theirs", "dataset": "digits", "protocol": "default"}


@pytest.fixture(scope="module")
def digits() -> hashbench.Dataset:
    return hashbench.load_dataset("digits")


@pytest.fixture(scope="module")
def codes(digits: hashbench.Dataset) -> dict[str, Any]:
    """Return random codes of 16 bits, and the labels of the dataset."""
    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, part in (("query", digits.query), ("database", digits.database)):
        found[f"{name}_codes"] = random.integers(0, 2, (len(part.images), 16))
        found[f"{name}_labels"] = part.labels
    return found


def record(results: Path, codes: dict[str, Any], **who: Any) -> hashbench.Record:
    evaluation = hashbench.evaluate(**codes, **SETTINGS)
    return record_codes(codes, evaluation, SETTINGS, results, **{**WHO, **who}).record


def test_codes_of_the_dataset_are_measured_like_runs(
    cli: Callable[..., Any], tmp_path: Path, codes: dict[str, Any], digits: hashbench.Dataset
) -> None:
    results = tmp_path / "results" / "runs"
    found = record(results, codes, data=digits)
    assert found.split.sha256 == digits.fingerprint
    assert found.split.train == len(digits.train)
    assert found.metrics["mAP@all"].expected == hashbench.evaluate(**codes).mean_average_precision("all")
    again = record(results, codes, data=digits)
    assert (again.run_id, again.created) == (found.run_id, found.created)
    other = record(results, codes, data=digits, method="ours", sha256="e" * 64, seed=1)
    assert other.seed == 1
    verified = json.loads(cli("results", "verify", "--json").out)
    assert [(row["status"], row["problems"]) for row in verified] == [("passed", [])] * 2
    table = cli("table").out
    assert "| theirs (foreign) | " in table
    assert "(foreign): codes that another program made." in table
    compared = cli("compare", "theirs", "ours", "--json")
    assert json.loads(compared.out)["difference"]["mean"] == 0
    assert cli("plot", "pr", "--output", "pr.png").code == 0


def test_other_labels_are_refused(tmp_path: Path, codes: dict[str, Any], digits: hashbench.Dataset) -> None:
    wrong = codes["query_labels"].copy()
    wrong[7] += 1
    where = rf"row 7 is \[{wrong[7]}\] and in the dataset \[{wrong[7] - 1}\]"
    with pytest.raises(hashbench.UsageError, match=rf"query_labels are not those of digits@default.*{where}"):
        record(tmp_path, {**codes, "query_labels": wrong}, data=digits)
    short = {name: array[:-1] if name.startswith("database") else array for name, array in codes.items()}
    with pytest.raises(hashbench.UsageError, match="they have 1,596 rows and the dataset 1,597"):
        record(tmp_path, short, data=digits)
    assert not list(tmp_path.rglob("record.json"))


def test_without_the_dataset_the_split_stands_apart(
    tmp_path: Path, codes: dict[str, Any], digits: hashbench.Dataset
) -> None:
    apart = record(tmp_path, codes, method="apart")
    assert apart.split.warnings == (UNCHECKED,)
    assert (apart.split.train, apart.split.query) == (0, len(digits.query.images))
    for seed in (0, 1):
        record(tmp_path, codes, data=digits, seed=seed)
    selected = select(tmp_path, RunFilter(), None)
    assert selected.labels == ["theirs (foreign)"]
    assert "apart" in selected.shown_notes[0]
    metric = find_run(tmp_path, apart.run_id).evaluate().mean_average_precision("all")
    assert metric == apart.metrics["mAP@all"].expected


def test_product_codes_and_one_hot_labels(tmp_path: Path, digits: hashbench.Dataset) -> None:
    random = np.random.default_rng(0)
    books = random.normal(size=(4, 16, 2)).astype(np.float32)
    given = {
        "query_codes": random.normal(size=(len(digits.query.images), 8)).astype(np.float32),
        "database_codes": hashbench.ProductCodes(
            random.integers(0, 16, (len(digits.database.images), 4)).astype(np.uint8), books
        ),
        "query_labels": np.eye(10, dtype=int)[digits.query.labels],
        "database_labels": np.eye(10, dtype=int)[digits.database.labels],
    }
    found = record(tmp_path, given, data=digits)
    assert (found.bits, found.split.sha256) == (16, digits.fingerprint)


def test_the_command_leaves_a_record(
    cli: Callable[..., Any], tmp_path: Path, codes: dict[str, Any], digits: hashbench.Dataset
) -> None:
    np.savez(tmp_path / "theirs.npz", **codes)
    command = ["evaluate", "theirs.npz", "--record", "--method", "theirs", "--dataset", "digits@default"]
    done = cli(*command, "--seed", "3", "--backbone", "vgg16")
    assert done.code == 0, done.err
    (path,) = (tmp_path / "results").rglob("digits@default/theirs/16bit/*/record.json")
    found = hashbench.read_record(path.parent)
    assert (found.seed, found.split.sha256) == (3, digits.fingerprint)
    assert done.err == f"hashbench: record: {path.parent.relative_to(tmp_path)}\n"
    assert "backbone vgg16" in cli("table").out
    assert json.loads(cli("results", "stale", "--json").out) == []  # no code of hashbench made the codes
    assert "record exists" in cli(*command, "--seed", "3", "--backbone", "vgg16").err
    assert UNCHECKED in cli(*command[:-1], "theirs@split").err
    for arguments, said in (
        (command[:3], "--record needs the name of the method"),
        (command[:5], "--record needs the split of the codes as --dataset DATASET@PROTOCOL"),
        ([*command, "--k", "R"], "cutoffs that are numbers or all"),
        (["evaluate", "theirs.npz", "--method", "x"], "--method and --backbone need --record"),
    ):
        refused = cli(*arguments)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert said in refused.err
