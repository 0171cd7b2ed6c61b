"""Names of configurations that fit into tables, and what they stand for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_runs import make_run
from helpers.given_runs import given_run

from hashbench import UsageError, read_record
from hashbench.results.query import RunFilter
from hashbench.results.row_names import with_row_names
from hashbench.results.selection import found_runs, select
from hashbench.results.stored_run import StoredRun, Unfinished

VALUES = [0.5, 0.6]
LONG = {"backbone.freeze_batch_norm": True, "views.whole_image": True, "optimizer.lr": 0.5}
LABEL = "spq (backbone.freeze_batch_norm=true, views.whole_image=true, optimizer.lr=0.5)"


def names(runs: list[StoredRun], **rename: str) -> dict[str, str]:
    """Return the notes by name."""
    return {run.label: run.note for run in with_row_names(runs, (), rename)[0]}


def named(run: StoredRun, name: str) -> StoredRun:
    return StoredRun(run.record.model_copy(update={"name": name}), run.folder)


def test_long_labels_become_letters(tmp_path: Path) -> None:
    plain = given_run(tmp_path, "spq", VALUES)
    short = given_run(tmp_path, "spq", VALUES, changes={"optimizer.lr": 0.5})
    assert names([plain, short]) == {"spq": "", "spq (optimizer.lr=0.5)": ""}
    first = given_run(tmp_path, "spq", VALUES, changes=LONG)
    other = given_run(tmp_path, "spq", VALUES, changes={**LONG, "optimizer.lr": 0.25})
    second = LABEL.replace("0.5", "0.25")
    assert names([first, plain, other]) == {"spq b": LABEL, "spq": "", "spq a": second}
    assert names([first]) == {"spq a": LABEL}  # a single one is not the recipe either
    folder = tmp_path / "unfinished"
    folder.mkdir()
    (folder / "started.json").write_text(json.dumps({**LONG, "optimizer.lr": 0.125}))
    run = Unfinished("digits", "default", "spq", 32, "spq-digits-32bit-seed0-x", folder)
    ((done,), (stopped,)) = with_row_names([first], [run])
    assert (done.label, stopped.label, stopped.note) == ("spq b", "spq a", LABEL.replace("0.5", "0.125"))


def test_more_configurations_than_letters(tmp_path: Path) -> None:
    runs = [
        given_run(tmp_path, "spq", VALUES, changes={**LONG, "optimizer.lr": n / 64}) for n in range(1, 31)
    ]
    found = names(runs)
    assert len(found) == 30
    assert {"spq a", "spq z", "spq aa", "spq ad"} <= found.keys()


def test_given_names(tmp_path: Path) -> None:
    plain, run = given_run(tmp_path, "spq", VALUES), given_run(tmp_path, "spq", VALUES, changes=LONG)
    other = given_run(tmp_path, "spq", VALUES, changes={"optimizer.lr": 0.25})
    assert names([plain, named(run, "tuned")]) == {"spq": "", "tuned": LABEL}
    assert names([named(plain, "base")]) == {"base": "spq"}
    both = names([named(run, "tuned"), named(other, "tuned")])
    assert both == {"tuned b": "spq (optimizer.lr=0.25)", "tuned a": LABEL}
    # A name that another row has, or that stands for a recipe, gets a letter.
    assert names([plain, named(run, "spq")]) == {"spq": "", "spq a": LABEL}
    assert names([named(run, "spq")]) == {"spq a": LABEL}


def test_renamed_for_print(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, "spq", VALUES), given_run(tmp_path, "spq", VALUES, changes=LONG)]
    assert names(runs, spq="SPQ") == {"SPQ": "", "spq a": LABEL}
    assert names(runs, **{"spq a": "SPQ, ours"}) == {"spq": "", "SPQ, ours": LABEL}
    with pytest.raises(UsageError, match="unknown row 'spq b'; did you mean 'spq a'"):
        names(runs, **{"spq b": "x"})
    with pytest.raises(UsageError, match="two rows would have the name 'spq a'; choose another one"):
        names(runs, spq="spq a")


def test_foreign_codes_keep_their_mark(tmp_path: Path) -> None:
    run = given_run(tmp_path, "spq", VALUES, changes=LONG)
    foreign = StoredRun(run.record.model_copy(update={"foreign": "f" * 64}), run.folder)
    assert names([foreign]) == {"spq a (foreign)": f"{LABEL} (foreign)"}
    assert names([named(foreign, "theirs")]) == {"theirs (foreign)": f"{LABEL} (foreign)"}


def test_every_report_says_what_a_name_stands_for(cli: Callable[..., Any], tmp_path: Path) -> None:
    results = tmp_path / "results" / "runs"
    for seed in (0, 1):
        make_run(results, "spq", seed=seed, noise=0.3)
        make_run(results, "spq", seed=seed, noise=0.2, changes=LONG)
    shown = cli("table").out.splitlines()
    assert f"spq a is {LABEL}." in shown
    assert max(len(line) for line in shown if line.startswith("|")) < 60
    assert r"spq a is spq (backbone.freeze\_batch\_norm=true" in cli("table", "--format", "latex").out
    assert f'"{LABEL}"' in cli("table", "--format", "csv").out
    assert f"hashbench: spq a is {LABEL}\n" in cli("compare", "--where", "bits=16", "--method", "spq").err
    listed = cli("results", "list").out
    assert f"spq a is {LABEL}" in listed.replace("\n", " ")
    renamed = cli("table", "--rename", "spq=SPQ", "--rename", "spq a=SPQ+").out
    assert "| SPQ " in renamed
    assert f"SPQ+ is {LABEL}." in renamed
    assert cli("table", "--rename", "nobody=x").code == 2
    assert cli("plot", "bits", "--output", "b.svg", "--rename", "spq=SPQ").code == 2  # one code length
    assert cli("plot", "pr", "--output", "pr.svg", "--csv", "pr.csv").code == 0
    assert "spq a" in (tmp_path / "pr.csv").read_text()


def test_the_legend_of_a_plot_says_what_a_name_stands_for(tmp_path: Path) -> None:
    from hashbench.report.aggregate import cells
    from hashbench.report.line_styles import line_styles
    from hashbench.report.plots.style import legend_lines

    make_run(tmp_path, "spq")
    make_run(tmp_path, "spq", changes=LONG)
    runs = select(tmp_path, RunFilter()).runs
    entries = legend_lines(line_styles(run.label for run in runs), cells(runs).values())
    assert list(entries) == ["spq", f"spq a: {LABEL}"]


def test_a_run_is_named(cli: Callable[..., Any], tmp_path: Path) -> None:
    command = ("run", "--dataset", "digits", "--limit", "40", "--bits", "8", "--set", "images.size=16")
    assert cli(*command, "--method", "itq", "--name", "tiny").code == 0
    (path,) = (tmp_path / "results").rglob("record.json")
    assert read_record(path.parent).name == "tiny"
    (run,) = found_runs([StoredRun(read_record(path.parent), path.parent)], "mAP@all").runs
    assert (run.label, run.note) == ("tiny", "itq (images.size=16)")
    again = cli(*command, "--method", "itq", "--name", "other")  # the same run
    assert again.code == 0
    assert "it keeps its name, tiny; --rename shows another one" in again.err
    assert [*(tmp_path / "results").rglob("record.json")] == [path]
    assert cli(*command, "--method", "itq,lsh", "--name", "both").code == 2
    assert cli(*command, "--method", "itq", "--name", "x" * 41).code == 2
