"""Which figures of a column are best, second, and not distinguishable from the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hashbench.report.cells import Cell
from hashbench.report.significance import Difference, paired_bootstrap


@dataclass(frozen=True)
class Mark:
    """How a figure stands in its column.

    Attributes:
        place: 1 for the best, 2 for the second, of the different figures; 0 for the others, and for cells
            with collapsed codes, which take no part.
        from_best: The best minus this one; None for the best itself, and where AP of queries is not known.
    """

    place: int = 0
    from_best: Difference | None = None

    @property
    def level_with_best(self) -> bool:
        """Whether it is not the best, but not distinguishable from it."""
        return self.from_best is not None and not self.from_best.distinguishable


def mark(column: Mapping[str, Cell]) -> dict[str, Mark]:
    """Rank the cells of a column, and test each against the best.

    Args:
        column: Cells by label, from `cells`.
    """
    ranked = {label: cell for label, cell in column.items() if not cell.collapsed}
    if len(ranked) < 2:
        return dict.fromkeys(column, Mark())
    means = sorted({cell.mean for cell in ranked.values()}, reverse=True)
    places = {label: means.index(cell.mean) + 1 for label, cell in ranked.items()}
    best = next(label for label, place in places.items() if place == 1)
    values = {label: cell.average_precisions for label, cell in ranked.items() if label != best}
    known = {label: value for label, value in values.items() if value is not None}
    reference = ranked[best].average_precisions
    tests = (
        {}
        if reference is None
        else dict(zip(known, paired_bootstrap(reference, list(known.values())), strict=True))
    )
    return {
        label: Mark(place if (place := places.get(label, 0)) <= 2 else 0, tests.get(label))
        for label in column
    }
