"""The tables as CSV files for further computation: one line per cell, numbers in full precision."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from hashbench.report.aggregate import Cell, cells
from hashbench.report.significance import Difference, PairedTest
from hashbench.report.tables.ablation_table import Ablation
from hashbench.report.tables.published import Published, published_columns
from hashbench.report.tables.ranking import rank_cells
from hashbench.results.selection import FoundRuns

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes text that begins so for a formula


def result_csv(
    selected: FoundRuns,
    published: Sequence[Published] = (),
    test: PairedTest = "bootstrap",
    across_backbones: bool = False,
) -> str:
    """Format the table of results; the kind of a line is measured, published or unfinished.

    Raises:
        UsageError: The runs cannot be compared in one table.
    """
    columns = cells(selected.runs)
    ranking = rank_cells(columns, test, across_backbones)
    lines: list[dict[str, Any]] = []
    for column, rows in columns.items():
        for label, cell in rows.items():
            ranked = ranking[column][label]
            line = {"kind": "measured", "method": label, **column._asdict(), **_values(cell)}
            line |= {"settings": cell.runs[0].note} if cell.runs[0].note else {}
            lines.append(line | {"place": ranked.rank or None} | _test("best_minus_this", ranked.from_best))
    for figures in published_columns(published, columns).values():
        for figure in figures.values():
            line = figure.model_dump(include={"method", "dataset", "bits", "source", "note"})
            lines.append({"kind": "published", **line, "metric": "mAP", "mean": figure.map})
    for run in selected.unfinished:
        kind = {"method": run.label, "dataset": run.dataset, "protocol": run.protocol_name, "bits": run.bits}
        lines.append({"kind": "unfinished", **kind, "note": run.run_id})
    return csv_text(lines)


def ablation_csv(found: Sequence[Ablation]) -> str:
    """Format ablation tables, one below the other."""
    lines = [
        {
            "method": ablation.method,
            **ablation.column._asdict(),
            "without": "; ".join(variant.without),
            **_values(variant.cell),
            **_test("gain", variant.gain),
        }
        for ablation in found
        for variant in ablation.variants
    ]
    return csv_text(lines)


def csv_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """Format lines as CSV, with a column for each key in the order of first occurrence."""
    text = io.StringIO()
    fields = dict.fromkeys(key for line in lines for key in line)
    writer = csv.DictWriter(text, list(fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: without_formula(value) for key, value in line.items()} for line in lines)
    return text.getvalue()


def without_formula(value: Any) -> Any:
    """Quote text that a spreadsheet would take for a formula, which could run a program."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _values(cell: Cell) -> dict[str, Any]:
    return {
        "backbone": cell.backbone,
        "metric": cell.metric,
        "mean": cell.mean,
        "std": cell.deviation,
        "lowest": cell.lowest,
        "highest": cell.highest,
        "seeds": " ".join(map(str, cell.seeds)),
        "collapsed_seeds": " ".join(map(str, cell.collapsed)),
        "code_versions": cell.code_versions,
    }


def _test(name: str, test: Difference | None) -> dict[str, Any]:
    names = (name, "interval_low", "interval_high", "p", "test", "untested")
    return dict(zip(names, astuple(test) if test else (None,) * len(names), strict=True))
