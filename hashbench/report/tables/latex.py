"""Tables for print, as a LaTeX document: never smaller than footnotes, and split where they are too large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from hashbench.report.tables.table import ColumnHeader, Table, TableCell

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "±": r"$\pm$", "≈": r"$\approx$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"$\S$", "−": "$-$",
    "¶": r"\P{}", "‖": r"$\|$", "✓": r"$\checkmark$", "×": r"$\times$", "–": "--",
}  # fmt: skip
_LONG = 10  # characters of a column header
_LINE = 80  # characters of a line of the class `article`, in footnote size
_SMALL_LINE = 70  # the same in the size \small
_GAP = 3  # between two columns, in characters
_TEXT, _TEXT_WIDTH = 30, "4.3cm"  # greatest width of a column of texts, in characters and in print
_LINES = 40  # of a page, below a caption


def latex(tables: Sequence[Table]) -> str:
    r"""Format tables as a LaTeX document that compiles, with booktabs.

    A table that is too wide is split into parts below each other, and one that is too high continues on
    another page. To use one in a paper, copy the `table`, or load the package `standalone`, which skips the
    preamble of files that are read by `\input`.
    """
    lines = [
        r"% Into a paper: copy the table; or load the package standalone there, and \input this file.",
        r"\documentclass{article}",
        r"\usepackage{amssymb,array,booktabs,graphicx}",
        r"\begin{document}",
        *(line for table in tables for line in _tex_table(table)),
        r"\end{document}",
    ]
    return "\n".join(lines) + "\n"


def _tex_table(table: Table) -> Iterator[str]:
    """Yield the lines of a table: one environment a page, with the caption first and the notes last."""
    pages: list[list[Table]] = [[]]
    for part in _parts(table):
        if pages[-1] and sum(map(_height, [*pages[-1], part])) > _LINES:
            pages.append([])
        pages[-1].append(part)
    size = r"\small" if all(_width(part) <= _SMALL_LINE for part in chain(*pages)) else r"\footnotesize"
    for page in pages:
        first, last = page is pages[0], page is pages[-1]
        yield r"\begin{table}"
        yield rf"\centering{size}"
        caption = _tex(table.caption)
        yield rf"\caption{{{caption}}}\medskip" if first else r"(continued)\par\medskip"
        for part in page:
            yield from _tabular(part)
        if last:
            yield from (rf"\par\smallskip\raggedright\footnotesize {_tex(note)}" for note in table.notes)
        yield r"\end{table}"


def _parts(table: Table) -> Iterator[Table]:
    """Split a table into parts that fit the line and the page; each has the labels of its rows."""
    columns: list[list[int]] = [[]]
    for index in range(len(table.heads)):
        if columns[-1] and _width(_columns(table, [*columns[-1], index])) > _LINE:
            columns.append([])
        columns[-1].append(index)
    for chosen in columns:
        part = _columns(table, chosen)
        lines = 2 if _has_second_lines(part) else 1
        step = max(1, (_LINES - 6) // lines)
        for start in range(0, max(1, len(part.rows)), step):
            yield replace(part, rows=part.rows[start : start + step])


def _columns(table: Table, chosen: Sequence[int]) -> Table:
    rows = [(label, [cells[index] for index in chosen]) for label, cells in table.rows]
    return replace(table, heads=[table.heads[index] for index in chosen], rows=rows)


def _has_second_lines(table: Table) -> bool:
    return any(cell.below for _, cells in table.rows for cell in cells)


def _height(table: Table) -> int:
    """Return the number of lines of a table."""
    return 6 + len(table.rows) * (2 if _has_second_lines(table) else 1)


def _width(table: Table) -> int:
    """Estimate the width of a table, in characters of numbers."""
    width = max(len(label) for label in [table.corner, *(label for label, _ in table.rows)])
    groups = dict(table.groups())
    for index, head in enumerate(table.heads):
        widest = _widest(table, index)
        if head.content == "text":
            width += min(widest, _TEXT) + _GAP
            continue
        in_head = 1 if head.content == "sign" else max(map(len, _stacked(head.name)))
        of_group = -(-len(head.group) // groups[head.group]) if head.group else 0
        width += max(widest, in_head, of_group) + _GAP
    return width


def _widest(table: Table, column: int) -> int:
    cells = [cells[column] for _, cells in table.rows]
    return max([max(len(f"{c.text} {c.rest}{c.marks}".strip()), len(c.below)) for c in cells], default=0)


def _tabular(table: Table) -> Iterator[str]:
    columns = "l"
    for index, head in enumerate(table.heads):
        # A wider gap separates the figures of papers from measured ones.
        columns += r"@{\hspace{2em}}" if head.published and not table.heads[index - 1].published else ""
        text = "l" if _widest(table, index) <= _TEXT else rf">{{\raggedright}}p{{{_TEXT_WIDTH}}}"
        columns += text if head.content == "text" else "c"
    yield rf"\begin{{tabular}}{{{columns}}}"
    yield r"\toprule"
    yield from _tex_heads(table)
    yield r"\midrule"
    for label, cells in table.rows:
        start = "{}" if label.startswith("[") else ""  # or else it would be an argument of the line before
        yield start + " & ".join([_tex(label), *map(_tex_cell, cells)]) + r" \\"
        if any(cell.below for cell in cells):
            below = (rf"{{\footnotesize {_tex(cell.below)}}}" if cell.below else "" for cell in cells)
            yield " & ".join(["", *below]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}\par\medskip"


def _tex_heads(table: Table) -> list[str]:
    names = " & ".join([_tex(table.corner), *map(_tex_head, table.heads)]) + r" \\"
    if not (groups := table.groups()):
        return [names]
    spans, rules, column = [""], [], 2
    for group, width in groups:
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(group)}}}" if group else " & " * (width - 1))
        if group:
            rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [" & ".join(spans) + r" \\", "".join(rules), names]


def _tex_head(head: ColumnHeader) -> str:
    """Format a column header: vertical above signs, else with the words of a long one below each other."""
    if head.content == "sign":
        return rf"\rotatebox{{90}}{{{_tex(head.name)}}}"
    lines = r" \\ ".join(map(_tex, _stacked(head.name)))
    return rf"\shortstack{{{lines}}}" if r"\\" in lines else lines


def _stacked(name: str) -> list[str]:
    return [name] if len(name) <= _LONG else name.split()


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _tex_cell(cell: TableCell) -> str:
    text = _tex(cell.text)
    if len(cell.text) > _TEXT:  # names of networks have no spaces at which they could be broken
        return text.replace(r"\_", r"\_\allowbreak{}").replace(".", r".\allowbreak{}")
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank, text)
    rest = rf" {{\footnotesize {_tex(cell.rest)}}}" if cell.rest else ""
    return text + rest + (rf"\textsuperscript{{{_tex(cell.marks)}}}" if cell.marks else "")
