"""Figures that papers print: tables show them beside measured figures and never mix the two."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hashbench.errors import HashbenchError
from hashbench.report.aggregate import Column
from hashbench.report.tables.table import ColumnHeader, TableCell, number
from hashbench.results.query import RunFilter

_PACKAGE = Path(__file__).parents[2]
BUILT_IN = (_PACKAGE / "published", _PACKAGE.parent / "results" / "published")  # installed; in a checkout


class Published(BaseModel):
    """A figure as a paper prints it, for the split, backbone and cutoff of that paper.

    It is a line of a CSV file whose columns are these fields.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field(min_length=1)
    year: int
    venue: str
    dataset: str
    bits: int = Field(gt=0)
    map: float = Field(ge=0, le=1)
    source: str = Field(min_length=1)
    note: str = ""


def read_published(results: Path, wanted: RunFilter) -> list[Published]:
    """Read the figures that come with hashbench and those in the folder `published` beside the records.

    Args:
        results: Folder of the records.
        wanted: The filter; only its methods are used, and their case is ignored.

    Raises:
        HashbenchError: A file cannot be read; the message names its line.
    """
    folders = {folder.resolve() for folder in (*BUILT_IN, results.parent / "published") if folder.is_dir()}
    methods = {name.casefold() for name in wanted.methods}
    return [
        figure
        for folder in sorted(folders)
        for path in sorted(folder.glob("*.csv"))
        for figure in _read(path)
        if not methods or figure.method.casefold() in methods
    ]


def published_columns(
    figures: Sequence[Published], measured: Iterable[Column]
) -> dict[ColumnHeader, dict[str, Published]]:
    """Return columns of printed figures by method, for the datasets and code lengths that were measured."""
    kinds = {(column.dataset, column.bits) for column in measured}
    wanted = [figure for figure in figures if (figure.dataset, figure.bits) in kinds]
    letters = _letters(wanted)
    columns: dict[ColumnHeader, dict[str, Published]] = {}
    for figure in sorted(wanted, key=lambda f: (f.dataset, letters[f.source], f.bits)):
        group = f"{figure.dataset}, printed [{letters[figure.source]}]"
        header = ColumnHeader(f"{figure.bits} bits", group, published=True)
        columns.setdefault(header, {})[figure.method] = figure
    return columns


def with_published(
    rows: Sequence[tuple[str, Sequence[TableCell]]],
    printed: Mapping[ColumnHeader, Mapping[str, Published]],
    measured: int,
) -> list[tuple[str, list[TableCell]]]:
    """Append printed figures to the rows of their methods, and rows for methods that were not measured.

    Args:
        rows: Labels and cells of the measured rows.
        printed: Columns from `published_columns`.
        measured: Number of measured columns.
    """
    known = {label.casefold() for label, _ in rows}
    methods = {figure.method: figure for figures in printed.values() for figure in figures.values()}
    only = [
        (name, f"{name} ({f.venue} {f.year})") for name, f in methods.items() if name.casefold() not in known
    ]

    def figures_of(method: str) -> list[TableCell]:
        found = [
            next((f for name, f in figures.items() if name.casefold() == method.casefold()), None)
            for figures in printed.values()
        ]
        return [TableCell(number(figure.map)) if figure else TableCell() for figure in found]

    return [
        *((label, [*entries, *figures_of(label)]) for label, entries in rows),
        *((label, [*[TableCell()] * measured, *figures_of(method)]) for method, label in only),
    ]


def published_notes(printed: Mapping[ColumnHeader, Mapping[str, Published]]) -> list[str]:
    """Return notes that name the sources of printed figures, and the remarks on figures."""
    figures = [figure for column in printed.values() for figure in column.values()]
    notes = [
        f"[{letter}] as printed in {source}: mAP, with the splits, backbones and cut-offs of the papers."
        for source, letter in _letters(figures).items()
    ]
    remarks = dict.fromkeys(f"{figure.method}: {figure.note}." for figure in figures if figure.note)
    return [*notes, *remarks]


def _letters(figures: Iterable[Published]) -> dict[str, str]:
    """Return a letter for each source of the figures, those with the most figures first."""
    sources = Counter(figure.source for figure in figures).most_common()
    return {source: chr(ord("a") + index) for index, (source, _) in enumerate(sources)}


def _read(path: Path) -> Iterator[Published]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            seen = set()
            for line in lines:
                where = f"{path}, line {lines.line_num}"
                if None in line:
                    raise HashbenchError(f"{where}: the line has more columns than the header")
                try:
                    figure = Published.model_validate(line)
                except ValidationError as error:
                    first = error.errors()[0]
                    column = ".".join(map(str, first["loc"]))
                    raise HashbenchError(
                        f"{where}, {column}: {first['msg']}; "
                        f"the columns are {', '.join(Published.model_fields)}"
                    ) from None
                key = (figure.method, figure.dataset, figure.bits, figure.source)
                if key in seen:
                    raise HashbenchError(
                        f"{where}: an earlier line has the same method, dataset, bits and source"
                    )
                seen.add(key)
                yield figure
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HashbenchError(f"{path} cannot be read: {error}") from error
