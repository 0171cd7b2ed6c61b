"""The table of results: methods against datasets and code lengths, means over seeds, what is best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hashbench.report.aggregate import Cell, Column, cells, in_order
from hashbench.report.significance import DESCRIBED, PairedTest
from hashbench.report.tables.marks import Mark, mark
from hashbench.report.tables.published import Published, published_columns, published_notes, with_published
from hashbench.report.tables.table import ColumnHeader, Table, TableCell, number
from hashbench.results.query import FoundRuns
from hashbench.results.record import Record
from hashbench.results.stored_run import StoredRun, Unfinished, common_changes, label_of

LEVEL, UNTESTED, COLLAPSED, OTHER_SEEDS, MIXED, UNFINISHED = "≈", "¶", "‡", "†", "‖", "§"
EXPLAINED = {
    LEVEL: "not distinguishable from the best of its column",
    UNTESTED: "not tested against the best of its column",
    COLLAPSED: "codes collapsed",
    MIXED: "its seeds were run by different versions of the source code",
    UNFINISHED: "not finished: failed, stopped, or still running",
}


def result_grid(
    selected: FoundRuns,
    metric: str,
    *,
    bounds: bool = False,
    published: Sequence[Published] = (),
    test: PairedTest = "bootstrap",
) -> Table:
    """The table of results.

    Args:
        selected: The runs, from `select`.
        metric: A metric of all of them.
        bounds: Show what the order of ties could make of a figure.
        published: Figures of papers, for columns of their own.
        test: The test of the differences.

    Raises:
        UsageError: Figures cannot stand in one table.
    """
    found = cells(selected.runs, metric)
    marks = mark(found, test)
    pending = dict.fromkeys(
        (run.label, Column(run.dataset, run.protocol, run.bits)) for run in selected.unfinished
    )
    columns = in_order(dict.fromkeys([*found, *(column for _, column in pending)]))
    usual = _usual_seeds(cell for rows in found.values() for cell in rows.values())
    labels = dict.fromkeys([*selected.labels, *(run.label for run in selected.unfinished)])

    def entry(label: str, column: Column) -> TableCell:
        cell, unfinished = found.get(column, {}).get(label), (label, column) in pending
        if cell is None:
            return TableCell(marks=UNFINISHED if unfinished else "")
        where = marks[column][label]
        signs = {
            LEVEL: where.level_with_best,
            UNTESTED: where.from_best and where.from_best.untested,
            COLLAPSED: cell.collapsed,
            OTHER_SEEDS: cell.seeds != usual,
            MIXED: cell.code_versions > 1,
            UNFINISHED: unfinished,
        }
        return TableCell(
            number(cell.mean),
            spread(cell, bounds),
            where.place,
            "".join(s for s, has in signs.items() if has),
        )

    rows = [(label, [entry(label, column) for column in columns]) for label in labels]
    heads = [ColumnHeader(f"{c.bits} bits", f"{c.dataset}@{c.protocol}") for c in columns]
    printed = published_columns(published, columns)
    return Table(
        caption=_caption(selected, metric, usual, bounds),
        corner="method",
        heads=[*heads, *printed],
        rows=with_published(rows, printed, len(heads)),
        notes=[*_notes(metric, found, marks, test, usual, selected.unfinished), *published_notes(printed)],
    )


def described(metric: str, runs: Sequence[StoredRun], seeds: Sequence[int], several: str) -> list[str]:
    """What a metric is and on what it was measured: sentences for a caption.

    Args:
        metric: Its name.
        runs: The runs.
        seeds: The seeds of a usual cell.
        several: What is said of the mean over seeds.
    """
    ties = "expectation over all orders of equal distances"
    over = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {', '.join(map(str, seeds))}"
    sentences = [f"{metric}, {ties}; {several if len(seeds) > 1 else ''}{over}."]
    if common := common_changes(runs):
        sentences.append(f"{label_of('All runs', common)}.")
    by_protocol: dict[str, Record] = {}
    for record in (run.record for run in runs):
        by_protocol.setdefault(f"{record.dataset}@{record.protocol}", record)
    for name, record in by_protocol.items():
        split, evaluation = record.split, record.config["evaluation"]
        divisor = {"hits": "the hits in the top K", "relevant": "min(K, all relevant)"}
        images = f"{split.train:,} training and {split.database:,} database images"
        text = f"{name}: {split.query:,} queries, {images}"
        if metric.startswith("mAP"):
            text += f"; AP@K divides by {divisor[evaluation['denominator']]}"
        if record.queries_without_relevant:
            counts = {"zero": "count 0", "skip": "are left out"}[evaluation["no_relevant"]]
            text += f"; {record.queries_without_relevant:,} queries without anything relevant {counts}"
        sentences.append(f"{text}.")
    return sentences


def _caption(selected: FoundRuns, metric: str, seeds: Sequence[int], bounds: bool) -> str:
    sentences = described(metric, selected.runs, seeds, "mean ± standard deviation over ")
    if bounds:
        sentences.append("In brackets what the unluckiest and the luckiest order of equal distances give.")
    sentences.append("Best bold, second underlined.")
    return " ".join(sentences)


def spread(cell: Cell, bounds: bool = False) -> str:
    """What stands beside a mean: the standard deviation and, if asked for, the bounds of tie order."""
    parts = [f"± {number(cell.deviation)}"] if cell.deviation is not None else []
    if bounds:
        parts.append(f"[{number(cell.lowest)}, {number(cell.highest)}]")
    return " ".join(parts)


def _usual_seeds(found: Iterable[Cell]) -> tuple[int, ...]:
    counts = Counter(cell.seeds for cell in found)
    return max(counts, key=lambda seeds: (counts[seeds], len(seeds)), default=())


def _notes(
    metric: str,
    columns: Mapping[Column, Mapping[str, Cell]],
    marks: Mapping[Column, Mapping[str, Mark]],
    test: PairedTest,
    usual: Sequence[int],
    unfinished: Sequence[Unfinished],
) -> list[str]:
    notes = []
    places = [where for column in marks.values() for where in column.values()]
    if any(where.level_with_best for where in places):
        notes.append(f"{LEVEL} {EXPLAINED[LEVEL]} ({DESCRIBED[test]}).")
    reasons = dict.fromkeys(where.from_best.untested for where in places if where.from_best)
    notes += [f"{UNTESTED} {EXPLAINED[UNTESTED]}: {reason}." for reason in reasons if reason]
    if not metric.startswith("mAP"):
        notes.append("Differences are not tested; those of mAP are.")
    for column, cells_ in columns.items():
        for label, cell in cells_.items():
            where = f"{label}, {column}"
            if cell.collapsed:
                seeds = ", ".join(map(str, cell.collapsed))
                notes.append(f"{COLLAPSED} {where}: {EXPLAINED[COLLAPSED]} (seed {seeds}); not ranked.")
            if cell.seeds != tuple(usual):
                seeds = ", ".join(map(str, cell.seeds))
                shared = "tested over the seeds that it shares with the best, if any"
                notes.append(f"{OTHER_SEEDS} {where}: seed {seeds}; {shared}.")
            if cell.code_versions > 1:
                notes.append(f"{MIXED} {where}: {EXPLAINED[MIXED]} ({cell.code_versions} of them).")
            if metric.startswith("mAP") and cell.average_precisions is None:
                notes.append(f"{where}: AP of the queries is not stored, so that nothing was tested.")
    notes += [
        f"{UNFINISHED} {run.label}, seed {run.seed}: {EXPLAINED[UNFINISHED]}; if it is not wanted, delete "
        f"{run.folder}."
        for run in unfinished
    ]
    return notes
