"""Pieces of an HTML page: text that is safe, tables, plots as images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, Literal

from PIL import Image

from hashbench.report.plots.style import COLUMN, Plot
from hashbench.report.tables.table import Table, TableCell

_PIXELS = 130  # of a screen, to an inch of a figure for print
_TYPES = {"svg": "image/svg+xml", "webp": "image/webp"}


def element(tag: str, *content: str, **attributes: str) -> str:
    """An element around HTML; a trailing _ of an attribute's name is left out, and other _ become -."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items()
    )
    return f"<{tag}{given}>{''.join(content)}</{tag}>"


def text(tag: str, content: object, **attributes: str) -> str:
    """An element around plain text."""
    return element(tag, escape(str(content)), **attributes)


def items(sentences: Iterable[str], **attributes: str) -> str:
    """A list of plain texts; nothing if there is none."""
    found = [text("li", sentence) for sentence in sentences]
    return element("ul", *found, **attributes) if found else ""


def folded(summary: str, *content: str) -> str:
    """What is shown when its summary is clicked."""
    return element("details", text("summary", summary), *content)


def grid_table(grid: Table) -> str:
    """A table that can be sorted by its columns, its caption before and its notes below it."""
    groups = []
    for name, heads in groupby(grid.heads, key=lambda head: head.group):
        span = str(len(list(heads)))
        groups.append(
            text("th", name, colspan=span, scope="colgroup") if name else element("td", colspan=span)
        )
    names = [text("th", name, scope="col") for name in (grid.corner, *(head.name for head in grid.heads))]
    head = [element("tr", element("td"), *groups)] if any(head.group for head in grid.heads) else []
    rows = [
        element("tr", text("th", label, scope="row"), *map(_cell, entries)) for label, entries in grid.rows
    ]
    table = element(
        "table",
        _caption(grid.caption),
        element("thead", *head, element("tr", *names)),
        element("tbody", *rows),
        class_="sortable",
    )
    return _box(table) + items(grid.notes, class_="notes")


def plain_table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> str:
    """A table of plain values that can be sorted; the first column names the row."""
    table = element(
        "table",
        _caption(caption),
        element("thead", element("tr", *(text("th", name, scope="col") for name in head))),
        element(
            "tbody",
            *(
                element("tr", text("th", name, scope="row"), *(text("td", value) for value in values))
                for name, *values in rows
            ),
        ),
        class_="sortable",
    )
    return _box(table)


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values; nothing if there is none."""
    found = (text("dt", name) + text("dd", value) for name, value in values.items())
    return element("dl", *found) if values else ""


def plot_image(plot: Plot, alternative: str, form: Literal["svg", "webp"] = "svg") -> str:
    """A plot inside the page, and its notes below it.

    As an image of its own, the names inside an SVG cannot clash with those of another one.

    Args:
        plot: The plot.
        alternative: Text for those who do not see it.
        form: "webp" for photographs, which take a fifth of their room as PNG.
    """
    rendered = plot.render("svg") if form == "svg" else _webp(plot)
    content = base64.b64encode(rendered).decode("ascii")
    source = f"data:{_TYPES[form]};base64,{content}"
    width = round(_PIXELS * plot.figure.get_figwidth())
    image = f'<img src="{source}" alt="{escape(alternative)}" width="{width}">'
    if plot.figure.get_figwidth() > COLUMN:  # shrunk to the width of a phone its text could not be read
        image = element("div", image, class_="scroll", tabindex="0")
    return element("figure", image, *(text("figcaption", note) for note in plot.notes))


def _webp(plot: Plot) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(plot.render("png"))) as image:
        image.convert("RGB").save(stream, "WEBP", quality=85)
    return stream.getvalue()


def _box(table: str) -> str:
    # A wide table scrolls inside its box, by the keyboard, too, and the page does not.
    return element("div", table, class_="scroll", tabindex="0")


def _caption(content: str) -> str:
    return element("caption", text("span", content))  # the span stays in sight while the table scrolls


def _cell(entry: TableCell) -> str:
    figure = text({1: "strong", 2: "u"}.get(entry.place, "span"), entry.text)
    rest = f" {text('small', entry.rest)}" if entry.rest else ""
    return element("td", figure, rest, text("sup", entry.marks) if entry.marks else "")
