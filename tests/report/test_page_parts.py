"""Tests of the parts of the HTML page: headline, charts, retrieved images and failures, by brute force."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.fake_runs import CLASSES, make_dataset, make_run

from hashbench import load_dataset
from hashbench.codes import unpack_bits
from hashbench.data.dataset import Dataset
from hashbench.report.aggregate import cells
from hashbench.report.page.charts import POINTS, Chart, bits_chart, pr_chart, speed_chart, training_charts
from hashbench.report.page.headline import headlines, how_tested
from hashbench.report.page.page import html_page
from hashbench.report.page.retrieval import SplitRetrieval, Thumbnails, runs_to_show, split_retrieval
from hashbench.report.plots.curve_plots import pr_plot, training_plot
from hashbench.report.tables.ranking import rank_cells
from hashbench.results.query import RunFilter
from hashbench.results.selection import FoundRuns, select
from hashbench.results.stored_run import StoredRun

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "records"


def found(results: Path, metric: str | None = None, **wanted: Any) -> FoundRuns:
    return select(results, RunFilter(**wanted), metric)


def sentences(results: Path, across: bool = False, **wanted: Any) -> list[str]:
    """Return the sentences of the headline."""
    selected = found(results, **wanted)
    columns = cells(selected.runs)
    ranking = rank_cells(columns, across_backbones=across)
    return [
        f"{one.split}, {leader.where}: {leader.label} {leader.value}; {leader.others}"
        for one in headlines(selected.runs, columns, ranking, across)
        for leader in one.leaders
    ]


def index_of(runs: list[StoredRun]) -> dict[str, int]:
    return {run.record.run_id: at for at, run in enumerate(runs)}


def test_the_headline_says_what_leads_and_how_certain_that_is() -> None:
    assert sentences(REFERENCE, metric="mAP@all", datasets=["digits"], bits=[32]) == [
        "digits@default, 32 bits: spq mAP@all 0.934; bihalf (0.861) is distinguishably lower"
    ]
    assert sentences(
        REFERENCE, metric="mAP@all", datasets=["digits"], bits=[32], methods=["bihalf", "wch"]
    ) == ["digits@default, 32 bits: bihalf mAP@all 0.861; wch (0.857) is not distinguishable from it"]
    assert sentences(REFERENCE, metric="P@1000", datasets=["digits"], bits=[32], methods=["sh", "lsh"]) == [
        "digits@default, 32 bits: lsh P@1000 0.147; sh (0.139) is second; the difference was not tested: the "
        "AP of the queries is not known"
    ]


def test_the_headline_of_collapsed_lonely_and_different_methods(tmp_path: Path) -> None:
    make_run(tmp_path, "dead", bits=8, collapsed=True)
    make_run(tmp_path, "wch", bits=16, noise=0.1)
    make_run(tmp_path, "dead", bits=16, collapsed=True)
    make_run(tmp_path, "wch", bits=32, noise=0.1)
    make_run(tmp_path, "itq", bits=32, noise=0.9, changes={"backbone.name": "vgg16"})
    eight, sixteen, *both = sentences(tmp_path)
    assert eight.endswith("8 bits:  ; the codes of all methods collapsed")
    assert sixteen.startswith("shapes@default, 16 bits: wch mAP@1000 ")
    assert sixteen.endswith("; there is no other method to compare")
    assert [text.partition(": ")[0] for text in both] == [
        "shapes@default, 32 bits, vgg16, 224 px", "shapes@default, 32 bits, efficientnet_lite0, 224 px",
    ]  # fmt: skip
    (last,) = sentences(tmp_path, across=True, bits=[32])
    assert "32 bits: wch mAP@1000 " in last
    assert last.endswith(") is distinguishably lower")


def test_the_headline_names_the_test_only_if_there_was_one(tmp_path: Path) -> None:
    make_run(tmp_path, "wch")
    assert how_tested(rank_cells(cells(found(tmp_path).runs))) == ""
    make_run(tmp_path, "itq")
    assert "bootstrap" in how_tested(rank_cells(cells(found(tmp_path).runs)))


def lines(chart: Chart) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the lines of a chart by title and vertical axis of their panel, and by name."""
    return {
        (panel["title"], panel["yLabel"], chart["lines"][line["line"]]["name"]): line
        for panel in chart["panels"]
        for line in panel["lines"]
    }


