"""A table before it has a format, and its two formats for readers: markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tabulate import tabulate

PLACES = 3  # decimals of a metric
NOTHING = "–"
_LONG = 10  # letters of a head

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "≈": r"$\approx$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"$\S$", "−": "$-$",
    "¶": r"\P{}", "‖": r"$\|$", "✓": r"$\checkmark$", "×": r"$\times$", "–": "--",
}  # fmt: skip


@dataclass(frozen=True)
class ColumnHeader:
    """The head of a column.

    Attributes:
        name: Of the column.
        group: What the neighbours share that have the same one; may be empty.
        published: Whether the figures are those of a paper.
    """

    name: str
    group: str = ""
    published: bool = False


@dataclass(frozen=True)
class TableCell:
    """The content of a cell.

    Attributes:
        text: A number, or another text.
        rest: What stands beside it, as in "± 0.012".
        place: 1 for the best of the column, 2 for the second, 0 for others.
        marks: Signs that notes explain.
    """

    text: str = NOTHING
    rest: str = ""
    place: int = 0
    marks: str = ""


@dataclass(frozen=True)
class Table:
    """A table for readers.

    Attributes:
        caption: What it shows, in sentences.
        corner: Head of the first column.
        heads: Heads of the other columns.
        rows: First column and cells of each row.
        notes: Sentences below the table.
    """

    caption: str
    corner: str
    heads: Sequence[ColumnHeader]
    rows: Sequence[tuple[str, Sequence[TableCell]]]
    notes: Sequence[str] = ()


def number(value: float) -> str:
    """A metric as tables print it."""
    return f"{value:.{PLACES}f}"


def signed(value: float) -> str:
    """A difference of metrics as tables print it."""
    return f"{value:+.{PLACES}f}".replace("-", "−")


def markdown(grid: Table) -> str:
    """The table as markdown, which reads well in a terminal, too."""
    groups = {head.group for head in grid.heads if not head.published}
    heads = [_plain_head(head, len(groups) > 1) for head in grid.heads]
    rows = [[_plain(label), *map(_markdown_entry, entries)] for label, entries in grid.rows]
    table = tabulate(
        rows,
        headers=[_plain(grid.corner), *heads],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=("left", *("right" for _ in heads)),
    )
    return "\n\n".join([grid.caption, table, *grid.notes]) + "\n"


def latex(grids: Sequence[Table]) -> str:
    r"""Tables as a LaTeX document, with booktabs.

    It compiles as it is. Into a paper, copy a `table`; or load the package `standalone` there, which skips
    the preamble of what is read by `\input`.
    """
    lines = [
        r"% Into a paper: copy the table; or load the package standalone there, and \input this file.",
        r"\documentclass{article}",
        r"\usepackage{amssymb,booktabs,graphicx}",
        r"\begin{document}",
        *(line for grid in grids for line in _tex_table(grid)),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _plain_head(head: ColumnHeader, grouped: bool) -> str:
    return _plain(f"{head.group} {head.name}" if head.group and (grouped or head.published) else head.name)


def _plain(text: str) -> str:
    """Text that does not end a cell."""
    return text.replace("|", r"\|")


def _markdown_entry(entry: TableCell) -> str:
    text = {1: f"**{entry.text}**", 2: f"_{entry.text}_"}.get(entry.place, entry.text)
    return _plain(" ".join(part for part in (text, entry.rest, entry.marks) if part))


def _tex_table(grid: Table) -> list[str]:
    columns = "l" + "".join(
        # A wider gap sets off the figures of papers.
        ("@{\\hspace{2em}}" if head.published and not before.published else "") + "c"
        for before, head in zip([ColumnHeader(""), *grid.heads], grid.heads, strict=False)
    )
    return [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{_tex(grid.caption)}}}\medskip",
        rf"\sbox0{{\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_tex_heads(grid),
        r"\midrule",
        *(" & ".join([_tex(label), *map(_tex_entry, entries)]) + r" \\" for label, entries in grid.rows),
        r"\bottomrule",
        r"\end{tabular}}%",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        *(rf"\par\smallskip\raggedright\footnotesize {_tex(note)}" for note in grid.notes),
        r"\end{table}",
    ]


def _tex_heads(grid: Table) -> list[str]:
    names = " & ".join([_tex(grid.corner), *(_tex_stack(head.name) for head in grid.heads)]) + r" \\"
    if not any(head.group for head in grid.heads):
        return [names]
    spans, rules, column = [""], [], 2
    for group, heads in groupby(grid.heads, key=lambda head: head.group):
        width = len(list(heads))
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(group)}}}" if group else " & " * (width - 1))
        if group:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [" & ".join(spans) + r" \\", "".join(rules), names]


def _tex_stack(text: str) -> str:
    """A head, its words one below the other if it is long."""
    if len(text) <= _LONG:
        return _tex(text)
    lines = r" \\ ".join(map(_tex, text.split()))
    return rf"\shortstack{{{lines}}}"


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _tex_entry(entry: TableCell) -> str:
    text = _tex(entry.text)
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(entry.place, text)
    rest = rf" {{\scriptsize {_tex(entry.rest)}}}" if entry.rest else ""
    return text + rest + (rf"\textsuperscript{{{_tex(entry.marks)}}}" if entry.marks else "")
