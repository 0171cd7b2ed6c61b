"""The headline of the page: what was compared, and what leads at each code length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hashbench.report.aggregate import Cell, Column, by_split
from hashbench.report.significance import DESCRIBED, DIGITS
from hashbench.report.tables.ranking import Ranked
from hashbench.report.tables.table import number
from hashbench.results.stored_run import StoredRun

_LISTED = 5  # methods that a sentence names as level with the first
_NAMED = 12  # methods that are named at all


@dataclass(frozen=True)
class Leader:
    """The first of the methods with one backbone at one code length.

    Attributes:
        where: The code length; with the backbone if there are several.
        label: The method; empty if the codes of all of them collapsed.
        value: The metric with its name, for example "mAP@all 0.927".
        others: A clause about the others, which says how certain the lead is.
    """

    where: str
    label: str
    value: str
    others: str


@dataclass(frozen=True)
class Headline:
    """The headline of one split.

    Attributes:
        split: Name of the dataset and the protocol.
        compared: A sentence that names the methods, the code lengths, the seeds and the backbones.
        leaders: The leaders, from short to long codes.
    """

    split: str
    compared: str
    leaders: list[Leader]


def headlines(
    runs: Sequence[StoredRun],
    columns: Mapping[Column, Mapping[str, Cell]],
    ranking: Mapping[Column, Mapping[str, Ranked]],
    across_backbones: bool,
) -> list[Headline]:
    """Return the headline of each split; `columns` and `ranking` are those of the runs."""
    found = []
    for name, group in by_split(runs).items():
        own = [column for column in columns if column.split_name == name]
        leaders = [leader for c in own for leader in _leaders(c, columns[c], ranking[c], across_backbones)]
        labels = dict.fromkeys(run.label for run in group)
        names = ", ".join(labels)
        compared = (
            f"{_counted(len(labels), 'method')}{f' ({names})' if len(labels) <= _NAMED else ''} "
            f"at {_listed(c.bits for c in own)} bits, "
            f"{_counted(len(group), 'run')} with seed {_listed(sorted({r.record.seed for r in group}))}; "
            f"backbone {'; '.join(dict.fromkeys(run.backbone for run in group))}."
        )
        found.append(Headline(name, compared, leaders))
    return found


def how_tested(ranking: Mapping[Column, Mapping[str, Ranked]]) -> str:
    """Return a sentence on the test behind the word "distinguishable"; empty if nothing was tested."""
    differences = (ranked.from_best for row in ranking.values() for ranked in row.values())
    tests = dict.fromkeys(DESCRIBED[found.test] for found in differences if found and not found.untested)
    return f"Distinguishable: by a {'; '.join(tests)}, over the seeds that both have." if tests else ""


def _leaders(
    column: Column, row: Mapping[str, Cell], ranking: Mapping[str, Ranked], across_backbones: bool
) -> list[Leader]:
    backbones = dict.fromkeys("" if across_backbones else cell.backbone for cell in row.values())
    leaders = []
    for backbone in backbones:
        cells = {label: cell for label, cell in row.items() if backbone in ("", cell.backbone)}
        where = f"{column.bits} bits" + (f", {backbone}" if len(backbones) > 1 else "")
        sound = sorted(
            (label for label, cell in cells.items() if not cell.collapsed),
            key=lambda label: (-round(cells[label].mean, DIGITS), ranking[label].from_best is not None),
        )
        if not sound:
            leaders.append(Leader(where, "", "", "the codes of all methods collapsed"))
            continue
        best, *others = sound
        value = f"{cells[best].metric} {number(cells[best].mean)}"
        clause = _others(others, cells, ranking) if others else "there is no other method to compare"
        leaders.append(Leader(where, best, value, clause))
    return leaders


def _others(others: Sequence[str], cells: Mapping[str, Cell], ranking: Mapping[str, Ranked]) -> str:
    """Describe how certain it is that the first is ahead of others, which are sorted by their means."""
    level = [label for label in others if ranking[label].level_with_best]
    if level:
        shown = _valued(level[:_LISTED], cells) + (
            f" and {len(level) - _LISTED} more" * (len(level) > _LISTED)
        )
        return f"{shown} {'is' if len(level) == 1 else 'are'} not distinguishable from it"
    second = _valued(others[:1], cells)
    difference = ranking[others[0]].from_best
    if difference is None or difference.untested:
        why = (difference and difference.untested) or "the AP of the queries is not known"
        return f"{second} is second; the difference was not tested: {why}"
    return f"{second} is distinguishably lower"


def _valued(labels: Iterable[str], cells: Mapping[str, Cell]) -> str:
    return ", ".join(f"{label} ({number(cells[label].mean)})" for label in labels)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))
