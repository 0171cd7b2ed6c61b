"""Tests of plots: their numbers and texts, that all text is legible, and usage errors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers.fake_runs import make_dataset, make_run
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hashbench import HashbenchError, UsageError, load_dataset, read_record
from hashbench.evaluation import VERSION
from hashbench.report.line_styles import line_styles
from hashbench.report.plots.code_plots import codes_plot
from hashbench.report.plots.curve_plots import pr_plot, training_plot
from hashbench.report.plots.metric_plots import bits_plot, speed_plot
from hashbench.report.plots.retrieved_image_plots import retrieval_plot
from hashbench.report.plots.style import Plot, style
from hashbench.report.retrieval import evenly_spaced
from hashbench.results.query import RunFilter
from hashbench.results.selection import select
from hashbench.results.stored_run import StoredRun
from hashbench.runtime.files import write_output

LONG = {"hyperparameters.mutual_attention": False, "hyperparameters.patch_weighting": False}
FEATURES = "the seconds of a run include those of the features that it used, cached or not"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create runs on two datasets of four methods and a variant; one has product codes, one is collapsed."""
    results = tmp_path_factory.mktemp("runs")
    shapes, photos = make_dataset(), make_dataset("photographs", "lists", seed=1)
    for bits, seed in itertools.product((16, 32), (0, 1, 2)):
        make_run(results, "wch", shapes, bits=bits, seed=seed)
        make_run(results, "spq", shapes, bits=bits, seed=seed, product=True, noise=0.3)
    for bits in (16, 32):
        make_run(results, "lsh", shapes, bits=bits, noise=0.7, fitted=True)
        make_run(results, "bad", shapes, bits=bits, collapsed=True)
        make_run(results, "wch", shapes, bits=bits, changes=LONG)
        make_run(results, "wch", photos, bits=bits, noise=0.4)
    return results


def runs_of(results: Path, **wanted: Any) -> list[StoredRun]:
    return select(results, RunFilter(**wanted), "mAP@all").runs


@pytest.fixture(scope="module")
def plots(results: Path) -> dict[str, Plot]:
    """Draw a plot of each kind."""
    runs, short = runs_of(results), runs_of(results, bits=[16])
    wch, spq, bad = (
        runs_of(results, methods=[name], datasets=["shapes"])[0] for name in ("wch", "spq", "bad")
    )
    return {
        "rank": pr_plot(runs, "rank"),
        "radius": pr_plot(short, "radius"),
        "topn": pr_plot(short, "topn"),
        "bits": bits_plot(runs),
        "speed": speed_plot(short),
        "training": training_plot(short),
        **{f"codes of {run.label}": codes_plot(run) for run in (wch, spq, bad)},
        **{
            f"retrieval of {run.label}": retrieval_plot(run, make_dataset(), "mAP@all", 1, top)
            for run, top in ((wch, 1), (spq, 20), (bad, 5))
        },
    }


# Texts


def labels_of(figure: Figure) -> list[str]:
    """Return the labels of the legend, each in one line."""
    return [" ".join(text.get_text().split()) for legend in figure.legends for text in legend.get_texts()]


def titles_of(figure: Figure) -> list[str]:
    return [" ".join((axis.get_title() or axis.get_title(loc="left")).split()) for axis in figure.axes]


def require_legible(figure: Figure) -> None:
    """Check that all text is inside the figure, and that no panel, title or legend covers another."""
    with style():  # as when a file is written, since an axis may then have further ticks
        inside = figure.get_tightbbox()
        boxes = [axis.get_tightbbox().padded(-1) for axis in figure.axes]
    width, height = figure.get_size_inches()
    assert inside.x0 >= -0.01
    assert inside.y0 >= -0.01
    assert inside.x1 <= width + 0.01
    assert inside.y1 <= height + 0.01
    boxes += [legend.get_window_extent() for legend in figure.legends]
    if figure.get_suptitle():
        boxes.append(figure._suptitle.get_window_extent())  # type: ignore[attr-defined]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (one, other)


def test_all_text_is_inside_and_apart(plots: dict[str, Plot]) -> None:
    for name, plot in plots.items():
        try:
            require_legible(plot.figure)
        except AssertionError as error:
            raise AssertionError(name) from error


