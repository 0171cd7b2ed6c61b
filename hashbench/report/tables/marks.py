"""Which figures of a column are best, second, and not distinguishable from the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hashbench.report.aggregate import Cell, Column, paired
from hashbench.report.significance import DIGITS, Difference, PairedTest, paired_test


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
        """Whether it is not the best by its mean, but a test does not distinguish it from the best.

        Over the seeds that both have, it may even be ahead.
        """
        if self.from_best is None or self.from_best.untested:
            return False
        return not (self.from_best.distinguishable and self.from_best.mean > 0)


def mark(
    columns: Mapping[Column, Mapping[str, Cell]], test: PairedTest = "bootstrap"
) -> dict[Column, dict[str, Mark]]:
    """Rank the cells of each column, and test each against the best.

    Args:
        columns: From `cells`.
        test: The test.
    """
    pairs, places = {}, {}
    for column, rows in columns.items():
        ranked = {label: cell for label, cell in rows.items() if not cell.collapsed}
        means = {label: round(cell.mean, DIGITS) for label, cell in ranked.items()}
        order = sorted(set(means.values()), reverse=True)
        for label, cell in ranked.items() if len(ranked) > 1 else ():
            places[column, label] = order.index(means[label]) + 1
            best = next(other for other, mean in means.items() if mean == order[0])
            if label != best and (pair := paired(ranked[best], cell)):
                pairs[column, label] = pair
    tests = dict(zip(pairs, paired_test(list(pairs.values()), test), strict=True))
    return {
        column: {
            label: Mark(
                place if (place := places.get((column, label), 0)) <= 2 else 0, tests.get((column, label))
            )
            for label in rows
        }
        for column, rows in columns.items()
    }
