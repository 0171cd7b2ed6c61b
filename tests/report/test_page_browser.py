"""Tests of the HTML page in Chromium: layout at two widths, filter, charts, keyboard and details of runs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import AVAILABLE, Browser, browser
from helpers.fake_runs import make_run

import hashbench
from hashbench.report.page.page import TEMPLATES, html_page
from hashbench.report.tables.table import ColumnHeader, Table, TableCell
from hashbench.results.query import RunFilter
from hashbench.results.selection import select

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="there is no chromium with chromedriver")

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "records"
NASTY = "</script><script>document.title = 1</script>"
# Texts that are cut off, outside of boxes that scroll; a wide page counts as one.
CUT = """
const page = document.documentElement;
const cut = page.scrollWidth > page.clientWidth ? [`page ${page.scrollWidth}`] : [];
const names = "h1, h2, h3, h4, h5, p, li, figure, article, form, td, th, dd, .plot, .strip";
for (const one of document.querySelectorAll(names)) {
  if (one.closest("table") && !one.closest(".confused, .panel")) continue;
  if (one.clientWidth && one.scrollWidth > one.clientWidth + 1) cut.push(`${one.tagName} ${one.textContent}`);
}
return cut;
"""


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("chrome")) as session:
        yield session


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page about 11 runs of 4 methods on 2 datasets, with images, a collapse and hostile names."""
    folder = tmp_path_factory.mktemp("page")
    digits = hashbench.load_dataset("digits")
    for method, noise in (("wch", 0.2), ("itq", 0.5)):
        for bits in (16, 32):
            make_run(folder / "runs", method, digits, bits=bits, noise=noise, fitted=method == "itq")
            make_run(folder / "runs", method, bits=bits, noise=noise, fitted=method == "itq")
    make_run(folder / "runs", "spq", digits, bits=16, noise=0.1, seed=1)
    make_run(folder / "runs", "spq", digits, bits=16, changes={"backbone.name": NASTY})
    make_run(folder / "runs", "dead", digits, bits=16, collapsed=True)
    return write_page(folder, folder / "runs", {"digits@default": digits, "shapes@default": "there is none"})


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the reference records."""
    reasons = dict.fromkeys(("digits@default", "fashionmnist@small"), "there is none")
    return write_page(tmp_path_factory.mktemp("reference"), REFERENCE, reasons)


def write_page(folder: Path, results: Path, datasets: dict[str, Any]) -> Path:
    text = html_page(select(results, RunFilter(), None), datasets, queries=2)
    (folder / "report.html").write_text(text, encoding="utf-8")
    return folder / "report.html"


def rows(chrome: Browser) -> list[str]:
    """Return the names of the runs that the table shows."""
    found: list[str] = chrome.run(
        "return [...document.querySelectorAll('#runs-body > tr:not([hidden]):not(.details) th')]"
        ".map((cell) => cell.textContent)"
    )
    return found


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_is_cut_off(chrome: Browser, page: Path, width: int, scheme: str) -> None:
    chrome.open(page, width, scheme=scheme)
    chrome.run("dispatchEvent(new Event('beforeprint')); document.querySelector('#runs-body button').click()")
    assert chrome.run("document.querySelectorAll('details').forEach((one) => one.open = true);" + CUT) == []
    wide = "return [...document.querySelectorAll('.scroll')].map((box) => box.scrollWidth > box.clientWidth)"
    hints = "return [...document.querySelectorAll('.scroll')].map((box) => box.matches('.more'))"
    assert chrome.run(wide) == chrome.run(hints)
    assert any(chrome.run(wide)) == (width == 390)
    assert chrome.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 28)"
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_the_reference_records_fit(chrome: Browser, reference: Path, width: int) -> None:
    chrome.open(reference, width)
    chrome.run("dispatchEvent(new Event('beforeprint'))")
    assert chrome.run(CUT) == []
    box = "const box = document.querySelector('#runs .scroll'); return box.scrollWidth > box.clientWidth"
    assert chrome.run(box) == (width == 390)


def test_names_cannot_break_out(chrome: Browser, page: Path) -> None:
    assert "</script><script>" not in page.read_text(encoding="utf-8")
    chrome.open(page)
    chrome.run("document.querySelectorAll('#runs-body button').forEach((button) => button.click())")
    assert chrome.run("return document.title") == "mAP@1000 on digits@default, shapes@default"
    commands: list[str] = chrome.run(
        "return [...document.querySelectorAll('.command code')].map((code) => code.textContent)"
    )
    assert sum(NASTY in command for command in commands) == 1


def test_filter_by_keyboard(chrome: Browser, page: Path) -> None:
    chrome.open(page)
    count = "return document.querySelector('#filter output').textContent"
    assert (chrome.run(count), len(rows(chrome))) == ("11 of 11 runs shown", 11)
    chrome.run("document.querySelector('#filter input[value=itq]').focus()")
    chrome.press("Space")
    assert (chrome.run(count), set(rows(chrome))) == ("4 of 11 runs shown", {"itq"})
    chrome.run("document.querySelector('#filter input[value=\"32 bits\"]').focus()")
    chrome.press("Space")
    assert (chrome.run(count), rows(chrome)) == ("2 of 11 runs shown", ["itq", "itq"])
    cells = chrome.run("""
    return [...document.querySelectorAll("#results tbody tr:not([hidden])")].map((row) =>
      [...row.cells].filter((cell) => !cell.hidden && cell.dataset.cell).map((cell) => cell.dataset.cell));
    """)
    assert len(cells) == 2
    assert [len(row) for row in cells] == [1, 1]
    titles = chrome.run("""dispatchEvent(new Event("beforeprint"));
    return [...document.querySelectorAll("#curves .plot:not([hidden]) .title")].map((t) => t.textContent);""")
    assert set(titles) == {
        "digits@default, 32 bits", "shapes@default, 32 bits", "digits@default", "shapes@default",
    }  # fmt: skip
    assert chrome.run("return document.querySelectorAll('#training details:not([hidden])').length") == 0
    chrome.run("document.querySelector('#filter button').focus()")
    chrome.press("Enter")
    assert chrome.run(count) == "11 of 11 runs shown"


def test_the_pointer_and_the_keys_read_a_curve(chrome: Browser, page: Path) -> None:
    chrome.open(page)
    chrome.run("document.querySelector('.plot').scrollIntoView({block: 'center'})")
    chrome.devtools("Runtime.evaluate", expression="new Promise(requestAnimationFrame)", awaitPromise=True)
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))[0])
    chart = data["charts"][0]
    panel = chart["panels"][0]
    line = next(one for one in panel["lines"] if chart["lines"][one["line"]]["name"] == "wch")
    at = len(line["x"]) // 2
    box = chrome.run("return document.querySelector('.plot svg').getBoundingClientRect().toJSON()")
    scale = box["width"] / 360
    x = box["x"] + scale * (48 + 300 * line["x"][at])
    y = box["y"] + scale * (230 - 204 * line["y"][at])
    tip = "const tip = document.querySelector('.tip'); return tip.hidden ? '' : tip.textContent"
    chrome.point(x, y)
    name, recall, precision, rank = chrome.run(tip).split("\n")
    assert name == "wch"
    assert abs(float(recall.split()[1]) - line["x"][at]) < 0.02
    assert abs(float(precision.split()[1]) - line["y"][at]) < 0.02
    assert rank.startswith("rank ")
    chrome.point(2, 2)
    assert chrome.run(tip) == ""

    chrome.run("document.querySelector('.legend button:last-child').focus()")
    chrome.press("Tab")  # from the legend into the first panel
    first = chrome.run(tip)
    assert first
    chrome.press("ArrowRight")
    second = chrome.run(tip)
    assert second.split("\n")[0] == first.split("\n")[0]
    assert float(second.split("\n")[1].split()[1]) > float(first.split("\n")[1].split()[1])
    chrome.press("ArrowDown")
    assert chrome.run(tip).split("\n")[0] != first.split("\n")[0]
    chrome.press("Escape")
    assert chrome.run(tip) == ""


def test_the_legend_toggles_a_line(chrome: Browser, page: Path) -> None:
    chrome.open(page)
    chrome.run("dispatchEvent(new Event('beforeprint'))")
    count = (
        "return document.querySelectorAll('.chart:first-of-type .plot:first-child g[display=inline]').length"
    )
    before = chrome.run(count)
    chrome.run("document.querySelector('.legend button').focus()")
    chrome.press("Space")
    assert (
        chrome.run("return document.querySelector('.legend button').getAttribute('aria-pressed')") == "false"
    )
    assert chrome.run(count) < before


def test_details_and_command_by_keyboard(chrome: Browser, page: Path) -> None:
    chrome.open(page)
    chrome.run("document.querySelector('#runs-body button').focus()")
    chrome.press("Enter")
    text = chrome.run("return document.querySelector('#runs-body .details').textContent")
    data = json.loads(re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"))[0])
    run = data["runs"][0]
    assert run["command"].startswith(f"hashbench run --method {run['facets'][0]} --dataset")
    for part in (run["id"], run["command"], *run["metrics"].values(), "images.size"):
        assert part in text
    chrome.press("Tab", "Enter")
    assert chrome.run("return document.querySelector('.command button').textContent") == "Copied"
    assert chrome.run("return getSelection().toString()") == run["command"]
    chrome.run("document.querySelectorAll('#runs thead button')[3].click()")  # details stay with their run
    follows = "return document.querySelector('#runs-body .details').previousElementSibling.dataset.runs"
    assert chrome.run(follows) == "0"
    chrome.run("document.querySelector('#filter input[value=itq]').click()")
    chrome.run("document.querySelector('.warnings a').click()")  # also to a run that the filter hides
    assert chrome.run("return document.activeElement.closest('tr').textContent").startswith("dead")


def test_a_printed_page_has_all_charts_and_no_controls(chrome: Browser, page: Path) -> None:
    chrome.open(page)
    chrome.devtools("Emulation.setEmulatedMedia", media="print")
    chrome.run("dispatchEvent(new Event('beforeprint'))")
    shown = "return [...document.querySelectorAll(arguments[0])].filter((one) => one.offsetParent).length"
    assert chrome.run(shown, "#filter, nav, .command button, #training details") == 0
    assert chrome.run("return document.querySelectorAll('#curves .plot:not(:has(svg))').length") == 0
    overflow = (
        "return [...document.querySelectorAll('.scroll')].map((box) => getComputedStyle(box).overflowX)"
    )
    assert set(chrome.run(overflow)) == {"visible"}
    chrome.devtools("Emulation.setEmulatedMedia", media="")


def test_sorting(chrome: Browser, tmp_path: Path) -> None:
    """Click column headers and read the rows back; missing figures are last in either order."""
    figures = [("b", "0.5"), ("a", "0.45 ± 0.1"), ("d", "–"), ("c", "−0.7"), ("e", "1,000")]
    grid = Table(
        "caption",
        "method",
        [ColumnHeader("16 bits", "x")],
        [(name, [TableCell(text)]) for name, text in figures],
    )
    script = TEMPLATES.get_template("page.js").render()
    table = TEMPLATES.get_template("elements.html").module.metric_table("name", grid)
    file = tmp_path / "page.html"
    file.write_text(
        f"<!DOCTYPE html><meta charset='utf-8'>{table}<script>{script}</script>", encoding="utf-8"
    )
    chrome.open(file)
    read = """
    const heads = document.querySelectorAll("th button"), found = [];
    for (const press of [1, 1, 0, 0]) {
      heads[press].click();
      const names = [...document.querySelectorAll("tbody th")].map((cell) => cell.textContent).join("");
      found.push(names + " " + heads[press].parentElement.getAttribute("aria-sort"));
    }
    return found;
    """
    assert chrome.run(read) == ["ebacd descending", "cabed ascending", "abcde ascending", "edcba descending"]
