"""The table of results: methods by datasets and code lengths, with means over seeds and the best marked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hashbench.report.aggregate import Cell, Column, by_split, cells, in_order
from hashbench.report.significance import DESCRIBED, PairedTest
from hashbench.report.tables.published import Published, published_columns, published_notes, with_published
from hashbench.report.tables.ranking import Ranked, rank_cells
from hashbench.report.tables.table import ColumnHeader, Table, TableCell, number
from hashbench.results.selection import FoundRuns
from hashbench.results.stored_run import StoredRun, common_changes, label_of

LEVEL, UNTESTED, COLLAPSED, OTHER_SEEDS, MIXED, UNFINISHED = "≈", "¶", "‡", "†", "‖", "§"
DIVISORS = {
    "hits": "the hits in the top K",
    "relevant": "min(K, all relevant)",
    "all_relevant": "all relevant",
}
FOREIGN_CODES = "(foreign): codes that another program made."
EXPLAINED = {
    LEVEL: "not distinguishable from the best of its column",
    UNTESTED: "not tested against the best of its column",
    COLLAPSED: "codes collapsed",
    MIXED: "its seeds were run by different versions of the source code",
    UNFINISHED: "not finished: failed, stopped, or still running",
}


def result_table(
    selected: FoundRuns,
    *,
    bounds: bool = False,
    published: Sequence[Published] = (),
    test: PairedTest = "bootstrap",
    across_backbones: bool = False,
    ranking: Mapping[Column, Mapping[str, Ranked]] | None = None,
) -> Table:
    """Return the table of results.

    Args:
        selected: The runs, from `select` with a metric.
        bounds: Show the lowest and highest value that the order of ties can give.
        published: Figures of papers, shown in separate columns.
        test: The test of the differences.
        across_backbones: Rank and test methods together even if their backbones or image sizes differ.
        ranking: The result of `rank_cells` with these options, if it is known already.

    Raises:
        UsageError: The runs cannot be compared in one table.
    """
    found = cells(selected.runs)
    ranking = ranking or rank_cells(found, test, across_backbones)
    pending = dict.fromkeys(
        (run.label, Column(run.dataset, run.protocol_name, run.bits)) for run in selected.unfinished
    )
    columns = in_order(dict.fromkeys([*found, *(column for _, column in pending)]))
    usual = _usual_seeds(cell for rows in found.values() for cell in rows.values())
    labels = dict.fromkeys([*selected.labels, *(run.label for run in selected.unfinished)])

    def table_cell(label: str, column: Column) -> TableCell:
        cell, unfinished = found.get(column, {}).get(label), (label, column) in pending
        if cell is None:
            return TableCell(marks=UNFINISHED if unfinished else "")
        ranked = ranking[column][label]
        marks = {
            LEVEL: ranked.level_with_best,
            UNTESTED: ranked.from_best and ranked.from_best.untested,
            COLLAPSED: cell.collapsed,
            OTHER_SEEDS: cell.seeds != usual,
            MIXED: cell.code_versions > 1,
            UNFINISHED: unfinished,
        }
        shown = "".join(mark for mark, applies in marks.items() if applies)
        below = interval(cell) if bounds else ""
        return TableCell(number(cell.mean), spread(cell), ranked.rank, shown, below)

    rows = [(label, [table_cell(label, column) for column in columns]) for label in labels]
    heads = [ColumnHeader(f"{c.bits} bits", c.split_name) for c in columns]
    if several := several_backbones(found):
        heads.insert(0, ColumnHeader("backbone", content="text"))
        for label, row in rows:
            row.insert(0, _backbone_cell(column[label] for column in found.values() if label in column))
    printed = published_columns(published, columns)
    return Table(
        caption=_caption(selected, usual, bounds, several and not across_backbones),
        corner="method",
        heads=[*heads, *printed],
        rows=with_published(rows, printed, len(heads)),
        notes=[
            *_notes_on_runs(selected),
            *_notes(found, ranking, test, usual),
            *_notes_on_unfinished(selected),
            *published_notes(printed),
        ],
    )


def _backbone_cell(used: Iterable[Cell]) -> TableCell:
    """Return a cell that names the backbones of others, with the image size on a line of its own."""
    *name, size = "; ".join(dict.fromkeys(cell.backbone for cell in used)).rsplit(", ", 1)
    return TableCell(f"{name[0]},", below=size) if name else TableCell(size)


def _notes_on_runs(selected: FoundRuns) -> list[str]:
    """Return notes on what is left out, on the names of rows, and on foreign codes."""
    notes = [f"{note[0].upper()}{note[1:]}." for note in selected.shown_notes]
    notes += [f"{name} is {settings}." for name, settings in selected.settings.items()]
    return notes + ([FOREIGN_CODES] if any(run.record.foreign for run in selected.runs) else [])


def _notes_on_unfinished(selected: FoundRuns) -> list[str]:
    return [
        f"{UNFINISHED} {run.label}, seed {run.seed}: {EXPLAINED[UNFINISHED]}; if it is not wanted, "
        f"delete {run.folder}."
        for run in selected.unfinished
    ]


def several_backbones(columns: Mapping[Column, Mapping[str, Cell]]) -> bool:
    """Return True if methods on the same split differ in their backbone or image size."""
    return any(len({cell.backbone for cell in rows.values()}) > 1 for rows in columns.values())


def caption_sentences(runs: Sequence[StoredRun], seeds: Sequence[int]) -> list[str]:
    """Describe the metrics of runs and the protocols they were measured by, in sentences for a caption."""
    groups = by_split(runs)
    metrics = dict.fromkeys(run.metric for run in runs)
    measures = ", ".join(metrics)
    if len(metrics) > 1:
        measures = ", ".join(f"{group[0].metric} on {name}" for name, group in groups.items())
    ties = "expectation over all orders of equal distances"
    over = "mean ± standard deviation over seeds" if len(seeds) > 1 else "seed"
    sentences = [f"{measures}, {ties}; {over} {', '.join(map(str, seeds))}."]
    if common := common_changes(runs):
        sentences.append(f"{label_of('All runs', common)}.")
    return sentences + [f"{name}: {_protocol(group)}." for name, group in groups.items()]


def _protocol(runs: Sequence[StoredRun]) -> str:
    """Describe how runs of one split were measured, and their backbone if they share it."""
    record, metric = runs[0].record, runs[0].metric
    split, evaluation = record.split, record.config["evaluation"]
    trained: dict[int, dict[str, None]] = {}  # rows by their number of training images
    for run in runs:
        trained.setdefault(run.record.split.train, {})[run.label] = None
    text = f"{split.query:,} queries, {max(trained):,} training and {split.database:,} database images"
    for count in sorted(trained.keys() - {max(trained)}):  # by max_images, or without validation images
        text += f"; {', '.join(trained[count])} trained on {count:,} of them"
    if any(warning.startswith("limited to ") for warning in split.warnings):
        text += ", a small part of the protocol for a first try"
    if evaluation["relevance"] == "neighbours":
        text += (
            f"; relevant to a query are the {evaluation['neighbours']} images nearest to it by features of "
            "the backbone before training, whatever their labels"
        )
    if metric.startswith("mAP"):
        text += f"; AP@K divides by {DIVISORS[evaluation['denominator']]}"
    if record.queries_without_relevant:
        counts = {"zero": "count 0", "skip": "are left out"}[evaluation["no_relevant"]]
        text += f"; {record.queries_without_relevant:,} queries without anything relevant {counts}"
    if len(backbones := {run.backbone for run in runs}) == 1:
        text += f"; backbone {backbones.pop()}"
    if len(parts := {run.record.config["recipe"] for run in runs}) == 1 and (part := parts.pop()):
        text += f"; {part} recipes"
    return text


def _caption(selected: FoundRuns, seeds: Sequence[int], bounds: bool, by_backbone: bool) -> str:
    sentences = caption_sentences(selected.runs, seeds)
    if bounds:
        sentences.append("In brackets what the unluckiest and the luckiest order of equal distances give.")
    among = " of the methods with the same backbone and image size" if by_backbone else ""
    sentences.append(f"Best{among} bold, second underlined.")
    return " ".join(sentences)


def spread(cell: Cell) -> str:
    """Format the standard deviation beside a mean; that of a single seed is empty."""
    return "" if cell.deviation is None else f"± {number(cell.deviation)}"


def interval(cell: Cell) -> str:
    """Format the bounds of a mean over all orders of ties."""
    return f"[{number(cell.lowest)}, {number(cell.highest)}]"


def _usual_seeds(found: Iterable[Cell]) -> tuple[int, ...]:
    counts = Counter(cell.seeds for cell in found)
    return max(counts, key=lambda seeds: (counts[seeds], len(seeds)), default=())


def _notes(
    columns: Mapping[Column, Mapping[str, Cell]],
    ranking: Mapping[Column, Mapping[str, Ranked]],
    test: PairedTest,
    usual: Sequence[int],
) -> list[str]:
    notes = []
    all_ranked = [ranked for column in ranking.values() for ranked in column.values()]
    if any(ranked.level_with_best for ranked in all_ranked):
        notes.append(f"{LEVEL} {EXPLAINED[LEVEL]} ({DESCRIBED[test]}).")
    reasons = dict.fromkeys(ranked.from_best.untested for ranked in all_ranked if ranked.from_best)
    notes += [f"{UNTESTED} {EXPLAINED[UNTESTED]}: {reason}." for reason in reasons if reason]
    metrics = {cell.metric for rows in columns.values() for cell in rows.values()}
    if not all(metric.startswith("mAP") for metric in metrics):
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
            if cell.metric.startswith("mAP") and cell.average_precisions is None:
                notes.append(f"{where}: AP of the queries is not stored, so that nothing was tested.")
    return notes
