"""Tests of tables: the figures of the records, in every format."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.given_runs import given_run

from hashbench import HashbenchError
from hashbench.report.aggregate import cells
from hashbench.report.page.page import TEMPLATES
from hashbench.report.tables import published
from hashbench.report.tables.csv_tables import csv_text
from hashbench.report.tables.latex import latex
from hashbench.report.tables.ranking import rank_cells
from hashbench.report.tables.result_table import result_table
from hashbench.report.tables.table import ColumnHeader, Table, TableCell, markdown
from hashbench.results.query import RunFilter
from hashbench.results.selection import select

GOLDEN = Path(__file__).parents[1] / "golden"
LATIN = (0.1, 0.9) * 20  # mean 0.5


def shifted(by: float) -> list[float]:
    return [value + by for value in LATIN]


def wobbling(by: float) -> list[float]:
    """Return values with the mean of `shifted`, whose differences from it vary over the queries."""
    return [value + by + (-0.01 if index % 2 else 0.01) for index, value in enumerate(LATIN)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Create runs in which wch is best, spq is level with it at 16 bits, and itq is below."""
    folder = tmp_path / "results" / "runs"
    for seed, gain in enumerate((0.0, 0.02, 0.04)):
        given_run(folder, "wch", shifted(gain), seed=seed)
        given_run(folder, "spq", [*shifted(gain + 0.3)[:20], *shifted(gain - 0.31)[20:]], seed=seed)
        given_run(folder, "itq", wobbling(gain - 0.1), seed=seed)
        given_run(folder, "wch", shifted(gain + 0.0512345), bits=32, seed=seed)
        given_run(folder, "itq", wobbling(gain - 0.05), bits=32, seed=seed)
    given_run(folder, "l_sh", wobbling(-0.2))
    return folder


def test_the_table_equals_the_one_made_by_hand(cli: Callable[..., Any], results: Path) -> None:
    done = cli("table", "--dataset", "digits")
    assert done.code == 0, done.err
    assert done.out == (GOLDEN / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_table_can_be_written_to_a_file(
    cli: Callable[..., Any], results: Path, tmp_path: Path, form: str
) -> None:
    command = ("table", "--dataset", "digits", "--format", form)
    shown, written = cli(*command), cli(*command, "--output", tmp_path / "table")
    assert (written.code, written.out) == (0, "")
    assert (tmp_path / "table").read_text(encoding="utf-8") == shown.out
    assert cli(*command, "--output", tmp_path / "none" / "table").code == 2


def test_the_latex_table_equals_the_one_made_by_hand(cli: Callable[..., Any], results: Path) -> None:
    done = cli("table", "--dataset", "digits", "--format", "latex", "--bounds")
    assert done.code == 0, done.err
    assert done.out == (GOLDEN / "table.tex").read_text(encoding="utf-8")


def test_csv_has_every_digit(cli: Callable[..., Any], results: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(cli("table", "--format", "csv").out)))
    by = {(line["method"], line["bits"]): line for line in lines}
    line = by["wch", "32"]
    assert float(line["mean"]) == pytest.approx(0.5 + 0.02 + 0.0512345, abs=1e-15)
    assert float(line["std"]) == pytest.approx(0.02)
    assert (line["kind"], line["seeds"], line["place"], line["p"]) == ("measured", "0 1 2", "1", "")
    line = by["itq", "32"]
    assert float(line["best_minus_this"]) == pytest.approx(0.1012345)
    assert 0.095 < float(line["interval_low"]) < 0.1012345 < float(line["interval_high"]) < 0.107
    assert (float(line["p"]), line["test"], line["untested"]) == (pytest.approx(2 / 10_001), "bootstrap", "")
    assert line["code_versions"] == "1"
    out = cli("table", "--format", "csv", "--test", "permutation").out
    by = {(line["method"], line["bits"]): line for line in csv.DictReader(io.StringIO(out))}
    assert (float(by["itq", "32"]["p"]), by["itq", "32"]["test"]) == (
        pytest.approx(2 / 10_001),
        "permutation",
    )
    assert float(by["spq", "16"]["p"]) > 0.05
    assert float(by["itq", "16"]["lowest"]) == pytest.approx(0.42 - 0.05)
    assert len(lines) == 6


