"""Neighbours by features as the relevant images of a run, also of images without labels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.trees import photo

import hashbench
from hashbench import BinaryCodes, UsageError
from hashbench.encoding.encode import encode
from hashbench.experiment.configure import configure
from hashbench.experiment.relevance import relevant_images
from hashbench.experiment.validation import scorer
from hashbench.experiment.weights import build_method
from hashbench.images.transforms import test_transform as transform_of
from hashbench.results.query import RunFilter, find_run
from hashbench.results.selection import select
from hashbench.results.stored_run import StoredRun, Unfinished

NEIGHBOURS = ("--set", "relevance=neighbours", "--set", "neighbours=7")
RUN = ("run", "--method", "itq", "--dataset", "digits", "--limit", "60", "--bits", "8", *NEIGHBOURS)


@pytest.fixture
def runs(cli: Callable[..., Any], tmp_path: Path) -> Path:
    """Measure a run by neighbours, one of other features, and one by labels; return their folder."""
    for arguments in (RUN, (*RUN, "--set", "images.size=16"), RUN[:9]):
        assert cli(*arguments).code == 0
    return tmp_path / "results" / "runs"


def measured(results: Path, relevance: str) -> StoredRun:
    """Return the run whose images have 32 pixels, and that was measured in this way."""
    where = {"evaluation.relevance": relevance, "images.size": "32"}
    (run,) = select(results, RunFilter(where=where)).runs
    return run


def test_neighbours_are_the_nearest_by_features_before_training(runs: Path) -> None:
    run = measured(runs, "neighbours")
    data = hashbench.load_dataset("digits", "default-limit60")
    settings = ["relevance=neighbours", "neighbours=7"]
    config = configure("itq", data, bits=8, seed=0, device="cpu", settings=settings)
    network, transform = build_method(config).backbone.eval(), transform_of(config.images)
    with torch.no_grad():
        query, database = (
            network.pooled(torch.stack([transform(image) for image in part.images])).double()
            for part in (data.query, data.database)
        )
    nearest = torch.cdist(query, database).argsort(dim=1, stable=True)[:, :7].numpy()
    np.testing.assert_array_equal(run.relevant()["neighbours"], nearest)
    rounded = configure(
        "itq", data, bits=8, seed=0, device="cpu", settings=[*settings, "precision_encode=bfloat16"]
    )
    found = relevant_images(data.query, data.database, rounded, 0)["neighbours"]
    np.testing.assert_array_equal(found, nearest)
    # The metrics, from the full matrix of distances: the expectation over ties of a recall is a mean.
    codes = run.codes()
    assert isinstance(codes[0], BinaryCodes)
    assert isinstance(codes[1], BinaryCodes)
    signs = [one.to_signs().astype(int) for one in codes if isinstance(one, BinaryCodes)]
    distances = (8 - signs[0] @ signs[1].T) // 2
    precisions = []
    for row, relevant in zip(distances, nearest, strict=True):
        within = row <= 2
        precisions.append(within[relevant].sum() / max(within.sum(), 1))
    assert run.record.metrics["P@H<=2"].expected == pytest.approx(np.mean(precisions), abs=1e-12)
    evaluation = hashbench.evaluate(*codes, neighbours=nearest)
    assert run.record.metrics["mAP@all"].expected == evaluation.mean_average_precision("all")


def test_reports_name_neighbours_and_keep_them_apart(cli: Callable[..., Any], runs: Path) -> None:
    table = cli("table").out
    assert "digits@default-limit60, 7 neighbours: 60 queries" in table
    assert "relevant to a query are the 7 images nearest to it by features of the backbone" in table
    first = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| itq")]
    assert first == ["itq"]  # one row, and a column for each kind of relevance
    left_out = "Left out of digits@default-limit60, 7 neighbours: "
    assert left_out in table
    assert "since images.size is " in table
    by_label = measured(runs, "labels").record.metrics["mAP@all"]
    by_features = measured(runs, "neighbours").record
    assert by_label != by_features.metrics["mAP@all"]
    assert by_features.split_name == "digits@default-limit60, 7 neighbours"
    assert "protocol,bits" in cli("table", "--format", "csv").out
    assert '"default-limit60, 7 neighbours"' in cli("table", "--format", "csv").out
    labelled, near = measured(runs, "labels").record.run_id, by_features.run_id
    compared = cli("compare", labelled, near)
    assert compared.code == 2
    assert f"differ in evaluation.relevance: labels ({labelled}); neighbours ({near})" in compared.err
    assert set(hashbench.read_results(runs)["relevance"]) == {"labels", "neighbours"}
    assert [row["problems"] for row in json.loads(cli("results", "verify", "--json").out)] == [[]] * 3
    assert cli("plot", "retrieval", by_features.run_id, "--output", "r.svg", "--csv", "r.csv").code == 0
    rows = (runs.parents[1] / "r.csv").read_text().splitlines()[1:]
    run, ids = find_run(runs, by_features.run_id), [row.split(",") for row in rows]
    names, database = run.part("query")[0], run.part("database")[0]
    for query, _, _, image, _, relevant in ids:
        neighbours = run.relevant()["neighbours"][names.index(query)]
        assert (database.index(image) in neighbours) == (relevant == "True")


def test_an_unfinished_run_is_named_like_finished_ones(tmp_path: Path) -> None:
    run = Unfinished("digits", "default", "itq", 8, "itq-digits-8bit-seed0-x", tmp_path)
    assert run.protocol_name == "default"
    changes = {"evaluation.relevance": "neighbours", "evaluation.neighbours": 7, "epochs": 1}
    (tmp_path / "started.json").write_text(json.dumps(changes))
    run = Unfinished("digits", "default", "itq", 8, "itq-digits-8bit-seed0-x", tmp_path)
    assert (run.protocol_name, run.label) == ("default, 7 neighbours", "itq (epochs=1)")


def test_an_epoch_is_selected_by_neighbours_of_its_own_images() -> None:
    data = hashbench.load_dataset("digits", limit=60)
    settings = ["relevance=neighbours", "neighbours=7"]
    config = configure("lsh", data, bits=8, seed=0, device="cpu", settings=settings)
    method = build_method(config)
    method.fit(torch.randn(20, method.backbone.feature_dim))  # type: ignore[operator]
    score = scorer(data.query, data.database, config, workers=0)(method)
    relevant = relevant_images(data.query, data.database, config, workers=0)
    assert relevant["neighbours"].shape == (60, 7)
    codes = (encode(method, part.images, config, workers=0, task="") for part in (data.query, data.database))
    assert score == hashbench.evaluate(*codes, **relevant).mean_average_precision("all")


def test_images_without_labels_can_be_benchmarked(cli: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(30):
        photo(tmp_path / "photos" / f"{number}.png", number, number)
    folder = (
        "--method=itq",
        "--dataset=folder",
        "--data-root=photos",
        "--bits=8",
        "--backbone=efficientnet_lite0",
    )
    refused = cli("run", *folder)
    assert refused.code == 2
    assert refused.err.endswith(
        "error: the images of folder@split have no labels, so nothing is relevant to a query; pass --set "
        "relevance=neighbours, and the nearest images by features are relevant\n"
    )
    done = cli("run", *folder, "--set", "images.size=32", *NEIGHBOURS)
    assert done.code == 0, done.err
    (path,) = (tmp_path / "results").rglob("record.json")
    record = hashbench.read_record(path.parent)
    assert (record.split.query, record.split.database) == (3, 27)
    assert record.split_name == "folder (photos)@split, 7 neighbours"
    assert record.queries_without_relevant == 0
    (verified,) = json.loads(cli("results", "verify", "--json").out)
    assert (verified["status"], verified["problems"]) == ("passed", [])
    assert cli("report", "--output", "report.html").code == 0
    assert cli("data", "verify", "folder", "--data-root", "photos").code == 0
    assert cli("data", "export-lists", "folder", "--data-root", "photos", "--output", "lists").code == 0
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == [
        "database.txt",
        "test.txt",
        "train.txt",
    ]
    assert (tmp_path / "lists" / "train.txt").read_text().splitlines()[0] in {f"{n}.png" for n in range(30)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["neighbours=61"], "evaluation.neighbours=61: the database has only 60 images; choose fewer"),
        (["pretrained=false"], "a pretrained backbone, and itq has an untrained efficientnet_lite0"),
        (["graded=true"], "graded needs relevance=labels"),
    ],
)
def test_what_neighbours_need(settings: list[str], message: str) -> None:
    data = hashbench.load_dataset("digits", limit=60)
    with pytest.raises(UsageError, match=message):
        configure("itq", data, bits=8, seed=0, device="cpu", settings=["relevance=neighbours", *settings])
