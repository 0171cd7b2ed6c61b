"""The plot of the difference of two methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

import pandas as pd

from hashbench.report.compare import MethodDifference
from hashbench.report.plots.style import Plot, panels, set_title, style


def difference_plot(labels: tuple[str, str], differences: Sequence[MethodDifference]) -> Plot:
    """Plot the difference of two methods with its 95 % interval, with a panel for each dataset.

    Args:
        labels: The labels of the methods, from `compare_methods`.
        differences: Their differences.

    Returns:
        The plot; `data` has a row for each difference.
    """
    shown = [(split, list(rows)) for split, rows in groupby(differences, key=lambda row: row.split)]
    with style():
        figure, axes = panels(len(shown), height=2.4)
        for axis, (split, rows) in zip(axes, shown, strict=True):
            for place, row in enumerate(rows):
                found = row.difference
                axis.plot(place, found.mean, "o", color="black")
                if found.lowest is not None and found.highest is not None:
                    axis.vlines(place, found.lowest, found.highest, color="black")
            axis.axhline(0, color="grey", linewidth=0.8)
            axis.set_xticks(range(len(rows)), ["all" if len(r.bits) > 1 else str(r.bits[0]) for r in rows])
            axis.set_xlim(-0.5, len(rows) - 0.5)
            axis.set(xlabel="Code length (bits)", ylabel=f"{rows[0].metric}, {' − '.join(labels)}")
            set_title(axis, split)
    return Plot(
        figure,
        pd.DataFrame(
            {
                "split": row.split,
                "bits": " ".join(map(str, row.bits)),
                "seeds": " ".join(map(str, row.seeds)),
                "metric": row.metric,
                **dict(zip(("first", "second"), row.means, strict=True)),
                **asdict(row.difference),
            }
            for row in differences
        ),
    )
