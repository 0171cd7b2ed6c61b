"""Tests of what Python and a notebook show of results, and of the data frame of all results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.fake_runs import make_dataset, make_run

import hashbench
from hashbench.experiment.run import Run
from hashbench.results.stored_run import StoredRun


@pytest.fixture
def stored(tmp_path: Path) -> StoredRun:
    return make_run(tmp_path / "runs")


def rows(shown: Any) -> dict[str, str]:
    """Return the table that a notebook shows for an object; also check that `repr` is one line."""
    table = ElementTree.fromstring(shown._repr_html_())
    found = {row[0].text or "": row[1].text or "" for row in table}
    line = ", ".join(f"{name}={value}" for name, value in found.items())
    assert repr(shown) == f"{type(shown).__name__}({line})"
    assert "\n" not in repr(shown)
    return found


def test_a_record_and_a_run(stored: StoredRun, tmp_path: Path) -> None:
    record = stored.record
    shown = {
        "run": record.run_id,
        "method": "wch",
        "dataset": "shapes@default",
        "bits": "16",
        "seed": "0",
        **{name: f"{metric.expected:.4f}" for name, metric in record.metrics.items()},
        "codes": "healthy",
    }
    assert rows(record) == shown
    assert rows(Run(record, stored.folder, existed=False)) == {**shown, "folder": str(stored.folder)}
    assert rows(make_run(tmp_path / "other", collapsed=True).record)["codes"] == "COLLAPSED"


def test_an_evaluation(stored: StoredRun) -> None:
    evaluation = stored.evaluate()
    shown = rows(evaluation)
    lowest, highest = evaluation.bounds("all")
    expected = evaluation.mean_average_precision("all")
    assert shown["mAP@all"] == f"{expected:.4f} ({lowest:.4f} to {highest:.4f})"
    assert (shown["queries"], shown["database"]) == ("20", "120")
    assert shown.keys() == {"queries", "database", *evaluation.to_dict()["metrics"]}


def test_a_dataset_with_text_that_html_and_terminals_would_interpret() -> None:
    dataset = replace(make_dataset(), name="<b>&\n\x1b[2J", warnings=("<script>", "b"))
    assert "<b>" not in dataset._repr_html_()
    assert "<script>" not in dataset._repr_html_()
    shown = rows(dataset)
    assert shown["dataset"] == "<b>&\\n\\x1b[2J@default"
    assert (shown["train"], shown["query"], shown["database"]) == ("120", "20", "120")
    assert (shown["classes"], shown["warnings"]) == ("4", "<script>; b")
    assert rows(make_dataset())["warnings"] == "none"


def test_results_as_a_data_frame(stored: StoredRun, tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "runs", changes={"training.drop_last": True}),
        make_run(tmp_path / "runs", "itq", seed=3, bits=8, collapsed=True, evaluation={"k": [7]}),
        stored,
    ]
    damaged = make_run(tmp_path / "runs", seed=1).folder / "record.json"
    damaged.write_text("{")
    with pytest.warns(UserWarning, match=f"^{damaged} is not a record"):
        frame = hashbench.read_results(tmp_path / "runs").set_index("run_id")
    assert set(frame.index) == {run.record.run_id for run in runs}
    for run in runs:
        row, record = frame.loc[run.record.run_id], run.record
        assert row["label"] == run.label
        for name in ("method", "dataset", "protocol", "bits", "seed", "created"):
            assert row[name] == getattr(record, name)
        assert row["folder"] == str(run.folder)
        assert row["backbone"] == "efficientnet_lite0"
        assert row["image_size"] == record.config["images"]["size"]
        assert row["collapsed"] == record.health.collapsed
        assert {name: row[name] for name in record.metrics} == {
            name: metric.expected for name, metric in record.metrics.items()
        }
    assert np.isnan(frame.loc[runs[1].record.run_id, "mAP@1000"])
    assert frame["bits"].dtype.kind == "i"


def test_results_of_an_empty_and_of_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = hashbench.read_results(tmp_path)
    assert len(frame) == 0
    assert {"run_id", "method", "folder"} <= set(frame.columns)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hashbench.UsageError, match="^results/runs is not a folder"):
        hashbench.read_results()
