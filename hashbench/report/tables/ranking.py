"""The ranking of the cells of a column: the best, the second, and those that are level with the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hashbench.report.aggregate import Cell, Column, paired
from hashbench.report.significance import DIGITS, Difference, PairedTest, paired_test


@dataclass(frozen=True)
class Ranked:
    """The rank of a cell in its column.

    Attributes:
        rank: 1 for the best and 2 for the second of the distinct means; 0 for all others and for cells with
            collapsed codes, which are not ranked.
        from_best: The best minus this cell; None for the best itself, and if the AP of the queries is not
            known.
    """

    rank: int = 0
    from_best: Difference | None = None

    @property
    def level_with_best(self) -> bool:
        """Return True if the cell is not the best by its mean, but a test does not distinguish the two.

        Over the seeds that both have, it may even be ahead.
        """
        if self.from_best is None or self.from_best.untested:
            return False
        return not (self.from_best.distinguishable and self.from_best.mean > 0)


def rank_cells(
    columns: Mapping[Column, Mapping[str, Cell]],
    test: PairedTest = "bootstrap",
    across_backbones: bool = False,
) -> dict[Column, dict[str, Ranked]]:
    """Rank the cells of each column, and test each against the best.

    The cells of each backbone and image size are ranked among themselves, unless `across_backbones` is true.
    """
    pairs, ranks = {}, {}
    for column, rows in columns.items():
        groups: dict[str, dict[str, Cell]] = {}
        for label, cell in rows.items():
            if not cell.collapsed:
                groups.setdefault("" if across_backbones else cell.backbone, {})[label] = cell
        for ranked in groups.values():
            means = {label: round(cell.mean, DIGITS) for label, cell in ranked.items()}
            order = sorted(set(means.values()), reverse=True)
            best = next(label for label, mean in means.items() if mean == order[0])
            for label, cell in ranked.items() if len(ranked) > 1 else ():
                ranks[column, label] = order.index(means[label]) + 1
                if label != best and (pair := paired(ranked[best], cell)):
                    pairs[column, label] = pair
    tests = dict(zip(pairs, paired_test(list(pairs.values()), test), strict=True))
    return {
        column: {
            label: Ranked(
                rank if (rank := ranks.get((column, label), 0)) <= 2 else 0, tests.get((column, label))
            )
            for label in rows
        }
        for column, rows in columns.items()
    }