def test_marks(results: Path) -> None:
    marks, _ = rank_cells(cells(select(results, RunFilter(), "mAP@all").runs)).values()
    assert {label: m.rank for label, m in marks.items()} == {"wch": 1, "spq": 2, "itq": 0, "l_sh": 0}
    assert {label for label, m in marks.items() if m.level_with_best} == {"spq"}
    assert marks["wch"].from_best is None
    assert marks["itq"].from_best is not None
    assert marks["itq"].from_best.mean == pytest.approx(0.1)


def test_equal_means_share_a_rank(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, name, LATIN) for name in ("a", "b")]
    runs.append(given_run(tmp_path, "c", shifted(-0.1)))
    runs.append(given_run(tmp_path, "d", [value - 1e-15 for value in LATIN]))  # as another NumPy may add
    (marks,) = rank_cells(cells(runs)).values()
    assert [m.rank for m in marks.values()] == [1, 1, 2, 1]
    assert not marks["d"].level_with_best
    assert marks["d"].from_best.untested == "the difference is the same for every query"
    (marks,) = rank_cells(cells(runs[:1])).values()
    assert marks["a"].rank == 0  # not ranked if it is the only one


def test_means_are_tested_over_the_common_seeds(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, "a", shifted(gain), seed=seed) for seed, gain in enumerate((0.0, 0.1, 0.2))]
    runs.append(given_run(tmp_path, "b", wobbling(0.2), seed=2))
    (marks,) = rank_cells(cells(runs)).values()
    assert (marks["b"].rank, marks["a"].rank) == (1, 2)
    assert marks["a"].from_best.mean == 0  # on seed 2 they are the same on average
    assert marks["a"].level_with_best


def test_a_cell_that_is_ahead_on_the_common_seeds_is_level(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, "a", shifted(0.3))]
    runs += [
        given_run(tmp_path, "b", wobbling(gain), seed=seed) for seed, gain in enumerate((0.35, 0.0, 0.0))
    ]
    (marks,) = rank_cells(cells(runs)).values()
    assert (marks["a"].rank, marks["b"].rank) == (1, 2)
    assert marks["b"].from_best.highest < 0
    assert marks["b"].level_with_best


def test_unfinished_runs_of_a_new_length_are_one_column(cli: Callable[..., Any], results: Path) -> None:
    for name, changes in (("a", {}), ("b", {"x": 1}), ("c", {"x": 2})):
        folder = results / "digits@default" / name / "128bit" / f".{name}-digits-128bit-seed0-x.01234567"
        folder.mkdir(parents=True)
        (folder / "started.json").write_text(json.dumps(changes))
    out = cli("table").out
    assert out.count("128 bits") == 1
    assert cli("table", "--ablation").err.startswith("hashbench: a-digits-128bit-seed0-x has not finished")
    assert "b (x=1)" not in cli("table", "--unchanged").out


def test_runs_of_another_version_of_the_code_are_not_unfinished(
    cli: Callable[..., Any], results: Path
) -> None:
    folder = results / "digits@default" / "wch" / "16bit" / ".wch-digits-16bit-seed1-old.01234567"
    folder.mkdir()
    (folder / "started.json").write_text("{}")
    assert "§" not in cli("table").out


def test_a_figure_without_values_of_queries_is_not_tested(tmp_path: Path) -> None:
    runs = [given_run(tmp_path, "a", LATIN, seed=seed) for seed in (0, 1)]
    runs += [given_run(tmp_path, name, shifted(-0.1)) for name in ("b", "c")]
    (runs[1].folder / "queries.npz").unlink()
    (marks,) = rank_cells(cells([runs[0], *runs[2:]])).values()
    assert marks["c"].from_best is not None
    (marks,) = rank_cells(cells(runs)).values()
    assert [m.from_best for m in marks.values()] == [None, None, None]
    (runs[3].folder / "queries.npz").unlink()
    (marks,) = rank_cells(cells([runs[0], *runs[2:]])).values()
    assert (marks["b"].from_best is None, marks["c"].from_best is None) == (False, True)


