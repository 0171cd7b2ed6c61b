"""Selection of the runs for a report."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.given_runs import given_run

from hashbench import HashbenchError, UsageError
from hashbench.report.aggregate import Column, cells, paired
from hashbench.report.tables.result_table import result_table
from hashbench.results.query import RunFilter, find_run
from hashbench.results.selection import select

VALUES = (0.2, 0.4, 0.9)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    given_run(tmp_path, "wch", VALUES)
    given_run(tmp_path, "wch", VALUES, seed=1)
    given_run(tmp_path, "wch", VALUES, bits=32)
    given_run(tmp_path, "itq", VALUES)
    given_run(tmp_path, "itq", VALUES, dataset="coco", epochs=3)
    return tmp_path


def ids(results: Path, **wanted: Any) -> list[str]:
    return [run.record.run_id.rstrip("-") for run in select(results, RunFilter(**wanted)).runs]


def test_all_runs_come_by_dataset_method_bits_and_seed(results: Path) -> None:
    assert ids(results) == [
        "itq-coco-16bit-seed0", "itq-digits-16bit-seed0", "wch-digits-16bit-seed0", "wch-digits-16bit-seed1",
        "wch-digits-32bit-seed0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"methods": ["wch", "itq"], "datasets": ["digits"], "bits": [16], "seeds": [0]},
         ["wch-digits-16bit-seed0", "itq-digits-16bit-seed0"]),  # as asked, not by name
        ({"bits": [32]}, ["wch-digits-32bit-seed0"]),
        ({"where": {"epochs": "3"}}, ["itq-coco-16bit-seed0"]),
        ({"where": {"training.epochs": "3"}}, ["itq-coco-16bit-seed0"]),
        ({"where": {"config.training.epochs": "3", "split.sha256": "aa"}}, ["itq-coco-16bit-seed0"]),
    ],
)  # fmt: skip
def test_runs_are_chosen(results: Path, wanted: dict[str, Any], found: list[str]) -> None:
    assert ids(results, **wanted) == found


def test_what_is_not_there_is_said(results: Path) -> None:
    with pytest.raises(UsageError, match="has no such run"):
        select(results, RunFilter(methods=["spq"]))
    with pytest.raises(UsageError, match=r"unknown key of a record 'epoch'; did you mean 'epochs'"):
        select(results, RunFilter(where={"epoch": "3"}))
    with pytest.raises(UsageError, match="is not a folder; `hashbench run` creates it"):
        select(results / "none", RunFilter())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lr=1e-05", ["a"]), ("lr=1e-5", ["a"]), ("lr=0.00001", ["a"]), ("torch=2.10", ["a", "b", "c"]),
        ("torch=2.1", []), ("flag=true", ["a"]), ("flag=null", ["b"]), ("flag=1", []), ("word=1e3", ["c"]),
        ("word=[a", []),
    ],
)  # fmt: skip
def test_values_are_asked_for_as_they_are_shown(tmp_path: Path, text: str, found: list[str]) -> None:
    given_run(tmp_path, "a", VALUES, changes={"lr": 1e-5, "flag": True})
    given_run(tmp_path, "b", VALUES, changes={"lr": 1e-4, "flag": None})
    given_run(tmp_path, "c", VALUES, changes={"word": "1e3", "flag": False})
    key, _, value = text.partition("=")
    try:
        runs = select(
            tmp_path, RunFilter(where={f"hyperparameters.changed.{key}" if key != "torch" else key: value})
        ).runs
    except UsageError:
        runs = []
    assert [run.record.method for run in runs] == found


def test_a_value_that_no_run_has_is_named(results: Path) -> None:
    asked = RunFilter(methods=["wch", "wchh"], seeds=[0, 9], datasets=["digits"])
    assert select(results, asked).notes == ["no run has the method wchh", "no run has the seed 9"]
    with pytest.raises(
        UsageError, match="has no such run; no run has the dataset cifar10; `hashbench results`"
    ):
        select(results, RunFilter(methods=["wch"], datasets=["cifar10"]))


def test_a_mean_over_versions_of_the_code_is_said(results: Path) -> None:
    given_run(results, "wch", VALUES, seed=2, source="1")
    (note,) = select(results, RunFilter()).notes
    assert note == ("the seeds of wch, digits@default, 16 bits were run by 2 versions of the source code")


def test_values_of_other_queries_are_refused(results: Path) -> None:
    run = given_run(results, "sh", VALUES)
    np.savez(run.folder / "queries.npz", **{"AP@all": np.zeros(7)})
    with pytest.raises(HashbenchError, match="has 7 values of AP@all for 3 queries"):
        run.average_precisions("mAP@all")


def test_damaged_values_of_queries_are_named(results: Path) -> None:
    run = given_run(results, "sh", VALUES)
    np.savez(run.folder / "queries.npz", **{"AP@all": np.array(["a", "b", "c"])})
    with pytest.raises(HashbenchError, match=r"queries\.npz cannot be read: AP@all is <U1"):
        run.average_precisions("mAP@all")


def test_what_unfinished_runs_share_with_the_others_counts_too(results: Path) -> None:
    folder = results / "coco@default" / "itq" / "16bit"
    shutil.rmtree(next(folder.iterdir()))
    given_run(results, "itq", VALUES, dataset="coco", changes={"training.epochs": 1})
    given_run(results, "sh", VALUES, dataset="coco", changes={"training.epochs": 1})
    pending = folder / ".itq-coco-16bit-seed1-x.01234567"
    pending.mkdir()
    (pending / "started.json").write_text('{"training.epochs": 99}')
    selected = select(results, RunFilter(datasets=["coco"]))
    assert selected.labels == ["itq (epochs=1)", "sh (epochs=1)"]
    assert [run.label for run in selected.unfinished] == ["itq (epochs=99)"]
    (pending / "started.json").write_text('{"training.epochs": 1}')
    selected = select(results, RunFilter(datasets=["coco"]))
    assert selected.labels == ["itq", "sh"]
    assert [run.label for run in selected.unfinished] == ["itq"]


def test_a_record_that_says_too_little_is_left_out(results: Path) -> None:
    run = given_run(results, "sh", VALUES)
    path = run.folder / "record.json"
    path.write_text(path.read_text().replace('"denominator": "hits",', ""))
    (note,) = select(results, RunFilter()).notes
    assert "is not a record (config: Value error, evaluation lacks denominator)" in note


def test_records_of_version_1_are_not_taken_for_the_plain_recipe(tmp_path: Path) -> None:
    run = given_run(tmp_path, "wch", VALUES)
    path = run.folder / "record.json"
    old = json.loads(path.read_text()) | {"schema_version": 1}
    later = {"changes", "components", "evaluator", "files", "resumed", "selected"}
    later |= {"recipe", "published_protocol", "sha256", "foreign", "name"}
    path.write_text(json.dumps({key: value for key, value in old.items() if key not in later}))
    (read,) = select(tmp_path, RunFilter()).runs
    assert read.label == "wch (settings not recorded)"
    with pytest.raises(UsageError, match="no such run"):
        select(tmp_path, RunFilter(unchanged=True))


def test_labels_are_one_line_and_keep_letters(tmp_path: Path) -> None:
    run = given_run(tmp_path, "wch", VALUES, changes={"backbone.name": "é漢\nx"}, suffix="s")
    assert run.label == "wch (backbone.name='é漢 x')"


def test_changed_settings_are_a_row_of_their_own(results: Path) -> None:
    given_run(results, "wch", VALUES, changes={"hyperparameters.balance": False, "images.size": 32})
    labels = [run.label for run in select(results, RunFilter(methods=["wch"], bits=[16])).runs]
    assert labels == ["wch", "wch", "wch (balance=false, images.size=32)"]
    assert len(select(results, RunFilter(methods=["wch"], bits=[16], unchanged=True)).runs) == 2


def test_of_the_same_run_the_newest_counts_and_that_is_said(results: Path) -> None:
    given_run(results, "itq", (0.1,) * 3, dataset="coco", epochs=3, minutes=5, suffix="new")
    selected = select(results, RunFilter(datasets=["coco"]))
    assert [run.record.run_id for run in selected.runs] == ["itq-coco-16bit-seed0-new"]
    assert selected.notes == [
        "itq-coco-16bit-seed0- is left out: itq-coco-16bit-seed0-new has the same settings and is newer"
    ]


def test_unfinished_runs_are_found_and_those_that_were_done_again_are_not(results: Path) -> None:
    folder = results / "digits@default" / "wch" / "16bit"
    (folder / ".wch-digits-16bit-seed2-x.0123abcd").mkdir()
    (folder / ".wch-digits-16bit-seed0-.0123abcd").mkdir()  # its record is there: it was forced to run again
    (run,) = select(results, RunFilter()).unfinished
    assert (run.dataset, run.protocol, run.method, run.bits) == ("digits", "default", "wch", 16)
    assert run.run_id == "wch-digits-16bit-seed2-x"
    assert select(results, RunFilter(bits=[32])).unfinished == []
    assert select(results, RunFilter(seeds=[2, 0])).unfinished == [run]
    assert select(results, RunFilter(seeds=[1])).unfinished == []
    assert select(results, RunFilter(where={"epochs": "10"})).unfinished == []  # nobody knows


def test_a_broken_record_is_named_and_the_others_are_read(results: Path) -> None:
    path = next(results.glob("coco@default/itq/16bit/*/record.json"))
    path.write_text("{")
    selected = select(results, RunFilter())
    assert len(selected.runs) == 4
    assert len(selected.notes) == 1
    assert str(path) in selected.notes[0]


def test_a_run_is_found_by_id_beginning_hash_and_folder(results: Path) -> None:
    run = given_run(results, "sh", VALUES, suffix="0a1b2c")
    for name in ("sh-digits-16bit-seed0-0a1b2c", "sh-dig", "0a1b2c", str(run.folder)):
        assert find_run(results, name).record == run.record
    with pytest.raises(UsageError, match="wch-digits may be .* or .*; enter more of it"):
        find_run(results, "wch-digits")
    with pytest.raises(UsageError, match="has no run 'lsh'; `hashbench results --results"):
        find_run(results, "lsh")


def test_a_cell_is_the_mean_over_seeds(tmp_path: Path) -> None:
    runs = [
        given_run(tmp_path, "wch", (value, value + 0.2), seed=seed) for seed, value in enumerate((0.1, 0.4))
    ]
    ((column, rows),) = cells(runs).items()
    cell = rows["wch"]
    assert column == Column("digits", "default", 16)
    assert cell.seeds == (0, 1)
    assert cell.mean == pytest.approx((0.2 + 0.5) / 2)
    assert cell.deviation == pytest.approx(np.sqrt(2 * 0.15**2))
    assert (cell.lowest, cell.highest) == pytest.approx((0.3, 0.4))
    np.testing.assert_allclose(cell.average_precisions[1], [0.4, 0.6])
    assert cells(runs[:1])[column]["wch"].deviation is None


def test_queries_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, name, (0.1, np.nan, 0.3), no_relevant="skip") for name in ("wch", "itq")]
    (rows,) = cells(runs).values()
    np.testing.assert_allclose(paired(rows["wch"], rows["itq"]), [[0.1, 0.3]] * 2)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"sha256": "bb"}, "split.sha256 is bb and not aa; --where split.sha256=bb selects such runs"),
        ({"denominator": "relevant"}, "evaluation.denominator is relevant and not hits"),
        ({"evaluator": 2}, "evaluator is 2 and not 1"),
        ({"no_relevant": "skip"}, "evaluation.no_relevant is skip and not zero"),
        ({"sha256": "bb", "bits": 64}, "split.sha256 is bb and not aa"),
    ],
)
def test_what_was_measured_otherwise_is_left_out_and_named(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    given_run(tmp_path, "itq", VALUES)
    given_run(tmp_path, "sh", VALUES)
    wch = given_run(tmp_path, "wch", VALUES, **other).record.run_id
    selected = select(tmp_path, RunFilter(), None)
    assert selected.labels == ["itq", "sh"]
    (note,) = selected.shown_notes
    assert note in selected.notes
    assert note.startswith(f"left out of digits@default: {wch}, since {said}")
    assert f"L{note[1:]}." in result_table(selected).notes


def test_other_datasets_may_differ(tmp_path: Path) -> None:
    given_run(tmp_path, "itq", VALUES)
    given_run(tmp_path, "wch", VALUES, dataset="coco", sha256="bb", denominator="relevant")
    assert len(cells(select(tmp_path, RunFilter()).runs)) == 2


def test_the_metric_is_the_first_of_the_recipe_by_default(tmp_path: Path) -> None:
    given_run(tmp_path, "itq", VALUES, metrics=["mAP@1000", "mAP@all"])
    given_run(tmp_path, "sh", VALUES, metrics=["mAP@1000", "mAP@all"])
    given_run(tmp_path, "wch", VALUES, metrics=["mAP@all"])
    given_run(tmp_path, "itq", VALUES, dataset="coco", metrics=["mAP@5000"])
    selected = select(tmp_path, RunFilter(), None)
    assert [(run.record.dataset, run.metric) for run in selected.runs] == [
        ("coco", "mAP@5000"), ("digits", "mAP@1000"), ("digits", "mAP@1000"),
    ]  # fmt: skip
    assert selected.notes == ["wch is left out where it has no mAP@1000"]
    caption = result_table(selected).caption
    assert caption.startswith("mAP@5000 on coco@default, mAP@1000 on digits@default, expectation over all")
    assert {run.metric for run in select(tmp_path, RunFilter(), "mAP@all").runs} == {"mAP@all"}


def test_runs_that_differ_in_more_than_the_seed_have_no_mean(tmp_path: Path) -> None:
    given_run(tmp_path, "wch", VALUES)
    given_run(tmp_path, "wch", VALUES, seed=1, epochs=5)
    with pytest.raises(UsageError, match=r"differ in more than the seed \(training\.epochs: 10, 5\)"):
        cells(select(tmp_path, RunFilter()).runs)


def test_old_records_are_tested_by_their_codes(tmp_path: Path) -> None:
    """A run with codes but without the AP of its queries gives the values that would be stored."""
    from helpers.fake_runs import make_run  # with torch, which the other tests do without

    run = make_run(tmp_path, "wch")
    stored = run.average_precisions("mAP@all")
    (run.folder / "queries.npz").unlink()
    np.testing.assert_array_equal(run.average_precisions("mAP@all"), stored)
    assert run.query_ids()[0] == "shapes/000.png"
    (run.folder / "codes.npz").unlink()
    assert run.average_precisions("mAP@all") is None
    with pytest.raises(HashbenchError, match="imported without their codes"):
        run.evaluate()
