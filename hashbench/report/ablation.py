"""Ablation tables: what a method gains from each of its components, by runs without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hashbench.report.cells import Cell, Column, cells
from hashbench.report.grid import Entry, Grid, Head, number, signed
from hashbench.report.runs import StoredRun, text_of
from hashbench.report.significance import Difference, paired_bootstrap
from hashbench.report.tables import COLLAPSED, EXPLAINED, described, spread

_HAS = "✓"


@dataclass(frozen=True)
class Variant:
    """The method without some of its components.

    Attributes:
        without: Their names.
        cell: Its figures.
        gain: The whole method minus this one, over the seeds that both have; None for the whole method, and
            where AP of queries is not known.
    """

    without: tuple[str, ...]
    cell: Cell
    gain: Difference | None


@dataclass(frozen=True)
class Ablation:
    """A method on one dataset at one code length, whole and without components.

    Attributes:
        column: Where it was measured.
        method: The method, and what else was changed of its recipe in all variants.
        components: Names of the components that some variant is without.
        variants: The whole method, then without one component, then without more.
    """

    column: Column
    method: str
    components: tuple[str, ...]
    variants: tuple[Variant, ...]


def ablations(runs: Sequence[StoredRun], metric: str) -> list[Ablation]:
    """Find the ablations among runs: a whole method, and the same without components of its recipe.

    Args:
        runs: From `select`.
        metric: A metric of all of them.

    Raises:
        UsageError: Runs cannot be compared.
    """
    found = []
    for column, rows in cells(runs, metric).items():
        groups: dict[str, dict[tuple[str, ...], Cell]] = {}
        for cell in rows.values():
            base, without = _taken_away(cell.runs[0])
            groups.setdefault(base, {})[without] = cell
        for method, variants in groups.items():
            if () in variants and len(variants) > 1:
                found.append(_ablation(column, method, variants))
    return found


def ablation_grid(ablation: Ablation) -> Grid:
    """The table of an ablation."""
    whole = ablation.variants[0].cell
    records = [run.record for variant in ablation.variants for run in variant.cell.runs]
    several = "mean ± standard deviation over "
    sentences = [
        f"Components of {ablation.method}, {ablation.column}.",
        *described(whole.metric, records, whole.seeds, several),
        "The last column is what the whole method gains over the row: difference and its 95 % interval "
        "(paired bootstrap over the queries).",
    ]
    rows, notes = [], []
    for variant in ablation.variants:
        cell = variant.cell
        has = [Entry(_HAS if name not in variant.without else "") for name in ablation.components]
        figure = Entry(number(cell.mean), spread(cell), marks=COLLAPSED if cell.collapsed else "")
        rows.append((_name(variant), [*has, figure, _gain_entry(variant.gain)]))
        if cell.collapsed:
            seeds = ", ".join(map(str, cell.collapsed))
            notes.append(f"{COLLAPSED} {_name(variant)}: {EXPLAINED[COLLAPSED]} (seed {seeds}).")
        if cell.seeds != whole.seeds:
            notes.append(f"{_name(variant)}: seed {', '.join(map(str, cell.seeds))}.")
    heads = [*map(Head, ablation.components), Head(whole.metric), Head("gain of the whole")]
    return Grid(" ".join(sentences), "variant", heads, rows, notes)


def _taken_away(run: StoredRun) -> tuple[str, tuple[str, ...]]:
    """The method with its other changes, as a label, and the names of the components that it is without."""
    changes, components = run.record.changes, run.record.components
    without = tuple(
        name
        for name, settings in components.items()
        if all(path in changes and changes[path] == value for path, value in settings.items())
    )
    keys = {path for name in without for path in components[name]}
    other = {path: value for path, value in changes.items() if path not in keys}
    return text_of(run.record.method, other), without


def _ablation(column: Column, method: str, variants: dict[tuple[str, ...], Cell]) -> Ablation:
    whole = variants[()]
    declared = whole.runs[0].record.components
    order = [name for name in declared if any(name in without for without in variants)]

    def place(without: tuple[str, ...]) -> tuple[Any, ...]:
        return len(without), [order.index(name) for name in without]

    return Ablation(
        column,
        method,
        tuple(order),
        tuple(
            Variant(without, cell, _gain(whole, cell) if without else None)
            for without, cell in sorted(variants.items(), key=lambda item: place(item[0]))
        ),
    )


def _gain(whole: Cell, variant: Cell) -> Difference | None:
    common = set(whole.seeds) & set(variant.seeds)
    pair = [
        replace(cell, runs=tuple(r for r in cell.runs if r.record.seed in common))
        for cell in (whole, variant)
    ]
    if not common:
        return None
    first, second = (cell.average_precisions for cell in pair)
    return None if first is None or second is None else paired_bootstrap(first, [second])[0]


def _name(variant: Variant) -> str:
    if not variant.without:
        return "whole"
    return "without " + (
        variant.without[0] if len(variant.without) == 1 else f"{len(variant.without)} of them"
    )


def _gain_entry(gain: Difference | None) -> Entry:
    if gain is None:
        return Entry()
    return Entry(signed(gain.mean), f"[{signed(gain.lowest)}, {signed(gain.highest)}]")
