"""A table that has no format yet, and its formats for readers: Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tabulate import tabulate

DECIMALS = 3  # of a metric
NOTHING = "–"
_LONG = 10  # characters of a column header

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "≈": r"$\approx$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"$\S$", "−": "$-$",
    "¶": r"\P{}", "‖": r"$\|$", "✓": r"$\checkmark$", "×": r"$\times$", "–": "--",
}  # fmt: skip


@dataclass(frozen=True)
class ColumnHeader:
    """The header of a column.

    Attributes:
        name: Name of the column.
        group: Name that adjacent columns share; may be empty.
        published: The column has figures that a paper prints.
    """

    name: str
    group: str = ""
    published: bool = False


@dataclass(frozen=True)
class TableCell:
    """The content of a cell.

    Attributes:
        text: A number or other text.
        rest: Text beside the number, such as "± 0.012".
        rank: 1 for the best of the column, 2 for the second, 0 for all others.
        marks: Signs that the notes explain.
    """

    text: str = NOTHING
    rest: str = ""
    rank: int = 0
    marks: str = ""


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
    groups = {head.group for head in table.heads if not head.published}
    heads = [_markdown_head(head, len(groups) > 1) for head in table.heads]
    rows = [[_escape_bars(label), *map(_markdown_cell, cells)] for label, cells in table.rows]
    text = tabulate(
        rows,
        headers=[_escape_bars(table.corner), *heads],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *("right" for _ in heads)),
    )
    return "\n\n".join([table.caption, text, *table.notes]) + "\n"


def latex(tables: Sequence[Table]) -> str:
    r"""Format tables as a LaTeX document that compiles, with booktabs.

    To use one in a paper, copy the `table`, or load the package `standalone`, which skips the preamble of
    files that are read by `\input`.
    """
    lines = [
        r"% Into a paper: copy the table; or load the package standalone there, and \input this file.",
        r"\documentclass{article}",
        r"\usepackage{amssymb,booktabs,graphicx}",
        r"\begin{document}",
        *(line for table in tables for line in _tex_table(table)),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _markdown_head(head: ColumnHeader, grouped: bool) -> str:
    with_group = head.group and (grouped or head.published)
    return _escape_bars(f"{head.group} {head.name}" if with_group else head.name)


def _escape_bars(text: str) -> str:
    return text.replace("|", r"\|")


def _markdown_cell(cell: TableCell) -> str:
    text = {1: f"**{cell.text}**", 2: f"_{cell.text}_"}.get(cell.rank, cell.text)
    return _escape_bars(" ".join(part for part in (text, cell.rest, cell.marks) if part))


def _tex_table(table: Table) -> list[str]:
    columns = "l" + "".join(
        # A wider gap separates the figures of papers from measured ones.
        ("@{\\hspace{2em}}" if head.published and not before.published else "") + "c"
        for before, head in zip([ColumnHeader(""), *table.heads], table.heads, strict=False)
    )
    return [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_tex(table.caption)}}}\medskip",
        rf"\sbox0{{\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_tex_heads(table),
        r"\midrule",
        *(" & ".join([_tex(label), *map(_tex_cell, cells)]) + r" \\" for label, cells in table.rows),
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        *(rf"\par\smallskip\raggedright\footnotesize {_tex(note)}" for note in table.notes),
        r"\end{table}",
    ]


def _tex_heads(table: Table) -> list[str]:
    names = " & ".join([_tex(table.corner), *(_tex_stack(head.name) for head in table.heads)]) + r" \\"
    if not (groups := table.groups()):
        return [names]
    spans, rules, column = [""], [], 2
    for group, width in groups:
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(group)}}}" if group else " & " * (width - 1))
        if group:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [" & ".join(spans) + r" \\", "".join(rules), names]


def _tex_stack(text: str) -> str:
    """Format a column header; the words of a long one stand below each other."""
    if len(text) <= _LONG:
        return _tex(text)
    lines = r" \\ ".join(map(_tex, text.split()))
    return rf"\shortstack{{{lines}}}"


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _tex_cell(cell: TableCell) -> str:
    text = _tex(cell.text)
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank, text)
    rest = rf" {{\scriptsize {_tex(cell.rest)}}}" if cell.rest else ""
    return text + rest + (rf"\textsuperscript{{{_tex(cell.marks)}}}" if cell.marks else "")