def test_untestable_cells_are_marked_and_neither_level_nor_below(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "runs"
    few = "¶ not tested against the best of its column: 19 queries, fewer than 20."
    same = "¶ not tested against the best of its column: the difference is the same for every query."
    for bits, queries in ((16, 1), (32, 19), (48, 20)):
        # Splits of several sizes stand for datasets of several sizes.
        place = {"dataset": f"of{queries}", "sha256": str(queries), "bits": bits}
        given_run(folder, "a", shifted(0.1)[:queries], **place)
        given_run(folder, "b", wobbling(0)[:queries], **place)
    given_run(folder, "c", shifted(0)[:20], **place)
    out = cli("table").out
    assert re.search(r"\| b +\| +_0.110_ ¶ \| +_0\.\d{3}_ ¶ \| +_0.500_ \|", out)
    assert re.search(r"\| c .*\| +_0.500_ ¶ \|", out)
    assert few in out
    assert few.replace("19", "1") in out
    assert same in out
    assert "≈" not in out
    tex = cli("table", "--format", "latex").out
    assert r"\textsuperscript{\P{}}" in tex
    assert tex.count(r"\P{} not tested against the best") == 3
    lines = csv.DictReader(io.StringIO(cli("table", "--dataset", "of1", "--format", "csv").out))
    (line,) = [line for line in lines if line["method"] == "b"]
    assert float(line["best_minus_this"]) == pytest.approx(0.09)
    assert (line["interval_low"], line["interval_high"], line["p"]) == ("", "", "")
    assert line["untested"] == "1 queries, fewer than 20"


def test_the_chosen_test_decides_what_is_level(cli: Callable[..., Any], results: Path) -> None:
    out = cli("table", "--test", "permutation").out
    assert "_0.515_ ± 0.020 ≈" in out
    assert out.count("≈") == 2
    assert "≈ not distinguishable from the best of its column (paired permutation test over the" in out
    wrong = cli("table", "--test", "student")
    assert wrong.code == 2


def test_seeds_of_several_versions_of_the_code_are_marked(cli: Callable[..., Any], results: Path) -> None:
    given_run(results, "sh", wobbling(-0.1), source="0")
    for seed in (1, 2):
        given_run(results, "sh", wobbling(-0.1), seed=seed, source="1")
    note = (
        "sh, digits@default, 16 bits: its seeds were run by different versions of the source code "
        "(2 of them)."
    )
    out = cli("table", "--bits", "16").out
    assert "| sh       |   0.400 ± 0.000 ‖ |" in out
    assert f"‖ {note}" in out
    assert out.count("‖") == 2
    tex = cli("table", "--bits", "16", "--format", "latex").out
    assert r"{\footnotesize $\pm$ 0.000}\textsuperscript{$\|$}" in tex
    assert rf"$\|$ {note}" in tex
    lines = csv.DictReader(io.StringIO(cli("table", "--bits", "16", "--format", "csv").out))
    assert {line["method"]: line["code_versions"] for line in lines}["sh"] == "2"
    elements = TEMPLATES.get_template("elements.html").module
    page = elements.metric_table("", result_table(select(results, RunFilter(), "mAP@all")))
    assert "<sup>‖</sup>" in page
    assert f"‖ {note}" in page


def test_runs_that_count_different_queries_are_rejected(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    given_run(folder, "a", [float("nan"), *LATIN], no_relevant="skip")
    other = given_run(folder, "b", [*LATIN, float("nan")], no_relevant="skip")
    done = cli("table")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert (
        f"{other.folder.relative_to(tmp_path)}/queries.npz: the AP of 1 queries is NaN, expected that of the "
        in done.err
    )


def test_the_caption_names_the_divisor(cli: Callable[..., Any], tmp_path: Path) -> None:
    given_run(tmp_path, "wch", [0.5, 0.6], denominator="all_relevant")
    assert "; AP@K divides by all relevant; backbone resnet18" in cli("table", "--results", tmp_path).out


def test_collapsed_codes_are_marked_and_not_ranked(cli: Callable[..., Any], results: Path) -> None:
    given_run(results, "dead", shifted(0.4), collapsed=True)
    given_run(results, "dead", shifted(0.4), seed=1)
    done = cli("table", "--bits", "16")
    assert "| dead     |  0.900 ± 0.000 ‡† |" in done.out
    assert "‡ dead, digits@default, 16 bits: codes collapsed (seed 0); not ranked." in done.out
    assert "† dead, digits@default, 16 bits: seed 0, 1; tested over the seeds that it shares" in done.out
    assert "**0.520** ± 0.020" in done.out
    assert "\\textsuperscript{$\\ddagger$$\\dagger$}" in cli("table", "--bits", "16", "--format", "latex").out


def test_unfinished_runs_are_marked(cli: Callable[..., Any], results: Path) -> None:
    for name, bits, changes in (("wch", 32, {}), ("wch", 16, {"hyperparameters.x": 1}), ("sh", 64, {})):
        folder = (
            results / "digits@default" / name / f"{bits}bit" / f".{name}-digits-{bits}bit-seed3-x.01234567"
        )
        folder.mkdir(parents=True)
        (folder / "started.json").write_text(json.dumps(changes))
    out = cli("table").out
    assert "**0.571** ± 0.020 §" in out
    assert "**0.520** ± 0.020 |" in out  # the other settings of wch have a separate row
    assert re.search(r"\| wch \(x=1\) *\| *– § \|", out)
    assert (
        "§ wch, seed 3: not finished: failed, stopped, or still running; if it is not wanted, delete " in out
    )
    assert "64 bits" in out
    assert "unfinished,sh,digits,default,64," in cli("table", "--format", "csv").out.replace(",,", ",")
    (
        results / "digits@default" / "wch" / "32bit" / ".wch-digits-32bit-seed3-x.01234567" / "started.json"
    ).unlink()
    assert "wch (settings not recorded)" in cli("table").out


def test_incomparable_runs_are_left_out_and_named(cli: Callable[..., Any], results: Path) -> None:
    table = cli("table").out
    given_run(results, "sh", LATIN, sha256="bb")
    done = cli("table")
    said = "since split.sha256 is bb and not aa; --where split.sha256=bb selects such runs"
    assert done.code == 0
    assert said in done.err
    assert said in done.out
    assert done.out.splitlines()[:8] == table.splitlines()[:8]
    assert "| sh " in cli("table", "--where", "split.sha256=bb").out


def test_methods_are_ranked_within_a_backbone(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    large = {"name": "vgg16"}
    given_run(folder, "a", wobbling(0.0))
    given_run(folder, "b", [value - (0.15 if index % 4 else -0.05) for index, value in enumerate(LATIN)])
    given_run(folder, "c", shifted(0.1), backbone=large)
    given_run(folder, "d", wobbling(0.05), backbone=large)
    done = cli("table")
    assert "Best of the methods with the same backbone and image size bold, second underlined." in done.out
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in done.out.splitlines()[2:8]]
    assert rows[0] == ["method", "backbone", "16 bits"]
    assert rows[2:] == [
        ["a", "resnet18, 224 px", "**0.500**"], ["b", "resnet18, 224 px", "_0.400_"],
        ["c", "vgg16, 224 px", "**0.600**"], ["d", "vgg16, 224 px", "_0.550_"],
    ]  # fmt: skip
    across = cli("table", "--across-backbones").out
    assert "Best bold, second underlined." in across
    assert [line.split("|")[3].strip() for line in across.splitlines()[4:8]] == [
        "0.500", "0.400", "**0.600**", "_0.550_",
    ]  # fmt: skip
    one = cli("table", "--backbone", "vgg16")
    assert "; backbone vgg16, 224 px. Best bold" in one.out
    assert "| backbone" not in one.out
    lines = list(csv.DictReader(io.StringIO(cli("table", "--format", "csv").out)))
    assert [(line["method"], line["backbone"], line["place"]) for line in lines] == [
        ("a", "resnet18, 224 px", "1"), ("b", "resnet18, 224 px", "2"),
        ("c", "vgg16, 224 px", "1"), ("d", "vgg16, 224 px", "2"),
    ]  # fmt: skip
    assert "no run has the backbone vgg" in cli("table", "--backbone", "vgg").err


def test_collections_of_own_images_are_columns(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    for name, sha256 in (("birds", "aa"), ("cars", "bb")):
        given_run(folder, "wch", LATIN, dataset="folder", collection=name, sha256=sha256, suffix=name)
    done = cli("table")
    assert (done.code, done.err) == (0, "")
    assert "| method   |   folder (birds)@default 16 bits |   folder (cars)@default 16 bits |" in done.out


def test_several_datasets_are_columns(cli: Callable[..., Any], results: Path) -> None:
    given_run(results, "wch", LATIN, dataset="coco", sha256="bb")
    out = cli("table").out
    assert "coco@default 16 bits" in out
    assert "digits@default 32 bits" in out
    tex = cli("table", "--format", "latex").out
    assert r" & \multicolumn{1}{c}{coco@default} & \multicolumn{2}{c}{digits@default} \\" in tex
    assert r"\cmidrule(lr){2-2}\cmidrule(lr){3-4}" in tex


def test_columns_go_from_short_codes_to_long_ones(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    given_run(folder, "a", LATIN, bits=64)
    for bits in (16, 32, 64):
        given_run(folder, "b", LATIN, bits=bits)
        given_run(folder, "b", LATIN, bits=bits, dataset="coco", sha256="bb")
    head = cli("table").out.splitlines()[2]
    assert re.findall(r"(\w+)@default (\d+)", head) == [
        (name, bits) for name in ("coco", "digits") for bits in ("16", "32", "64")
    ]
    head = cli("table", "--dataset", "digits,coco").out.splitlines()[2]
    assert re.findall(r"(\w+)@default", head) == ["digits"] * 3 + ["coco"] * 3


def test_settings_that_all_rows_share_are_in_the_caption(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder, fast = tmp_path / "results" / "runs", {"training.epochs": 1, "images.size": 32}
    given_run(folder, "a", LATIN, changes=fast)
    given_run(folder, "b", LATIN, changes=fast | {"hyperparameters.x": 2})
    out = cli("table").out
    assert "All runs (epochs=1, images.size=32)." in out
    assert re.findall(r"^\| (\S.*?) +\|", out, re.MULTILINE)[1:] == ["a", "b (x=2)"]


def test_a_method_that_lacks_the_metric_is_left_out_and_named(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "runs"
    given_run(folder, "a", LATIN, metrics=["mAP@all", "P@H<=2"])
    given_run(folder, "spq", LATIN)
    done = cli("table", "--metric", "P@H<=2")
    assert done.code == 0
    assert "spq is left out where it has no P@H<=2" in done.err
    assert "| spq" not in done.out
    done = cli("table", "--metric", "mAP@7")
    assert (done.code, done.err) == (
        2,
        "hashbench: error: no run has mAP@7; choose --metric from mAP@all, P@H<=2\n",
    )


def test_unanswerable_queries_are_in_the_caption(cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "results" / "runs"
    given_run(folder, "a", [*LATIN, float("nan")], no_relevant="skip")
    assert "1 queries without anything relevant are left out" in cli("table").out


def test_another_metric_has_no_tests_of_queries(cli: Callable[..., Any], tmp_path: Path) -> None:
    given_run(tmp_path / "results/runs", "wch", LATIN, metrics=["mAP@all", "P@H<=2"])
    given_run(tmp_path / "results/runs", "itq", shifted(0.1), metrics=["mAP@all", "P@H<=2"])
    out = cli("table", "--metric", "P@H<=2").out
    assert "P@H<=2, expectation" in out
    assert "divides by" not in out
    assert "**0.600**" in out
    assert "≈" not in out
    assert "Differences are not tested; those of mAP are." in out
    assert "P@H$<$=2" in cli("table", "--metric", "P@H<=2", "--format", "latex").out


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_special_characters_break_no_format(form: str) -> None:
    nasty = r"a|b & 50% of $x_1 \ {y} #~^ <z>"
    grid = Table(nasty, nasty, [ColumnHeader(nasty, nasty)], [(nasty, [TableCell(nasty, nasty, 1)])], [nasty])
    if form == "markdown":
        lines = [line for line in markdown(grid).splitlines() if line.startswith("|")]
        assert [line.replace(r"\|", "").count("|") for line in lines] == [3, 3, 3]
    else:
        assert r"a|b \& 50\% of \$x\_1 \textbackslash{} \{y\} \#\textasciitilde{}\textasciicircum{}" in latex(
            [grid]
        )


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex")
def test_latex_compiles(cli: Callable[..., Any], results: Path, tmp_path: Path) -> None:
    given_run(
        results, "dead", shifted(0.4), collapsed=True, changes={"backbone.name": "a_very_long_name" * 4}
    )
    (results / "digits@default" / "wch" / "32bit" / ".wch-digits-32bit-seed3-x.01234567").mkdir()
    compile_tex(tmp_path, cli("table", "--format", "latex", "--bounds", "--published").out)


def compile_tex(folder: Path, text: str) -> None:
    """Compile a document, and check that nothing is wider than its line or higher than its page."""
    file = folder / "table.tex"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", file.name],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert "too large" not in done.stdout
    assert file.with_suffix(".pdf").stat().st_size > 1000


WIDE = Table(
    "Many columns.",
    "method",
    [
        ColumnHeader(f"{bits} bits", f"dataset{number}@default")
        for number in range(5)
        for bits in (16, 32, 64)
    ],
    [(f"method {row}", [TableCell("0.123", "± 0.012", 1, "≈", "[0.100, 0.200]")] * 15) for row in range(30)],
    ["A note."],
)


def test_large_tables_are_split_and_never_small() -> None:
    tex = latex([WIDE])
    assert "resizebox" not in tex
    assert not {"scriptsize", "tiny"} & set(tex.replace("{", "\\").split("\\"))
    tabulars = tex.split(r"\begin{tabular}")[1:]
    figures = [tabular.count("0.123") for tabular in tabulars]
    assert sum(figures) == 15 * 30
    assert all(tabular.splitlines()[0].count("c") <= 5 for tabular in tabulars)
    assert all(
        tabular.count("method ") == 1 + tabular.count("[0.100") // tabular.splitlines()[0].count("c")
        for tabular in tabulars
    )
    assert tex.count(r"\caption") == tex.count("A note.") == 1  # with the first page, and with the last
    assert tex.count(r"\begin{table}") == tex.count("(continued)") + 1 > 1


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no pdflatex")
def test_large_tables_compile(tmp_path: Path) -> None:
    bracketed = replace(WIDE, rows=[(f"[{label}]", cells) for label, cells in WIDE.rows])
    compile_tex(tmp_path, latex([WIDE, bracketed]))


def test_latex_is_balanced(cli: Callable[..., Any], results: Path) -> None:
    """Checks that need no LaTeX."""
    tex = cli("table", "--format", "latex").out
    for environment in ("document", "table", "tabular"):
        assert tex.count(f"\\begin{{{environment}}}") == tex.count(f"\\end{{{environment}}}") == 1
    plain = tex.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    rows = [line for line in tex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {row.count("&") for row in rows} == {2}


def test_published_figures_are_separate(cli: Callable[..., Any], results: Path) -> None:
    given_run(results, "wch", LATIN, dataset="cifar10", sha256="bb")
    done = cli("table", "--dataset", "cifar10", "--published")
    assert done.code == 0, done.err
    rows = {line.split("|")[1].strip(): line for line in done.out.splitlines() if line.startswith("|")}
    assert "cifar10, printed [a] 16 bits" in rows["method"]
    assert [cell.strip() for cell in rows["wch"].split("|")] == ["", "wch", "0.500", "0.897", "–", "–", ""]
    assert "0.690" in rows["MeCoQ (AAAI 2022)"]
    assert "0.768" in rows["SPQ (ICCV 2021)"]
    assert "**" not in done.out  # printed figures are not ranked
    assert "[a] as printed in Table 1 of Weighted Contrastive Hashing (ACCV 2022)" in done.out
    assert "BiHalf: printed as MBE in that table." in done.out
    assert "printed" not in cli("table", "--dataset", "cifar10").out
    assert "SPQ" not in cli("table", "--method", "wch", "--dataset", "cifar10", "--published").out
    done = cli("table", "--dataset", "digits", "--published")
    assert "there are no printed figures for these datasets and code lengths, only for cifar10" in done.err
    tex = cli("table", "--dataset", "cifar10", "--published", "--format", "latex").out
    assert r"\begin{tabular}{lc@{\hspace{2em}}c}" in tex
    lines = list(csv.DictReader(io.StringIO(cli("table", "--published", "--format", "csv").out)))
    (line,) = [line for line in lines if line["method"] == "WCH" and line["kind"] == "published"]
    assert (line["dataset"], line["bits"], line["mean"]) == ("cifar10", "16", "0.897")


def test_a_spreadsheet_takes_no_text_for_a_formula(cli: Callable[..., Any], results: Path) -> None:
    (results.parent / "published").mkdir()
    (results.parent / "published/mine.csv").write_text(
        "method,year,venue,dataset,bits,map,source,note\n@X,2026,mine,digits,16,0.9,=HYPERLINK(A1),-1+1\n"
    )
    out = cli("table", "--published", "--dataset", "digits", "--bits", "16", "--format", "csv").out
    *measured, printed = csv.DictReader(io.StringIO(out))
    assert [printed[key] for key in ("method", "source", "note")] == ["'@X", "'=HYPERLINK(A1)", "'-1+1"]
    assert min(float(line["best_minus_this"] or 0) for line in measured) == 0
    assert csv_text([{"a": -1.5, "b": -2, "c": "+1", "d": "\t=", "e": "a=b", "f": None}]).splitlines() == [
        "a,b,c,d,e,f",
        "-1.5,-2,'+1,'\t=,a=b,",
    ]


def test_the_included_published_figures_are_valid() -> None:
    figures = published.read_published(Path("none"), RunFilter())
    assert len(figures) == 147 + 12 + 10
    assert {f.dataset for f in figures} == {"cifar10", "nuswide", "coco", "flickr25k", "imagenet100"}
    keys = [(figure.method, figure.dataset, figure.bits, figure.source) for figure in figures]
    assert len(set(keys)) == len(keys)


def test_published_figures_of_the_user_are_read(cli: Callable[..., Any], results: Path) -> None:
    folder = results.parent / "published"
    folder.mkdir()
    file = folder / "mine.csv"
    head = "method,year,venue,dataset,bits,map,source,note\n"
    file.write_text(f"{head}WCH,2026,mine,digits,16,0.9,Table 9 of mine,\n", encoding="utf-8")
    assert "Table 9 of mine" in cli("table", "--published").out
    file.write_text(f"{head}WCH,2026,mine,digits,16,90,Table 9 of mine,\n", encoding="utf-8")
    done = cli("table", "--published")
    assert done.code == 1
    assert f"{file}, line 2, map: " in done.err
    line = "WCH,2026,mine,digits,16,0.9,Table 9 of mine,\n"
    file.write_text(f"\ufeff{head}{line}", encoding="utf-8")  # as spreadsheets write it
    assert cli("table", "--published").code == 0
    file.write_text(f"{head}{line}{line}", encoding="utf-8")
    assert "line 3: an earlier line has the same method" in cli("table", "--published").err
    file.write_text(f"{head}{line[:-1]},x\n", encoding="utf-8")
    assert "line 2: the line has more columns than the header" in cli("table", "--published").err
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(HashbenchError, match="cannot be read"):
        published.read_published(results, RunFilter())
