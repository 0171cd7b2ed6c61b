"""Ablation tables: what each component contributes to a method, measured by runs without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hashbench.report.aggregate import Cell, Column, cells, paired
from hashbench.report.significance import Difference, PairedTest, paired_test
from hashbench.report.tables.result_table import (
    COLLAPSED,
    EXPLAINED,
    MIXED,
    UNTESTED,
    caption_sentences,
    spread,
)
from hashbench.report.tables.table import ColumnHeader, Table, TableCell, number, signed
from hashbench.results.stored_run import IN_PROTOCOL_NAME, StoredRun, label_of

_HAS = "✓"


@dataclass(frozen=True)
class Variant:
    """A method without some of its components.

    Attributes:
        without: Names of the components that it is without.
        cell: The runs of the variant.
        gain: The whole method minus this variant, over the seeds that both have; None for the whole method,
            and if the AP of the queries is not known.
    """

    without: tuple[str, ...]
    cell: Cell
    gain: Difference | None


@dataclass(frozen=True)
class Ablation:
    """A method on one dataset at one code length, whole and without components.

    Attributes:
        column: Dataset, protocol and code length of the runs.
        method: The method, with the other changes of its recipe that all variants share.
        components: Names of the components that at least one variant is without.
        variants: The whole method, then the variants without one component, then those without more.
    """

    column: Column
    method: str
    components: tuple[str, ...]
    variants: tuple[Variant, ...]


def ablations(runs: Sequence[StoredRun], test: PairedTest = "bootstrap") -> list[Ablation]:
    """Find the ablations among runs: a whole method, and the same method without components of its recipe.

    Raises:
        UsageError: The runs cannot be compared.
    """
    methods = {_where(run) for run in runs if _taken_away(run)[1]}
    found = []
    for column, rows in cells([run for run in runs if _where(run) in methods]).items():
        groups: dict[str, dict[tuple[str, ...], Cell]] = {}
        for cell in rows.values():
            base, without = _taken_away(cell.runs[0])
            groups.setdefault(base, {})[without] = cell
        for method, variants in groups.items():
            if () in variants and len(variants) > 1:
                found.append(_ablation(column, method, variants, test))
    return found


def ablation_table(ablation: Ablation) -> Table:
    """Return the table of an ablation."""
    whole = ablation.variants[0].cell
    runs = [run for variant in ablation.variants for run in variant.cell.runs]
    sentences = [
        f"Components of {ablation.method}, {ablation.column}.",
        *caption_sentences(runs, whole.seeds),
        "Gain is that of the whole method over the row, with its 95 % interval "
        "(paired bootstrap over the queries).",
    ]
    gains = [variant.gain for variant in ablation.variants if variant.gain]
    if any(gain.test == "permutation" for gain in gains):
        sentences.append("p is that of a paired permutation test.")
    rows, notes = [], []
    for variant in ablation.variants:
        cell, name = variant.cell, _name(variant, ablation)
        has = [TableCell(_HAS if part not in variant.without else "") for part in ablation.components]
        marks = (COLLAPSED if cell.collapsed else "") + (MIXED if cell.code_versions > 1 else "")
        figure = TableCell(number(cell.mean), spread(cell), marks=marks)
        rows.append((name, [*has, figure, _gain_cell(variant.gain)]))
        if cell.collapsed:
            seeds = ", ".join(map(str, cell.collapsed))
            notes.append(f"{COLLAPSED} {name}: {EXPLAINED[COLLAPSED]} (seed {seeds}).")
        if cell.code_versions > 1:
            notes.append(f"{MIXED} {name}: {EXPLAINED[MIXED]} ({cell.code_versions} of them).")
        if cell.seeds != whole.seeds:
            common = sorted({*cell.seeds} & {*whole.seeds})
            gain = f"gain over seed {', '.join(map(str, common))}" if common else "no seed in common"
            notes.append(f"{name}: seed {', '.join(map(str, cell.seeds))}; {gain}.")
    reasons = dict.fromkeys(gain.untested for gain in gains if gain.untested)
    notes += [f"{UNTESTED} gain not tested: {reason}." for reason in reasons]
    signs = [ColumnHeader(name, content="sign") for name in ablation.components]
    heads = [*signs, ColumnHeader(whole.metric), ColumnHeader("gain")]
    return Table(" ".join(sentences), "variant", heads, rows, notes)


def _where(run: StoredRun) -> tuple[Any, ...]:
    record = run.record
    return record.split_name, record.bits, record.method


def _taken_away(run: StoredRun) -> tuple[str, tuple[str, ...]]:
    """Return the label of a run's method, with its other changes, and the components that it is without."""
    changes, components = run.record.changes, run.record.components
    if changes is None:
        return run.label, ()
    without = tuple(
        name
        for name, settings in components.items()
        if all(path in changes and changes[path] == value for path, value in settings.items())
    )
    keys = {path for name in without for path in components[name]}
    other = {path: value for path, value in changes.items() if path not in keys}
    return label_of(run.record.method, other, {*run.common, *IN_PROTOCOL_NAME}), without


def _ablation(
    column: Column, method: str, variants: dict[tuple[str, ...], Cell], test: PairedTest
) -> Ablation:
    whole = variants[()]
    # Of all runs, since a recipe may have got components after its first runs.
    declared = dict.fromkeys(name for cell in variants.values() for name in cell.runs[0].record.components)
    order = [name for name in declared if any(name in without for without in variants)]
    pairs = {without: pair for without, cell in variants.items() if without and (pair := paired(whole, cell))}
    gains = dict(zip(pairs, paired_test(list(pairs.values()), test), strict=True))

    def sort_key(without: tuple[str, ...]) -> tuple[Any, ...]:
        return len(without), [order.index(name) for name in without]

    return Ablation(
        column,
        method,
        tuple(order),
        tuple(
            Variant(without, variants[without], gains.get(without))
            for without in sorted(variants, key=sort_key)
        ),
    )


def _name(variant: Variant, ablation: Ablation) -> str:
    if not variant.without:
        return "whole"
    everything = len(variant.without) == len(ablation.components) > 1
    return f"without {'all' if everything else ', '.join(variant.without)}"


def _gain_cell(gain: Difference | None) -> TableCell:
    if gain is None:
        return TableCell()
    if gain.lowest is None or gain.highest is None:
        return TableCell(signed(gain.mean), marks=UNTESTED)
    p = f", p {gain.p:.4f}" if gain.test == "permutation" else ""
    return TableCell(signed(gain.mean), below=f"[{signed(gain.lowest)}, {signed(gain.highest)}]{p}")
