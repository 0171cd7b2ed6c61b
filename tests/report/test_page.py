"""Tests of the HTML page: self-contained, equal to the records, and escaped."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_runs import make_dataset, make_run

from hashbench import read_record
from hashbench.config import flatten
from hashbench.evaluation import VERSION

COMPONENTS = {"balance term": {"optimizer.lr": 0.5}}
VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """A parser that checks that tags match, and keeps the texts of cells and all references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.cells: list[str] = []
        self.text = ""
        self.data: dict[str, Any] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")
        ]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data
        if self.open and self.open[-1] == "script" and data.startswith("{"):
            self.data = json.loads(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "runs"
    for seed in (0, 1):
        make_run(folder, "wch", seed=seed, noise=0.2, components=COMPONENTS)
        make_run(
            folder, "wch", seed=seed, noise=0.3, components=COMPONENTS, changes=COMPONENTS["balance term"]
        )
        make_run(folder, "itq", seed=seed, noise=0.5, fitted=True)
    return folder


@pytest.fixture
def page(cli: Callable[..., Any], results: Path) -> Callable[..., str]:
    def make(*arguments: object) -> str:
        done = cli("report", *arguments)
        assert done.code == 0, done.err
        assert done.out == "report.html\n"
        return Path("report.html").read_text(encoding="utf-8")

    return make


def test_a_page_is_self_contained_and_agrees_with_the_records(
    page: Callable[..., str], cli: Callable[..., Any]
) -> None:
    text = page()
    read = Page(text)
    assert read.references
    assert all(reference.startswith(("data:image/", "#")) for reference in read.references)
    assert not re.search(r"https?://|@import|url\(", re.sub(r"data:[^\"]*", "", text))
    for part in ("Results", "Curves", "Training", "Ablation", "Failures", "Runs", "Environment"):
        assert part in read.text
    assert "Warnings" not in read.text

    rows = [line.split("|")[1:-1] for line in cli("table").out.splitlines() if line.startswith("|")]
    for label, figure in ((row[0].strip(), row[1].strip(" *_").split("*")[0]) for row in rows[2:]):
        if "lr=" not in label:  # the variant is in the ablation
            assert label in read.cells
            assert any(cell.startswith(figure) for cell in read.cells), figure
    assert "without balance term" in read.cells
    assert "✓" in read.cells
    assert read.text.count("shapes cannot be shown") == 0
    assert "unknown dataset 'shapes'" in read.text  # synthetic runs have no images; the page tells why


def test_warnings_come_first(page: Callable[..., str], results: Path) -> None:
    make_run(results, "dead", collapsed=True)
    (results / "shapes@default" / "itq" / "16bit" / ".itq-shapes-16bit-seed2-x.01234567").mkdir()
    (results / "shapes@default" / "itq" / "16bit" / "broken").mkdir()
    (results / "shapes@default" / "itq" / "16bit" / "broken" / "record.json").write_text("{")
    text = page()
    read = Page(text)
    assert text.index("Warnings") < text.index("Results")
    assert len(re.findall(r"dead-shapes-\S+ COLLAPSED: on average .*; 15 of 16 bits have", read.text)) == 1
    assert "itq-shapes-16bit-seed2-x has not finished" in read.text
    assert "broken/record.json is not a record" in read.text
    assert any("‡" in cell for cell in read.cells)
    assert "COLLAPSED" in read.cells


def test_text_of_records_is_escaped(page: Callable[..., str], results: Path) -> None:
    nasty = '<img src=x onerror=alert(1)> & "quoted"'
    make_run(results, "sh", changes={"backbone.name": nasty})
    text = page()
    assert "<img src=x" not in text
    read = Page(text)
    assert nasty in read.text  # of the filter
    assert {"backbone.name": json.dumps(nasty)} in [run["changes"] for run in read.data["runs"]]


def test_incomparable_runs_are_left_out_and_named(page: Callable[..., str], results: Path) -> None:
    run = make_run(results, "sh", make_dataset(seed=1))
    read = Page(page())
    assert "sh" not in read.cells
    assert f"left out of shapes@default: {run.record.run_id}, since split.sha256 is" in read.text


def test_a_run_that_lacks_the_metric_is_left_out(page: Callable[..., str], results: Path) -> None:
    make_run(results, "spq", product=True)
    read = Page(page("--metric", "P@H<=2"))
    assert "spq is left out where it has no P@H<=2" in read.text
    assert "spq" not in read.cells


def test_other_evaluators_and_sources_are_reported(page: Callable[..., str], results: Path) -> None:
    for method, key, old, new in (
        ("*", "evaluator", f'"evaluator": {VERSION}', '"evaluator": 99'),
        ("itq", "source", '"source": "0"', '"source": "1"'),
    ):
        records = sorted(results.glob(f"*/{method}/*/*/record.json"))
        for path in records if key == "evaluator" else records[:1]:
            text = path.read_text(encoding="utf-8")
            assert old in text
            path.write_text(text.replace(old, new), encoding="utf-8")
    read = Page(page())
    assert f"shapes@default: measured by evaluator 99; evaluator {VERSION} is installed." in read.text
    assert "the seeds of itq, shapes@default, 16 bits were run by 2 versions of the source code" in read.text


def test_cost_and_chance_are_those_of_the_record(page: Callable[..., str], results: Path) -> None:
    record = make_run(results, "spq", product=True).record
    read = Page(page())
    at = max(place for place, cell in enumerate(read.cells) if cell == "spq")
    value = f"{record.metrics['mAP@1000'].expected:.4f}"
    assert read.cells[at + 1 : at + 7] == ["shapes@default", "16", "0", value, "healthy", "116.0"]
    run = next(run for run in read.data["runs"] if run["id"] == record.run_id)
    chance = f"{record.health.chance_map['mAP@1000']:.4f}"
    assert run["codes"]["mAP@1000 of a random ranking"] == chance
    assert run["codes"]["bytes a code"] == "2"
    assert run["facets"] == ["spq", "shapes@default", "16 bits", "efficientnet_lite0, 224 px"]
    assert run["command"].startswith("hashbench run --method spq --dataset shapes --protocol default")
    settings = dict(read.data["settings"][at] for at in run["settings"])
    assert settings["training.epochs"] == "3"
    assert settings.keys() == flatten(record.config).keys()


def test_curves_that_are_missing_or_damaged_become_a_sentence(
    page: Callable[..., str], results: Path
) -> None:
    logs = sorted(results.glob("*/wch/*/*/log.jsonl"))
    path = next(log for log in logs if not read_record(log.parent).changes)  # the curves of unchanged runs
    path.write_text("{")
    assert f"{path.relative_to(results.parents[1])} is damaged" in Page(page()).text
    for file in results.rglob("curves.csv"):
        file.unlink()
    read = Page(page())
    assert "Left out, since they have no curves.csv: itq, wch." in read.text
    assert read.data["charts"][0]["panels"] == []


def test_several_datasets_have_a_table_each(page: Callable[..., str], results: Path) -> None:
    make_run(results, "wch", make_dataset("forms", "other"))
    read = Page(page("--retrieval", "0"))
    assert "mAP@1000 on forms@other, shapes@default" in read.text
    assert "Retrieval" not in read.text
    assert "Failures" not in read.text
    assert sum(cell == "method" for cell in read.cells) == 2


def test_the_same_records_give_the_same_page(
    page: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_date(text: str) -> str:
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", text)

    assert without_date(page()) == without_date(page())


def test_an_output_that_cannot_be_written(cli: Callable[..., Any], results: Path) -> None:
    done = cli("report", "--output", "none/report.html")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "none/report.html cannot be written: the folder none does not exist" in done.err