def test_a_single_run_makes_every_plot(results: Path) -> None:
    (run,) = runs_of(results, methods=["wch"], datasets=["photographs"], bits=[16])
    for plot, notes in (
        (pr_plot([run]), []),
        (speed_plot([replace(run, metric="P@all")]), [FEATURES]),
        (training_plot([run]), []),
    ):
        require_legible(plot.figure)
        assert labels_of(plot.figure) == ["wch"]
        assert list(plot.notes) == notes


def test_lone_points_are_left_out_of_lines(tmp_path: Path) -> None:
    for bits in (16, 32):
        make_run(tmp_path, "wch", bits=bits)
    make_run(tmp_path, "spq")
    make_run(tmp_path, "spq", dataset=make_dataset("photographs"))
    runs = runs_of(tmp_path)
    alone = "left out, since there is only one code length: spq on photographs@default, spq on shapes@default"
    plot = bits_plot(runs)
    assert (plot.notes, titles_of(plot.figure)) == ([alone], ["shapes@default"])
    assert set(plot.data["label"]) == {"wch"}
    plot = speed_plot(runs)
    assert (plot.notes[0], titles_of(plot.figure)) == (alone, ["shapes@default", ""])
    make_run(tmp_path, "wch", dataset=make_dataset("photographs"))
    plot = speed_plot(runs_of(tmp_path))  # points can be compared with each other
    assert titles_of(plot.figure) == ["photographs@default", "", "shapes@default", ""]
    assert plot.notes[0] == "left out, since there is only one code length: spq on shapes@default"
    with pytest.raises(UsageError, match="nothing to draw; left out, since there is only one"):
        bits_plot(runs_of(tmp_path, methods=["spq"]))
    one = runs_of(tmp_path, methods=["spq"], datasets=["shapes"])
    assert list(speed_plot(one).notes) == [FEATURES]


def test_many_long_labels_fit(tmp_path: Path) -> None:
    for number in range(12):
        name = "a_setting_with_a_very_long_name" * (1 + number % 2)
        make_run(tmp_path, f"method{number}", changes={f"hyperparameters.{name}": "$x_1$ and $"})
    plot = pr_plot(runs_of(tmp_path))
    require_legible(plot.figure)
    assert (
        len(
            {
                tuple(map(str, (line.colour, line.dashes, line.marker)))
                for line in line_styles(run.label for run in runs_of(tmp_path)).values()
            }
        )
        == 12
    )
    labels = labels_of(plot.figure)
    assert [label.partition(":")[0] for label in labels] == sorted(
        f"method{number} a" for number in range(12)
    )
    assert all("$x_1$and$" in "".join(label.split()) for label in labels)


def test_collapsed_codes_are_hollow_and_named(results: Path, plots: dict[str, Plot], tmp_path: Path) -> None:
    runs = runs_of(results, methods=["bad", "wch"], datasets=["shapes"], bits=[16], unchanged=True)
    for plot in (pr_plot(runs), speed_plot(runs), training_plot(runs)):
        assert labels_of(plot.figure) == ["bad, collapsed", "wch"]
        filled = {line.get_color(): line.get_markerfacecolor() for line in plot.figure.legends[0].get_lines()}
        bad, wch = line_styles(["bad", "wch"]).values()
        assert filled == {bad.colour: "white", wch.colour: wch.colour}
        drawn = {
            (line.get_color(), line.get_markerfacecolor())
            for axis in plot.figure.axes
            for line in axis.get_lines()
            if line.get_marker() not in ("None", "|", "_")
        }
        assert drawn == set(filled.items())

    some = [make_run(tmp_path, "wch", seed=seed, collapsed=seed == 1) for seed in range(3)]
    assert labels_of(speed_plot(some).figure) == ["wch, 1 of 3 runs collapsed"]
    for kind in ("codes", "retrieval"):
        assert "COLLAPSED: " in plots[f"{kind} of bad"].figure.get_suptitle()
        assert "COLLAPSED" not in plots[f"{kind} of wch"].figure.get_suptitle()


def test_a_label_has_the_same_style_in_all_plots(plots: dict[str, Plot]) -> None:
    seen: dict[str, set[Any]] = {}
    for kind in ("rank", "radius", "topn", "bits", "speed", "training"):
        figure = plots[kind].figure
        for label, line in zip(labels_of(figure), figure.legends[0].get_lines(), strict=True):
            seen.setdefault(label, set()).add((line.get_color(), line.get_marker()))
    assert {label: len(found) for label, found in seen.items()} == dict.fromkeys(seen, 1)
    assert len(set.union(*seen.values())) == len(seen) == 5


# The numbers