def test_charts_have_the_numbers_of_the_plots(tmp_path: Path) -> None:
    for seed in (0, 1):
        for bits in (16, 32):
            make_run(tmp_path, "wch", seed=seed, bits=bits)
            make_run(tmp_path, "itq", seed=seed, bits=bits, noise=0.5, fitted=True)
    runs = found(tmp_path).runs
    columns, index = cells(runs), index_of(runs)
    drawn = lines(pr_chart(columns, index))
    for (bits, label), points in pr_plot(runs).data.groupby(["bits", "label"]):
        line = drawn[f"shapes@default, {bits} bits", "Precision", str(label)]
        points = points.set_index("at").loc[line["rank"]]
        for key, name in (("x", "recall"), ("y", "precision"), ("least", "precision_least")):
            np.testing.assert_allclose(line[key], points[name], rtol=1e-4)
        assert line["rank"][0] == 1
        assert line["rank"][-1] == 120
        assert len(line["runs"]) == 2
    charts = training_charts(columns, index)
    assert list(charts) == ["wch, shapes@default"]
    drawn = lines(charts["wch, shapes@default"])
    data = training_plot(runs).data
    assert len(drawn) == 6
    for (_, part, name), line in drawn.items():
        bits = int(name.split()[1])
        points = data[(data["part"] == part) & (data["bits"] == bits)]
        assert line["x"] == [1, 2, 3]
        np.testing.assert_allclose(line["y"], points["value"], rtol=1e-4)
        np.testing.assert_allclose(line["most"], points["value_most"], rtol=1e-4)


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    make_run(tmp_path, "wch", epochs=250)
    runs = found(tmp_path).runs
    data = training_plot(runs).data.set_index(["part", "epoch"])["value"]
    (chart,) = training_charts(cells(runs), index_of(runs)).values()
    for (_, part, _), line in lines(chart).items():
        assert len(line["x"]) == POINTS
        assert (line["x"][0], line["x"][-1]) == (1, 250)
        np.testing.assert_allclose(line["y"], data[part].loc[line["x"]], rtol=1e-4)


def test_metrics_by_code_length(tmp_path: Path) -> None:
    for bits in (8, 32, 16):
        make_run(tmp_path, "wch", bits=bits, collapsed=bits == 8)
    make_run(tmp_path, "wch", make_dataset("forms"))
    runs = found(tmp_path).runs
    columns, index = cells(runs), index_of(runs)
    length, time = bits_chart(columns, index), speed_chart(columns, index)
    (panel,) = length["panels"]
    assert length["notes"] == [
        "forms@default is left out, since all its runs have the same code length (bits)."
    ]
    (line,) = panel["lines"]
    assert (line["x"], panel["ticks"], line["hollow"]) == ([8, 16, 32], [8, 16, 32], [True, False, False])
    shown = sorted((run for run in runs if run.record.dataset == "shapes"), key=lambda run: run.record.bits)
    values = [run.record.metrics[run.metric].expected for run in shown]
    np.testing.assert_allclose(line["y"], values, rtol=1e-4)
    assert time["panels"][0]["lines"][0]["x"] == [108, 116, 132]


