"""Damaged records and files of runs are read, left out, or refused with one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.mutation import mutations
from fuzz.outcomes import refused
from helpers.fake_runs import make_run

from hashbench.experiment.verify import verify_all
from hashbench.report.compare import compare
from hashbench.report.curves import read_losses, read_precision
from hashbench.report.page.page import html_page
from hashbench.report.plots.curve_plots import pr_plot, training_plot
from hashbench.report.plots.metric_plots import bits_plot, speed_plot
from hashbench.report.tables.ablation_table import ablations
from hashbench.report.tables.csv_tables import result_csv
from hashbench.report.tables.latex import latex
from hashbench.report.tables.published import read_published
from hashbench.report.tables.result_table import result_table
from hashbench.report.tables.table import markdown
from hashbench.results.query import RunFilter, find
from hashbench.results.record import CODES, CURVES, LOG, QUERIES, RECORD, read_record
from hashbench.results.selection import select
from hashbench.results.stored_run import StoredRun, Unfinished
from hashbench.runtime.console import printable_lines

Tries = Callable[[int, int], int]
METRIC = "mAP@all"
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, 10**19, -1e308, "", "x", "\x1b[2J\n", "=1+1", "$x^{", "\u202e", "../../x"),
    *(
        [],
        {},
        [1],
        ["x"],
        {"a": {}},
        {"x": "\x1b"},
        [[[]]],
        "9" * 5000,
        "2001-99-99",
        "0001-01-01T00:00:00+23:59",
    ),
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    make_run(tmp_path, "wch", seed=1, changes={"hyperparameters.x": "1"}, components={"a": {"x": 1}})
    make_run(tmp_path, "wch", seed=0)
    return tmp_path


def reports(results: Path) -> None:
    """Create all reports without plots; notes on what is left out have no control characters."""
    selected = select(results, RunFilter(), METRIC)
    assert all(len(note) < 1000 for note in selected.notes)
    grid = result_table(selected, bounds=True)
    csv = result_csv(selected)
    for text in (markdown(grid), latex([grid]), csv):
        assert printable_lines(printable_lines(text)) == printable_lines(text)
    assert not any(line.startswith(("=", "+", "-", "@")) for line in csv.splitlines())
    ablations(selected.runs)
    if len(selected.runs) > 1:
        compare(*selected.runs[:2], METRIC)


def figures(results: Path) -> None:
    selected = select(results, RunFilter(), METRIC)
    for draw in (
        lambda: pr_plot(selected.runs),
        lambda: training_plot(selected.runs),
        lambda: bits_plot(selected.runs),
        lambda: speed_plot(selected.runs),
        lambda: html_page(selected, {}),
    ):
        refused(draw)


def read(results: Path, path: Path, content: bytes) -> bool:
    """Write a record; if it is valid, create all reports and verify it."""
    path.write_bytes(content)
    if refused(read_record, path.parent):
        assert len(find(results, RunFilter())[2]) == 1
        return False
    refused(reports, results)
    check(path.parent)
    return True


def check(folder: Path) -> None:
    (checked,) = verify_all([StoredRun(read_record(folder), folder)])
    assert all(len(problem) < 2000 for problem in checked.problems)


def altered(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of a record's values: at each, a value of another kind may stand."""
    yield path
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from altered(content[key], (*path, key))


@pytest.mark.filterwarnings("ignore")
def test_values_of_another_kind(results: Path, tries: Tries) -> None:
    path = next(results.glob(f"*/*/*/*seed1*/{RECORD}"))
    text = path.read_text()
    places = [place for place in altered(json.loads(text)) if place]
    cases = [(place, value) for place in places for value in ODD]
    order = np.random.default_rng(0).permutation(len(cases))
    accepted = 0
    for number in order[: tries(60, len(cases))]:
        place, value = cases[number]
        record = content = json.loads(text)
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value
        if read(results, path, json.dumps(record).encode()):
            accepted += 1
            if accepted % tries(25, 10) == 0:
                figures(results)
    assert accepted


@pytest.mark.filterwarnings("ignore")
def test_damaged_records(results: Path, tries: Tries) -> None:
    path = next(results.glob(f"*/*/*/*seed1*/{RECORD}"))
    content = path.read_bytes()
    for damaged in mutations([content], tries(150, 10_000)):
        read(results, path, damaged)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [QUERIES, CODES])
def test_damaged_arrays(results: Path, tries: Tries, name: str) -> None:
    folder, beside = (next(results.glob(f"*/*/*/*seed{seed}*")) for seed in (1, 0))
    content, other = (folder / name).read_bytes(), StoredRun(read_record(beside), beside)
    for damaged in mutations([content], tries(20, 10_000)):
        (folder / name).write_bytes(damaged)
        check(folder)
        run = StoredRun(read_record(folder), folder)
        for call in (run.query_ids, run.evaluate, lambda run=run: run.part("train")):
            refused(call)
        refused(compare, run, other, METRIC)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "read", "draw"),
    [(CURVES, lambda path: read_precision(path, "rank"), pr_plot), (LOG, read_losses, training_plot)],
)
def test_damaged_curves(
    results: Path, tries: Tries, name: str, read: Callable[[Path], object], draw: Callable[..., object]
) -> None:
    folder = next(results.glob("*/*/*/*seed1*"))
    run = StoredRun(read_record(folder), folder)
    drawn = 0
    for damaged in mutations([(folder / name).read_bytes()], tries(100, 10_000)):
        (folder / name).write_bytes(damaged)
        if not refused(read, folder / name):
            drawn += 1
            if drawn % 30 == 1:
                refused(draw, [run])
    assert drawn


def test_runs_that_have_not_ended(tmp_path: Path, tries: Tries) -> None:
    for damaged in mutations(
        [b'{"lr": 0.1, "views.affine": {"degrees": [1, null, "x"]}}'], tries(200, 10_000)
    ):
        (tmp_path / "started.json").write_bytes(damaged)
        run = Unfinished("digits", "default", "wch", 16, "wch-digits-16bit-seed0-x", tmp_path)
        assert run.label.startswith("wch")


def test_printed_figures(tmp_path: Path, tries: Tries) -> None:
    (tmp_path / "published").mkdir()
    content = 'method,year,venue,dataset,bits,map,source,note\nWCH,2026,x,digits,16,0.9,"Table 9, a",\n'
    found = 0
    for damaged in mutations([content.encode()], tries(200, 10_000)):
        (tmp_path / "published/mine.csv").write_bytes(damaged)
        found += refused(read_published, tmp_path / "runs", RunFilter())
    assert found
