"""A table that has no format yet, and its format as Markdown; see `latex` for print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from tabulate import tabulate

DECIMALS = 3  # of a metric
NOTHING = "–"


@dataclass(frozen=True)
class ColumnHeader:
    """The header of a column.

    Attributes:
        name: Name of the column.
        group: Name that adjacent columns share; may be empty.
        published: The column has figures that a paper prints.
        content: Kind of its cells: numbers, longer texts, or signs.
    """

    name: str
    group: str = ""
    published: bool = False
    content: Literal["number", "text", "sign"] = "number"


@dataclass(frozen=True)
class TableCell:
    """The content of a cell.

    Attributes:
        text: A number or other text.
        rest: Text beside the number, such as "± 0.012".
        rank: 1 for the best of the column, 2 for the second, 0 for all others.
        marks: Signs that the notes explain.
        below: Text beside the rest or, in print, below the number, such as its bounds.
    """

    text: str = NOTHING
    rest: str = ""
    rank: int = 0
    marks: str = ""
    below: str = ""


@dataclass(frozen=True)
class Table:
    """A table for readers.

    Attributes:
        caption: Sentences that say what the table shows.
        corner: Header of the first column.
        heads: Headers of the other columns.
        rows: Label and cells of each row.
        notes: Sentences below the table.
    """

    caption: str
    corner: str
    heads: Sequence[ColumnHeader]
    rows: Sequence[tuple[str, Sequence[TableCell]]]
    notes: Sequence[str] = ()

    def groups(self) -> list[tuple[str, int]]:
        """Return the name and width of each group of adjacent columns; empty if no column is in a group."""
        groups = [
            (name, len(list(heads))) for name, heads in groupby(self.heads, key=lambda head: head.group)
        ]
        return groups if any(name for name, _ in groups) else []


def number(value: float) -> str:
    """Format a metric."""
    return f"{value:.{DECIMALS}f}"


def signed(value: float) -> str:
    """Format a difference of metrics, with its sign."""
    return f"{value:+.{DECIMALS}f}".replace("-", "−")


def markdown(table: Table) -> str:
    """Format a table as Markdown that is also readable in a terminal."""
    groups = {head.group for head in table.heads if head.group and not head.published}
    heads = [_markdown_head(head, len(groups) > 1) for head in table.heads]
    rows = [[_escape_bars(label), *map(_markdown_cell, cells)] for label, cells in table.rows]
    text = tabulate(
        rows,
        headers=[_escape_bars(table.corner), *heads],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *("left" if head.content == "text" else "right" for head in table.heads)),
    )
    return "\n\n".join([table.caption, text, *table.notes]) + "\n"


def _markdown_head(head: ColumnHeader, grouped: bool) -> str:
    with_group = head.group and (grouped or head.published)
    return _escape_bars(f"{head.group} {head.name}" if with_group else head.name)


def _escape_bars(text: str) -> str:
    return text.replace("|", r"\|")


def _markdown_cell(cell: TableCell) -> str:
    text = {1: f"**{cell.text}**", 2: f"_{cell.text}_"}.get(cell.rank, cell.text)
    return _escape_bars(" ".join(part for part in (text, cell.rest, cell.below, cell.marks) if part))