def test_losses_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    run = make_run(tmp_path, "wch")
    log = [{"epoch": epoch, "step": epoch, "loss": loss} for epoch, loss in enumerate((1.0, "NaN", 0.5))]
    (run.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    selected = found(tmp_path)
    (chart,) = training_charts(cells(selected.runs), index_of(selected.runs)).values()
    assert chart["panels"][0]["lines"][0]["y"] == [1.0, None, 0.5]
    assert "NaN" not in html_page(selected, {}, 0).partition('id="data">')[2].partition("</script>")[0]


@pytest.fixture
def shown(tmp_path: Path) -> tuple[list[StoredRun], SplitRetrieval, Thumbnails, Dataset]:
    """Return runs of three methods on made-up images, and what the page shows of their queries."""
    dataset = make_dataset()
    for method, noise in (("wch", 0.4), ("itq", 0.6), ("spq", 0.5)):
        make_run(tmp_path, method, dataset, noise=noise, product=method == "spq")
    make_run(tmp_path, "wch", dataset, noise=0.9, seed=1)
    make_run(tmp_path, "wch", dataset, noise=0.0, changes={"optimizer.lr": 0.5})
    make_run(tmp_path, "dead", dataset, collapsed=True)
    runs = found(tmp_path).runs
    thumbnails = Thumbnails()
    (best,) = runs_to_show(runs).values()
    return best, split_retrieval(best, dataset, 4, index_of(runs), thumbnails), thumbnails, dataset


def test_the_same_queries_by_the_best_run_of_each_method(shown: Any) -> None:
    best, retrieval, thumbnails, dataset = shown
    assert {(run.label, run.record.seed) for run in best} == {("wch", 0), ("itq", 0), ("spq", 0)}
    values = np.mean([run.average_precisions("mAP@1000") for run in best], axis=0)
    order = np.argsort(-values, kind="stable")
    expected = [dataset.query.images.ids[order[rank]] for rank in (0, 6, 13, 19)]
    assert [query.shown.text.split()[0] for query in retrieval.queries] == expected
    for query in retrieval.queries:
        at = dataset.query.images.ids.index(query.shown.text.split()[0])
        assert len(query.results) == 3
        for result in query.results:
            run = next(run for run in best if run.label == result.label)
            assert result.ap == run.average_precisions("mAP@1000")[at]
            if result.label == "spq":
                continue
            codes, database = run.codes()
            apart = unpack_bits(codes.packed[[at]] ^ database.packed, 16).sum(axis=1)
            nearest = sorted(range(120), key=lambda item: (apart[item], item))[:10]
            labels = dataset.database.labels[nearest]
            assert [one.text for one in result.nearest] == [
                f"{dataset.database.images.ids[item]} ({CLASSES[label]}), distance {apart[item]}"
                for item, label in zip(nearest, labels, strict=True)
            ]
            assert [one.relevant for one in result.nearest] == list(labels == dataset.query.labels[at])
    assert len(set(thumbnails.sources)) == len(thumbnails.sources) <= 140


def test_failures_are_the_lowest_ap_and_the_confused_classes(shown: Any) -> None:
    best, retrieval, _, dataset = shown
    for run, failures in zip(best, retrieval.failures, strict=True):
        values = run.average_precisions("mAP@1000")
        assert [query.results[0].ap for query in failures.queries] == sorted(values)[:4]
        if run.label == "spq":
            continue
        codes, database = run.codes()
        counts: dict[int, Counter[int]] = {}
        for at, own in enumerate(dataset.query.labels.tolist()):
            apart = unpack_bits(codes.packed[[at]] ^ database.packed, 16).sum(axis=1)
            nearest = sorted(range(120), key=lambda item, apart=apart: (apart[item], item))[:10]
            counts.setdefault(own, Counter()).update(dataset.database.labels[nearest].tolist())
        shares = pd.Series({own: count[own] / count.total() for own, count in counts.items()})
        assert [row[1] for row in failures.confused] == [f"{share:.0%}" for share in sorted(shares)][
            : len(CLASSES)
        ]
        name, _, others = failures.confused[0]
        own = CLASSES.index(name)
        worst = max(count for label, count in counts[own].items() if label != own)
        assert f"({worst / counts[own].total():.0%})" in others.split(", ")[0]


def test_without_images_or_codes_the_page_says_so_and_names_the_failures(tmp_path: Path) -> None:
    digits = load_dataset("digits")
    run = make_run(tmp_path, "wch", digits, noise=0.3)
    values = run.average_precisions("mAP@1000")
    assert values is not None
    worst = digits.query.images.ids[int(np.argmin(values))]
    selected = found(tmp_path)
    for dataset, reason in (
        ("it is not here", "it is not here"),
        (make_dataset(), "is not the data of wch-"),
    ):
        page = html_page(selected, {"digits@default": dataset}, 2)
        assert "The images cannot be shown: " in page
        assert reason in page
        assert worst in page
        assert "image/webp" not in page
    (run.folder / "codes.npz").unlink()
    page = html_page(selected, {"digits@default": digits}, 2)
    assert "imported without their codes" in page
    assert page.count("data:image/webp") == 2  # the two queries
    assert f"{worst} (" in page


def test_a_page_of_a_thousand_runs_is_small(tmp_path: Path) -> None:
    """Measure how the page grows with runs, which share their files here."""
    runs = [make_run(tmp_path, method, bits=bits) for method in ("wch", "itq") for bits in (16, 32)]
    sizes = []
    for seeds in (5, 15):
        copies = [
            StoredRun(
                run.record.model_copy(update={"seed": seed, "run_id": f"{run.record.run_id}{seed}"}),
                run.folder,
            )
            for run in runs
            for seed in range(seeds)
        ]
        selected = found(tmp_path)
        copies = [StoredRun(one.record, one.folder, metric="mAP@1000") for one in copies]
        sizes.append(len(html_page(FoundRuns(copies, selected.labels, [], []), {}, 0).encode()))
    assert (sizes[1] - sizes[0]) / 40 * 1000 < 4_000_000