def test_precision_and_recall_are_means_over_seeds(results: Path) -> None:
    plot = pr_plot(runs_of(results, methods=["wch", "lsh"], datasets=["shapes"], bits=[16], unchanged=True))
    curves = []
    for seed in range(3):
        folders = (results / "shapes@default" / "wch" / "16bit").glob(f"*seed{seed}-*")
        (folder,) = (folder for folder in folders if not read_record(folder).changes)
        lines = (folder / "curves.csv").read_text().splitlines()[1:]
        rows = (line.split(",") for line in lines if line.startswith("rank,"))
        curves.append([(int(at), float(precision), float(recall)) for _, at, precision, recall in rows])
    points = plot.data[plot.data["label"] == "wch"]
    assert set(plot.data["label"]) == {"wch", "lsh"}
    assert len(points) == len(curves[0])
    for row, of_seeds in zip(points.itertuples(), zip(*curves, strict=True), strict=True):
        ats, precisions, recalls = zip(*of_seeds, strict=True)
        assert (row.dataset, row.protocol, row.bits, row.seeds) == ("shapes", "default", 16, 3)
        assert {row.at} == set(ats)
        assert row.precision == pytest.approx(sum(precisions) / 3)
        assert row.recall == pytest.approx(sum(recalls) / 3)
        assert (row.precision_least, row.precision_most) == (min(precisions), max(precisions))
    assert points["at"].iloc[-1] == 120  # the whole database
    assert points["at"].dtype.kind == "i"  # so that --data has 120, not 120.0
    assert points["recall"].iloc[-1] == 1
    line = plot.figure.axes[0].get_lines()[0]
    assert np.array_equal(line.get_xydata(), points[["recall", "precision"]])


@pytest.mark.parametrize(
    ("kind", "x", "y", "points"),
    [
        ("rank", "Recall (by rank, full database)", "Precision", None),
        ("radius", "Recall (by Hamming radius)", "Precision (empty radius: 0)", 17),
        ("topn", "N, number of images retrieved", "Precision of the top N", None),
    ],
)
def test_kinds_of_curves(results: Path, kind: Any, x: str, y: str, points: int | None) -> None:
    plot = pr_plot(runs_of(results, datasets=["shapes"], bits=[16]), kind)
    (axis,) = plot.figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_xscale()) == (
        x, y, "log" if kind == "topn" else "linear",
    )  # fmt: skip
    radius = kind == "radius"
    assert plot.notes == (["left out, since product codes have no Hamming radius: spq"] if radius else [])
    assert ("spq" in set(plot.data["label"])) != radius
    if points is not None:
        assert plot.data[plot.data["label"] == "wch"]["at"].tolist() == list(range(points))
        assert {line.get_markevery() for line in axis.get_lines()} == {1}


def test_radius_is_the_macro_average(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    macro = run.evaluate().curve_by_radius("macro")
    data = pr_plot([run], "radius").data
    assert np.allclose(data[["at", "precision", "recall"]], macro)


def test_metric_by_code_length(results: Path) -> None:
    runs = runs_of(results, methods=["wch"], unchanged=True)
    plot = bits_plot([replace(run, metric="mAP@1000") for run in runs])
    assert titles_of(plot.figure) == ["photographs@lists", "shapes@default"]
    values = [
        run.record.metrics["mAP@1000"].expected
        for run in runs
        if (run.record.dataset, run.record.bits) == ("shapes", 16)
    ]
    mean = sum(values) / 3
    rows = plot.data[plot.data["dataset"] == "shapes"]
    assert rows["bits"].tolist() == [16, 32]
    row = rows.iloc[0]
    assert (row["metric"], row["seeds"], row["collapsed"], row["bytes"]) == ("mAP@1000", 3, 0, 2)
    assert row["mean"] == pytest.approx(mean)
    assert row["deviation"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 2) ** 0.5)
    single = plot.data[plot.data["dataset"] == "photographs"]
    assert single["deviation"].isna().all()
    axis = plot.figure.axes[1]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["16", "32"]
    assert axis.get_ylabel() == "mAP@1000 (± std over seeds)"


def places_of(axis: Axes) -> list[float]:
    """Return the horizontal positions of the markers of means."""
    return [x for line in axis.get_lines() if line.get_marker() in ("o", "s") for x in line.get_xdata()]


