"""Tests of ablations: components of recipes, the runs of the command, and the tables of gains."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.given_runs import given_run

from hashbench import HashbenchError
from hashbench.experiment import run
from hashbench.experiment.configure import changes, components, configure
from hashbench.recipe import load_components
from hashbench.registry import entries
from hashbench.report.tables.ablation_table import ablation_table, ablations
from hashbench.report.tables.latex import latex
from hashbench.report.tables.table import markdown
from hashbench.results.record import read_record
from hashbench.training.options import TrainingSummary
from hashbench_methods.wch import WCH

FAST = [
    f"--set={setting}"
    for setting in ("backbone=test_resnet", "pretrained=false", "images.size=16", "epochs=1")
]
A, B = {"hyperparameters.a": False}, {"hyperparameters.b": 0}
COMPONENTS = {"part a": A, "part b": B}
VALUES = np.linspace(0.2, 0.8, 40)


@pytest.fixture
def runs(tmp_path: Path) -> list[Any]:
    """Create runs: the whole has 0.5, part a adds 0.1 to every query, part b adds 0 on average."""
    gain_b = np.where(np.arange(40) % 2, 0.1, -0.1)
    made = []
    for seed in (0, 1):
        made += [
            given_run(tmp_path, "mine", values, seed=seed, changes=changes, components=COMPONENTS)
            for changes, values in (
                ({}, VALUES),
                (A, VALUES - 0.1 - gain_b / 10),
                (B, VALUES - gain_b),
                (A | B, VALUES - 0.1 - gain_b / 10 - gain_b),
            )
        ]
    return made


def test_gains_are_the_whole_minus_the_row(runs: list[Any]) -> None:
    (ablation,) = ablations(runs)
    assert ablation.components == ("part a", "part b")
    assert [variant.without for variant in ablation.variants] == [
        (), ("part a",), ("part b",), ("part a", "part b"),
    ]  # fmt: skip
    whole, a, b, both = ablation.variants
    assert whole.gain is None
    assert a.gain.mean == pytest.approx(0.1)
    assert 0.096 < a.gain.lowest < 0.1 < a.gain.highest < 0.104
    assert b.gain.mean == pytest.approx(0)
    assert b.gain.lowest < 0 < b.gain.highest
    assert both.gain.mean == pytest.approx(0.1)
    assert [variant.cell.mean for variant in ablation.variants] == pytest.approx([0.5, 0.4, 0.5, 0.4])


def test_the_table_has_check_marks_for_present_components(runs: list[Any]) -> None:
    grid = ablation_table(ablations(runs)[0])
    rows = [line for line in markdown(grid).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert cells[0] == ["variant", "part a", "part b", "mAP@all", "gain"]
    assert cells[2] == ["whole", "✓", "✓", "0.500 ± 0.000", "–"]
    assert cells[3] == ["without part a", "", "✓", "0.400 ± 0.000", "+0.100 [+0.097, +0.103]"]
    assert cells[5][:4] == ["without all", "", "", "0.400 ± 0.000"]
    assert r"without part a &  & $\checkmark$ & 0.400" in latex([grid])


def test_gains_by_the_permutation_test(runs: list[Any]) -> None:
    (ablation,) = ablations(runs, "permutation")
    _, a, b, _ = ablation.variants
    assert a.gain.p == pytest.approx(2 / 10_001)
    assert b.gain.p > 0.8
    text = markdown(ablation_table(ablation))
    assert "p is that of a paired permutation test." in text
    assert "+0.100 [+0.097, +0.103], p 0.0002 |" in text


def test_a_gain_that_cannot_be_tested_and_seeds_of_several_versions_are_marked(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, "mine", VALUES, seed=seed, components=COMPONENTS) for seed in (0, 1)]
    runs += [
        given_run(
            tmp_path, "mine", VALUES - 0.1, seed=seed, changes=A, components=COMPONENTS, source=str(seed)
        )
        for seed in (0, 1)
    ]
    text = markdown(ablation_table(ablations(runs)[0]))
    assert re.search(r"\| without part a \| +\| +0.400 ± 0.000 ‖ \| +\+0.100 ¶ \|", text)
    assert "¶ gain not tested: the difference is the same for every query." in text
    assert (
        "‖ without part a: its seeds were run by different versions of the source code (2 of them)." in text
    )


def test_gains_are_over_the_common_seeds(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, "mine", VALUES + seed, seed=seed, components=COMPONENTS) for seed in (0, 1)]
    runs.append(given_run(tmp_path, "mine", VALUES - 0.1, changes=A, components=COMPONENTS))
    (ablation,) = ablations(runs)
    assert ablation.variants[1].gain.mean == pytest.approx(0.1)
    assert "without part a: seed 0; gain over seed 0." in ablation_table(ablation).notes


def test_variants_without_common_seeds_are_compared_over_all_seeds(tmp_path: Path) -> None:
    runs = [
        given_run(tmp_path, "mine", VALUES, seed=1, components=COMPONENTS),
        given_run(tmp_path, "mine", VALUES - 0.1, changes=A, components=COMPONENTS),
    ]
    (ablation,) = ablations(runs)
    assert ablation.variants[1].gain.mean == pytest.approx(0.1)
    assert "without part a: seed 0; no seed in common." in ablation_table(ablation).notes


def test_a_recipe_may_get_components_after_its_first_run(tmp_path: Path) -> None:
    runs = [
        given_run(tmp_path, "mine", VALUES),
        given_run(tmp_path, "mine", VALUES - 0.1, changes=B | A, components=COMPONENTS),
        given_run(tmp_path, "other", VALUES, metrics=["mAP@5"]),  # may lack the metric
    ]
    (ablation,) = ablations(runs)
    assert ablation.components == ("part a", "part b")


def test_a_component_is_removed_only_if_all_of_its_settings_are(tmp_path: Path) -> None:
    both = {"both": A | B}
    runs = [
        given_run(tmp_path, "mine", VALUES, changes=changes, components=both) for changes in ({}, A, A | B)
    ]
    (ablation,) = ablations(runs)
    assert [variant.without for variant in ablation.variants] == [(), ("both",)]


def test_a_gain_needs_values_of_queries(runs: list[Any]) -> None:
    (runs[1].folder / "queries.npz").unlink()  # seed 0 without part a
    (ablation,) = ablations(runs)
    assert [variant.gain is None for variant in ablation.variants] == [True, True, False, False]


def test_other_changes_make_separate_ablations(tmp_path: Path) -> None:
    fast = {"training.lr": 0.1}
    runs = [
        given_run(tmp_path, "mine", VALUES, changes=changes, components=COMPONENTS)
        for changes in ({}, A, fast, fast | B, {"hyperparameters.b": 7})
    ]
    found = ablations(runs)
    assert [(a.method, a.components) for a in found] == [
        ("mine", ("part a",)), ("mine (lr=0.1)", ("part b",)),
    ]  # fmt: skip
    assert ablations(runs[2:3]) == []


def test_a_collapsed_variant_is_marked(tmp_path: Path) -> None:
    runs = [
        given_run(tmp_path, "mine", VALUES, components=COMPONENTS),
        given_run(tmp_path, "mine", VALUES, changes=A, components=COMPONENTS, collapsed=True),
    ]
    text = markdown(ablation_table(ablations(runs)[0]))
    assert "0.500 ‡" in text
    assert "‡ without part a: codes collapsed (seed 0)." in text


@pytest.mark.usefixtures("small_digits")
def test_one_command_runs_the_grid_and_continues_it(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["ablate", "--method", "wch", "--dataset", "digits", "--bits", "12", *FAST]
    command += ["--components", "mutual attention,balance term"]
    train, done = run.train, []

    def stopped(*arguments: Any, **options: Any) -> TrainingSummary:
        if len(done) == 2:
            raise HashbenchError("stopped")
        done.append(1)
        return train(*arguments, **options)

    monkeypatch.setattr(run, "train", stopped)
    assert cli(*command).code == 1
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(there) == 2

    monkeypatch.setattr(run, "train", train)
    again = cli(*command)
    assert again.code == 0, again.err
    assert again.err.count("a record exists") == 2
    assert {path: path.stat().st_mtime_ns for path in there} == there
    rows = [line for line in again.out.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 4  # whole, without each, without both
    assert re.search(r"\[4/4\] wch \(.*balance=false\) on digits@default, 12 bits", again.err)

    lines = list(csv.DictReader(io.StringIO(cli(*command, "--format", "csv").out)))
    assert [line["without"] for line in lines] == [
        "", "mutual attention", "balance term", "mutual attention; balance term",
    ]  # fmt: skip
    assert cli("table", "--ablation", "--format", "csv").out == cli(*command, "--format", "csv").out
    records = [read_record(path.parent) for path in tmp_path.rglob("record.json")]
    means = {record.metrics["mAP@all"].expected for record in records}
    assert {float(line["mean"]) for line in lines} == means
    assert {line["method"] for line in lines} == {"wch"}  # the label omits settings that all share


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--metric", "mAP@7"],
            "no run will have mAP@7; choose from mAP@all, mAP@1000, P@all",
        ),
        (
            ["--set", "balance=false"],
            "two runs are the same: wch (backbone.name=test_resnet, ",
        ),
    ],
)
def test_errors_of_the_table_are_raised_before_training(
    cli: Callable[..., Any], tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = cli("ablate", "--method", "wch", "--dataset", "digits", *FAST, *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err
    assert not list(tmp_path.rglob("log.jsonl"))


def test_an_interrupted_grid_tells_how_to_continue(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    done = cli("run", "--method", "wch", "--dataset", "digits", *FAST)
    assert done.code == 130
    assert "stopped; 0 of 1 runs are done; repeat the command" in done.err
    (folder,) = Path("results/runs/digits@default/wch/32bit").iterdir()
    changes = json.loads((folder / "started.json").read_text(encoding="utf-8"))
    assert changes["backbone.name"] == "test_resnet"


def test_a_method_without_components_is_an_error(cli: Callable[..., Any]) -> None:
    done = cli("ablate", "--method", "itq", "--dataset", "digits")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the recipe of itq declares no components; add `components:" in done.err
    assert cli("table", "--ablation", "--bounds").code == 2
    done = cli("ablate", "--method", "wch", "--dataset", "digits", "--components", "attention")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "unknown component of wch 'attention'; did you mean 'mutual attention'" in done.err


@pytest.mark.parametrize("entry", entries("method").values(), ids=lambda entry: entry.name)
def test_components_of_the_recipes_change_the_method(entry: Any) -> None:
    from hashbench import load_dataset

    for name, settings in components(entry.name).items():
        config = configure(
            entry.name, load_dataset("digits"), bits=16, seed=0, device="cpu",
            settings=[f"{path}={value}" for path, value in settings.items()],
        )  # fmt: skip
        assert changes(config) == settings, name


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({"x": {"balanse": False}}, r"component 'x': unknown key 'balanse'; did you mean 'balance'"),
        ({"x": {}}, r"component 'x' sets nothing"),
        (
            {"x": {"balance": False}, "y": {"hyperparameters.balance": False}},
            r"component 'y' sets hyperp.*, like another",
        ),
        ([], r"the recipe .* is not valid: expected the keys"),
    ],
)
def test_wrong_components_are_named(tmp_path: Path, components: Any, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"components": components}))
    with pytest.raises(HashbenchError, match=message):
        load_components(path, WCH.Hyperparameters)


def test_changes_are_the_differences_from_the_recipe() -> None:
    from hashbench import load_dataset

    data = load_dataset("digits")

    def changed(*settings: str) -> dict[str, Any]:
        config = configure("wch", data, bits=16, seed=3, device="cpu", settings=settings)
        return changes(config)

    assert changed() == {}
    assert changed("balance=true", "epochs=10") == {}  # as the recipe has it
    assert changed("epochs=5", "optimizer.lr=1") == {"training.epochs": 5, "optimizer.lr": 1.0}
    assert changed("backbone=resnet18") == {"backbone.name": "resnet18"}  # not a backbone.option
    assert changed("backbone=resnet18", "freeze_batch_norm=true") == {
        "backbone.name": "resnet18", "backbone.freeze_batch_norm": True,
    }  # fmt: skip