def test_points_stand_side_by_side(results: Path) -> None:
    runs = runs_of(results, methods=["wch", "lsh"], datasets=["shapes"], unchanged=True)
    (axis,) = bits_plot(runs).figure.axes
    assert axis.get_xlabel() == "Code length (bits); markers side by side"
    assert places_of(axis) == pytest.approx([15.834, 31.669, 16.167, 32.334], abs=1e-3)  # by 0.015 doublings


def test_cost(results: Path) -> None:
    runs = runs_of(results, methods=["wch", "lsh"], datasets=["shapes"], unchanged=True)
    plot = speed_plot(runs)
    row = plot.data[(plot.data["label"] == "wch") & (plot.data["bits"] == 32)].iloc[0]
    assert row["train_seconds"] == pytest.approx((132 + 133 + 134) / 3)
    assert row["encode_seconds"] == 1.5
    assert row["bytes"] == 4
    time, size = plot.figure.axes
    assert time.get_xscale() == "log"
    assert [tick.get_text() for tick in size.get_xticklabels()] == ["2", "4"]
    assert places_of(size) == [2, 4, 2, 4]  # not shifted, since the axis is a quantity
    assert plot.notes == [FEATURES]
    other = runs[0].record.model_copy(update={"environment": {"gpu": "H100"}})
    features, note = speed_plot([StoredRun(other, runs[0].folder, metric="mAP@all"), *runs[1:]]).notes
    assert features == FEATURES
    assert "different hardware" in note


def test_training_takes_means_within_epochs(results: Path) -> None:
    runs = runs_of(results, methods=["wch", "lsh"], datasets=["shapes"], bits=[16])
    plot = training_plot(runs)
    assert plot.notes == ["left out, since they are fitted without epochs: lsh"]
    assert [axis.get_ylabel() for axis in plot.figure.axes] == ["loss", "contrastive", "balance"]
    assert titles_of(plot.figure) == ["wch, shapes@default, 16 bits", "", ""]  # once in a row
    of_seeds = []
    for run in runs:
        if run.label == "wch":
            lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
            of_seeds.append(sum(line["balance"] for line in lines[3:6]) / 3)
    data = plot.data.set_index(["label", "part", "epoch"])
    row = data.loc[("wch", "balance", 2)]
    assert row["seeds"] == len(of_seeds) == 3
    assert row["value"] == pytest.approx(sum(of_seeds) / 3)
    assert row["value_least"] == pytest.approx(min(of_seeds))
    assert row["value_most"] == pytest.approx(max(of_seeds))
    variant = runs_of(results, methods=["wch"], datasets=["shapes"], bits=[16])[-1].label
    assert {label for label, _, _ in data.index} == {"wch", variant}  # in the same panels


def test_training_has_a_row_of_panels_for_each_method(tmp_path: Path) -> None:
    plain, variant, other = (
        make_run(tmp_path, "wch"), make_run(tmp_path, "wch", changes=LONG), make_run(tmp_path, "bihalf"),
    )  # fmt: skip
    for run, parts in ((variant, {"balance"}), (other, {"contrastive", "balance"})):
        path = run.folder / "log.jsonl"
        steps = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{key: value for key, value in step.items() if key not in parts} for step in steps]
        path.write_text("\n".join(map(json.dumps, kept)))
    figure = training_plot([other, plain, variant]).figure
    require_legible(figure)
    panels = [
        (spec.rowspan.start, len(spec.colspan), title, axis.get_ylabel(), len(axis.get_lines()))
        for axis, title in zip(figure.axes, titles_of(figure), strict=True)
        if (spec := axis.get_subplotspec()) is not None
    ]
    assert panels == [  # the widths, in sixths of the figure, leave no empty place
        (0, 6, "bihalf, shapes@default, 16 bits", "loss", 1),
        (1, 2, "wch, shapes@default, 16 bits", "loss", 2),
        (1, 2, "", "contrastive", 2),
        (1, 2, "", "balance", 1),
    ]


def test_rows_of_panels_are_even_and_one_epoch_is_in_the_middle(tmp_path: Path) -> None:
    run = make_run(tmp_path, epochs=1)
    path = run.folder / "log.jsonl"
    steps = [json.loads(line) | {"alignment": 1.0} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, steps)))
    figure = training_plot([run]).figure
    require_legible(figure)
    specs = [spec for axis in figure.axes if (spec := axis.get_subplotspec()) is not None]
    assert [(spec.rowspan.start, len(spec.colspan)) for spec in specs] == [(0, 3), (0, 3), (1, 3), (1, 3)]
    assert {axis.get_xlim() for axis in figure.axes} == {(0.5, 1.5)}
    assert [tick for tick in figure.axes[0].get_xticks() if 0.5 <= tick <= 1.5] == [1]


def test_a_shared_dataset_is_named_once(results: Path) -> None:
    figure = pr_plot(runs_of(results, datasets=["shapes"], methods=["wch"], unchanged=True)).figure
    assert (figure.get_suptitle(), titles_of(figure)) == ("shapes@default", ["16 bits", "32 bits"])


def test_a_loss_that_is_not_finite_leaves_a_gap(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    lines = (run.folder / "log.jsonl").read_text().splitlines()
    lines[3:6] = [json.dumps(json.loads(line) | {"balance": "nan"}) for line in lines[3:6]]
    (run.folder / "log.jsonl").write_text("\n".join(lines))
    data = training_plot([run]).data
    assert data[data["value"].isna()][["part", "epoch"]].to_numpy().tolist() == [["balance", 2]]


def test_the_map_that_selects_the_epoch_is_a_panel(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with (run.folder / "log.jsonl").open("a") as log:
        for epoch, value in ((1, 0.25), (3, 0.75)):
            line = {"epoch": epoch, "step": 9, "seconds": 1.0, "validation mAP@all": value}
            log.write(json.dumps(line) + "\n")
    data = training_plot([run]).data
    looks = data[data["part"] == "validation mAP@all"]
    assert looks[["epoch", "value"]].to_numpy().tolist() == [[2, 0.25], [4, 0.75]]


def test_codes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data = codes_plot(run).data
    with np.load(run.folder / "codes.npz") as file:
        query, database = (
            np.array([[int(word) >> bit & 1 for bit in range(16)] for (word,) in file[name]]) * 2 - 1
            for name in ("query_codes", "database_codes")
        )
        same = file["query_labels"][:, None] == file["database_labels"]
    balance = data[data["panel"] == "balance"]
    assert balance["bit"].tolist() == list(range(16))
    assert np.allclose(balance["value"], database.mean(axis=0))
    correlation = data[data["panel"] == "correlation"].pivot(index="bit", columns="other_bit", values="value")
    assert np.allclose(correlation, np.corrcoef(database.T))
    distances = (16 - query @ database.T) // 2
    for pairs, chosen in (("relevant", same), ("irrelevant", ~same)):
        found = data[(data["panel"] == "distances") & (data["pairs"] == pairs)]
        assert found["distance"].tolist() == list(range(17))
        assert np.allclose(found["value"], np.bincount(distances[chosen], minlength=17) / chosen.sum())


def test_dead_bits_have_no_correlation(plots: dict[str, Plot]) -> None:
    plot = plots["codes of bad"]
    correlation = plot.data[plot.data["panel"] == "correlation"]
    assert correlation["value"].notna().sum() == 1  # the first bit with itself
    assert plot.figure.axes[1].get_xlabel() == "Bit (orange: dead)"


def test_product_codes_have_no_distances(results: Path, plots: dict[str, Plot]) -> None:
    run, plot = runs_of(results, methods=["spq"], bits=[16])[0], plots["codes of spq"]
    assert set(plot.data["panel"]) == {"balance", "correlation"}
    assert plot.notes == ["product codes have no Hamming distances, so their distribution is not shown"]
    with np.load(run.folder / "codes.npz") as file:
        second = (file["database_codes"][:, 0] >> 1 & 1) * 2.0 - 1
    assert plot.data["value"][1] == pytest.approx(second.mean())


# Retrieval


def test_retrieval_by_hamming_distance(tmp_path: Path) -> None:
    dataset = make_dataset()
    run = make_run(tmp_path, dataset=dataset, noise=0.6)
    plot = retrieval_plot(run, dataset, "mAP@1000", queries=4, top=7)
    with np.load(run.folder / "codes.npz") as file:
        query, database = file["query_codes"][:, 0].tolist(), file["database_codes"][:, 0].tolist()
    with np.load(run.folder / "queries.npz") as file:
        values = file["AP@1000"]
    order = sorted(range(20), key=lambda index: -values[index])
    for place, (query_id, found) in zip((0, 6, 13, 19), plot.data.groupby("query", sort=False), strict=True):
        index = order[place]
        distances = [(query[index] ^ code).bit_count() for code in database]
        nearest = sorted(range(120), key=lambda item: (distances[item], item))[:7]
        assert query_id == dataset.query.images.ids[index]
        assert found["ap"].tolist() == [values[index]] * 7
        assert found["rank"].tolist() == list(range(1, 8))
        assert found["image"].tolist() == [dataset.database.images.ids[item] for item in nearest]
        assert found["distance"].tolist() == [distances[item] for item in nearest]
        relevant = dataset.database.labels[nearest] == dataset.query.labels[index]
        assert found["relevant"].tolist() == relevant.tolist()
    shown = [axis for axis in plot.figure.axes if axis.images]
    assert len(shown) == 4 * 8
    frames = {
        (axis.spines["left"].get_edgecolor(), axis.spines["left"].get_linestyle() == "-") for axis in shown
    }
    assert len(frames) == 3  # black, right, wrong
    assert {solid for _, solid in frames} == {True, False}
    assert "evenly spaced in their order by AP@1000" in " ".join(plot.figure.get_suptitle().split())


@pytest.mark.parametrize(("asked", "used"), [("mAP@all", "AP@all"), ("P@all", "AP@5"), ("mAP@7", "AP@5")])
def test_queries_are_ordered_by_the_metric(tmp_path: Path, asked: str, used: str) -> None:
    dataset = make_dataset()
    run = make_run(tmp_path, dataset=dataset, noise=0.6, evaluation={"k": [5, "all"]})
    plot = retrieval_plot(run, dataset, asked, queries=3, top=1)
    with np.load(run.folder / "queries.npz") as file:
        stored = {name: file[name].tolist() for name in ("AP@5", "AP@all")}
    shown = {}
    for name, values in stored.items():
        order = sorted(range(20), key=values.__getitem__, reverse=True)
        shown[name] = [order[0], order[10], order[19]]
    assert shown["AP@5"] != shown["AP@all"]
    assert plot.data["query"].tolist() == [dataset.query.images.ids[index] for index in shown[used]]
    assert plot.data["ap"].tolist() == [stored[used][index] for index in shown[used]]
    assert f"by {used} from best" in " ".join(plot.figure.get_suptitle().split())


def test_retrieval_by_product_codes(tmp_path: Path) -> None:
    dataset = make_dataset()
    run = make_run(tmp_path, dataset=dataset, product=True)
    data = retrieval_plot(run, dataset, "mAP@1000", queries=2, top=9).data
    with np.load(run.folder / "codes.npz") as file:
        books, codes, queries = (file[name] for name in ("codebooks", "database_codes", "query_codes"))
    for query_id, found in data.groupby("query", sort=False):
        vector = queries[dataset.query.images.ids.index(query_id)].reshape(4, 2)
        distances = [
            sum(np.linalg.norm(vector[book] - books[book, code[book]]) for book in range(4)) for code in codes
        ]
        assert np.allclose(found["distance"], sorted(distances)[:9], atol=1e-5)


def test_relevance_of_several_labels(tmp_path: Path) -> None:
    dataset = make_dataset()
    run = make_run(tmp_path, dataset=dataset)
    with np.load(run.folder / "codes.npz") as file:
        arrays = dict(file)
    for name in ("query_labels", "database_labels"):
        arrays[name] = np.eye(4, dtype=np.uint8)[arrays[name]]
        arrays[name][:, 3] = 1  # a label that all images have
    np.savez(run.folder / "codes.npz", **arrays)
    assert retrieval_plot(run, dataset, "mAP@all", 2, 3).data["relevant"].all()


def test_images_are_small(tmp_path: Path) -> None:
    dataset = make_dataset()
    dataset.database.images._array = np.zeros((120, 300, 200), np.uint8)  # type: ignore[attr-defined]
    run = make_run(tmp_path, dataset=dataset)
    plot = retrieval_plot(run, dataset, "mAP@all", 1, 1)
    assert plot.figure.axes[-1].images[0].get_array().shape == (96, 64, 3)


def test_queries_areevenly_spaced_among_those_that_count() -> None:
    values = np.array([0.5, np.nan, 0.9, 0.1, 0.5, 0.0])
    assert evenly_spaced(values, 3) == [2, 4, 5]
    assert evenly_spaced(values, 1) == [2]
    assert evenly_spaced(values, 9) == [2, 0, 4, 3, 5]  # all queries, equal ones in their order


def test_a_different_split_is_rejected(tmp_path: Path) -> None:
    run = make_run(tmp_path, dataset=make_dataset(seed=1))
    with pytest.raises(HashbenchError, match=f"not the data of {run.record.run_id}: expected"):
        retrieval_plot(run, make_dataset(), "mAP@all")


def test_queries_that_cannot_be_ordered_are_rejected(tmp_path: Path) -> None:
    dataset = make_dataset()
    run = make_run(tmp_path, dataset=dataset)
    (run.folder / "queries.npz").unlink()
    other = run.record.model_copy(update={"evaluator": VERSION + 1})
    message = (
        f"{run.record.run_id} has no AP of its queries by the installed evaluator; run it again with --force"
    )
    with pytest.raises(HashbenchError, match=message):
        retrieval_plot(StoredRun(other, run.folder), dataset, "mAP@all", 1, 1)


# Files


@pytest.mark.parametrize("suffix", ["pdf", "svg", "PNG"])
def test_the_same_records_give_the_same_bytes(cli: Callable[..., Any], results: Path, suffix: str) -> None:
    files = Path(f"first.{suffix}"), Path(f"second.{suffix}")
    command = ("plot", "bits", "--results", results, "--method", "lsh", "--output")
    matplotlib.rcParams["font.size"] = 20  # must have no effect
    try:
        done = cli(*command, files[0])
    finally:
        matplotlib.rcdefaults()
    assert (done.code, done.out) == (0, ""), done.err
    assert cli(*command, files[1]).code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    if suffix == "PNG":
        with Image.open(files[0]) as image:
            assert image.width == 3.3 * 300
            assert len(image.getcolors(10**6)) > 100
    else:
        assert (b"%PDF" if suffix == "pdf" else b"<svg") in files[0].read_bytes()[:600]


def test_rendering_a_plot_again_gives_the_same_bytes(results: Path) -> None:
    plot = pr_plot(runs_of(results, methods=["lsh"]))
    before = plot.render("svg")
    plot.render("pdf")
    assert plot.render("svg") == before


COMMANDS: Mapping[str, tuple[str, ...]] = {
    "pr": ("--method", "lsh", "--kind", "topn"),
    "bits": ("--metric", "P@all", "--dataset", "shapes"),
    "speed": ("--seed", "0", "--dataset", "shapes"),
    "training": ("--dataset", "photographs", "--bits", "16"),
    "codes": ("wch-shapes-16bit-seed2",),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_commands_write_plot_and_numbers(cli: Callable[..., Any], results: Path, kind: str) -> None:
    arguments = ("plot", kind, *COMMANDS[kind], "--results", results, "--output", "plot.svg")
    done = cli(*arguments, "--csv", "numbers.csv")
    assert done.code == 0, done.err
    assert {path.name for path in Path().iterdir()} == {"plot.svg", "numbers.csv"}
    assert len(pd.read_csv("numbers.csv")) > 4


def test_retrieval_command_takes_the_options_of_the_run(cli: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "wch", load_dataset("digits", seed=3))
    command = ("plot", "retrieval", run.folder, "--queries", 2, "--top", 3, "--output", "r.svg")
    for options, name in (((), "AP@1000"), (("--metric", "mAP@all"), "AP@all")):
        done = cli(*command, "--csv", "r.csv", *options)
        assert (done.code, done.out, done.err) == (0, "", "")
        found = pd.read_csv("r.csv")
        with np.load(run.folder / "queries.npz") as file:
            best, worst = file[name].max(), file[name].min()
        assert found["ap"].tolist() == pytest.approx([best] * 3 + [worst] * 3)
    assert Path("r.svg").stat().st_size > 10_000


def test_the_command_reports_what_the_plot_leaves_out(cli: Callable[..., Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", changes=LONG)
    make_run(tmp_path / "runs", changes=LONG, bits=32)
    make_run(tmp_path / "runs", "spq", changes=LONG, product=True)
    (run.folder.parent / ".wch-shapes-16bit-seed7-0a1b2c.0123abcd").mkdir()
    command = ("plot", "bits", "--metric", "P@H<=2", "--results", "runs")
    done = cli(*command, "--output", "p.svg", "--csv", "p.csv")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines() == [
        "hashbench: spq is left out where it has no P@H<=2",
        "hashbench: wch-shapes-16bit-seed7-0a1b2c has not finished and is left out",
        "hashbench: all runs (mutual_attention=false, patch_weighting=false)",
    ]
    assert pd.read_csv("p.csv")["label"].tolist() == ["wch", "wch"]


# Usage errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("pr", "--output", "pr.jpg"),
            "expected a name that ends in .pdf, .svg or .png, got pr.jpg",
        ),
        (("pr", "--method", "wich", "--output", "p.pdf"), "has no such run; no run has the method wich"),
        (
            ("bits", "--metric", "mAP@7", "--output", "p.pdf"),
            "no run has mAP@7; choose --metric from mAP@1000, mAP@all",
        ),
        (
            ("pr", "--method", "spq", "--kind", "radius", "--output", "p.pdf"),
            "there is nothing to draw; left out, since product codes have no Hamming radius: spq",
        ),
        (
            ("training", "--method", "lsh", "--output", "p.pdf"),
            "there is nothing to draw; left out, since they are fitted without epochs: lsh",
        ),
        (
            ("codes", "wch-shapes-16bit-seed9", "--output", "p.pdf"),
            "has no run 'wch-shapes-16bit-seed9'; `hashbench results",
        ),
        (("codes", "wch-shapes", "--output", "p.pdf"), "wch-shapes may be"),
    ],
)
def test_usage_errors_are_one_line(
    cli: Callable[..., Any], results: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = cli("plot", *arguments, "--results", results)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert list(Path().iterdir()) == []


def test_output_is_required(cli: Callable[..., Any]) -> None:
    done = cli("plot", "pr")
    assert done.code == 2
    assert "--output" in done.err


def test_missing_files_of_a_run(cli: Callable[..., Any], tmp_path: Path) -> None:
    dataset = load_dataset("digits")
    run, other = (make_run(tmp_path / "runs", name, dataset) for name in ("wch", "cibhash"))
    make_run(tmp_path / "runs", "wch", dataset, seed=1)  # no mean without the other seed
    for name, kind, target in (
        ("codes.npz", "codes", (run.folder,)),
        ("codes.npz", "retrieval", (run.folder,)),
    ):
        (run.folder / name).unlink(missing_ok=True)
        done = cli("plot", kind, *target, "--output", "p.pdf")
        assert (done.code, done.err.count("\n")) == (1, 1), done.err
        assert str(Path(run.folder.name, name)) in done.err
        assert "imported without their codes" in done.err
    for name, kind in (("curves.csv", "pr"), ("log.jsonl", "training")):
        (run.folder / name).unlink()  # an export may leave it out
        done = cli("plot", kind, "--results", "runs", "--output", "p.svg", "--csv", "p.csv")
        assert (done.code, done.err) == (0, f"hashbench: left out, since they have no {name}: wch\n")
        assert set(pd.read_csv("p.csv")["label"]) == {"cibhash"}
        (other.folder / name).unlink()
        done = cli("plot", kind, "--results", "runs", "--output", "none.svg")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert not Path("none.svg").exists()
        assert f"there is nothing to draw; left out, since they have no {name}: cibhash, wch" in done.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("curves.csv", "a,b\n1,2\n"),
        ("curves.csv", ""),
        ("curves.csv", "curve,at,precision,recall\nrank,1,half,0\n"),
        ("curves.csv", f"curve,at,precision,recall\nrank,{10**30},0,0\n"),
        ("log.jsonl", "{"),
        ("log.jsonl", "7"),
        ("log.jsonl", '{"epoch": 0, "loss": "high"}'),
    ],
)
def test_damaged_files_of_a_run_are_named(tmp_path: Path, name: str, content: str) -> None:
    run = make_run(tmp_path)
    (run.folder / name).write_text(content)
    make = pr_plot if name == "curves.csv" else training_plot
    with pytest.raises(HashbenchError, match=f"{run.folder.name}/{name} is damaged .*results verify"):
        make([run])


def test_incomparable_runs_are_rejected(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, "wch", make_dataset(seed=seed), seed=seed) for seed in (0, 1)]
    for make in (pr_plot, training_plot, lambda runs: bits_plot(runs)):
        with pytest.raises(UsageError, match="differ in more than the seed"):
            make(runs)


def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    write_output(tmp_path / "a", b"old")
    write_output(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    (tmp_path / "folder").mkdir()
    for name, error, message in (
        ("folder", HashbenchError, r" \(.*\); choose another path$"),
        ("none/a", UsageError, f": the folder {tmp_path / 'none'} does not exist$"),
    ):
        with pytest.raises(HashbenchError, match=f"{name} cannot be written{message}") as raised:
            write_output(tmp_path / name, b"new")
        assert raised.type is error
    assert {path.name for path in tmp_path.iterdir()} == {"a", "folder"}
