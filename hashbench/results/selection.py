"""Selection of the runs for a report: the newest of each configuration, and only what can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hashbench.config import flatten
from hashbench.errors import UsageError
from hashbench.results.query import RunFilter, find, matching
from hashbench.results.record import Record
from hashbench.results.row_names import with_row_names
from hashbench.results.stored_run import StoredRun, Unfinished
from hashbench.runtime.yaml_values import as_set


@dataclass(frozen=True)
class FoundRuns:
    """The runs that were found.

    Attributes:
        runs: One run for each seed and configuration, in the order of the filter, else by name.
        labels: The different labels of the runs, by method and then by changed settings.
        unfinished: Matching runs that have no record.
        notes: Remarks for the reader, such as which runs are left out, and why.
        shown_notes: Those of the notes that belong under a table: on runs that an experiment lacks, and on
            those that are left out since they were measured otherwise or by other metrics.
    """

    runs: list[StoredRun]
    labels: list[str]
    unfinished: list[Unfinished]
    notes: list[str]
    shown_notes: Sequence[str] = ()

    @property
    def settings(self) -> dict[str, str]:
        """The method and its changed settings, by label, for labels that do not say them."""
        every: list[StoredRun | Unfinished] = [*self.runs, *self.unfinished]
        return {run.label: run.note for run in every if run.note}


def select(results: Path, wanted: RunFilter, metric: str | None = "") -> FoundRuns:
    """Find the runs that a filter admits. Only their `record.json` is read.

    If several runs have the same configuration and seed, for example after a change of the code, the newest
    is used. What else is left out, `found_runs` says. Notes report all of it.

    Raises:
        UsageError: The folder does not exist, no run matches or has the metric, or a key of `where` is
            unknown.
    """
    found, unfinished, notes = find(results, wanted)
    runs = matching(found, wanted)
    expected = wanted.expected
    missing = expected.missing([run.record for run in found]) if expected else []
    if not runs:
        everything, others, _ = find(results, RunFilter())
        why = (
            wanted.unmatched([*everything, *others])[:1]
            or missing
            or [f"{run.run_id} has not finished" for run in unfinished[:1]]
            or notes[:1]
        )
        raise UsageError("; ".join([f"{results} has no such run", *why, "`hashbench results` lists all"]))
    absent = wanted.unmatched([*found, *unfinished])
    runs, older = _newest(runs)
    if expected is not None and metric is None:
        metric = expected.metric
    selected = found_runs(runs, metric, wanted, unfinished)
    notes = [*missing, *(f"left out: {note}" for note in notes), *absent, *older, *selected.notes]
    return replace(selected, notes=notes, shown_notes=[*missing, *selected.shown_notes])


def found_runs(
    runs: Sequence[StoredRun],
    metric: str | None = None,
    wanted: RunFilter | None = None,
    unfinished: Sequence[Unfinished] = (),
) -> FoundRuns:
    """Return runs in order, with labels, and with the metric that a report shows of them.

    Runs that were not measured like most others of their protocol are left out, and so are those without the
    metric.

    Args:
        runs: The runs.
        metric: Name of the metric; None: of each protocol, the mAP that its recipes put first; empty: none.
        wanted: Filter whose order of names the runs follow.
        unfinished: Runs that have no record.

    Raises:
        UsageError: No run has the metric.
    """
    wanted = wanted or RunFilter()
    runs, unfinished = share_common(runs, unfinished)
    finished = {_label_key(run) for run in runs}
    # Others were finished by another version of the code.
    unfinished = [run for run in unfinished if _label_key(run) not in finished]
    runs, incomparable = _comparable(runs)
    runs, missing = _with_metric(runs, metric)
    runs, unfinished = with_row_names(runs, unfinished, wanted.rename)
    runs = sorted(runs, key=lambda run: _order(run, wanted))
    labels = dict.fromkeys(run.label for run in sorted(runs, key=lambda run: _row_order(run, wanted)))
    notes = [*incomparable, *missing, *_mixed_code(runs)]
    return FoundRuns(runs, list(labels), unfinished, notes, [*incomparable, *missing])


def measured(record: Record) -> dict[str, Any]:
    """Return what figures of one protocol must share to be comparable, by key of a record."""
    evaluation = record.config["evaluation"]
    features: dict[str, Any] = {}
    if evaluation["relevance"] == "neighbours":
        features = flatten({section: record.config[section] for section in ("backbone", "images")})
        del features["backbone.freeze_batch_norm"]  # of training
        features["evaluation.neighbours"] = evaluation["neighbours"]
    return {
        **{path: as_set(value) for path, value in features.items()},
        "split.sha256": record.split.sha256,
        "evaluation.relevance": evaluation["relevance"],
        "evaluation.denominator": evaluation["denominator"],
        "evaluation.no_relevant": evaluation["no_relevant"],
        "evaluator": record.evaluator,
    }


def share_common(
    runs: Sequence[StoredRun], unfinished: Sequence[Unfinished] = ()
) -> tuple[list[StoredRun], list[Unfinished]]:
    """Return the runs with labels that leave out the changed settings that all of them share."""
    every: list[StoredRun | Unfinished] = [*runs, *unfinished]
    known = [run.changes for run in every if run.changes is not None]
    first, *others = known or [{}]
    common = frozenset(p for p, v in first.items() if all(p in other and other[p] == v for other in others))
    common = common if others else frozenset()
    return [replace(run, common=common) for run in runs], [replace(run, common=common) for run in unfinished]


def _newest(runs: Iterable[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    newest: dict[tuple[Any, ...], StoredRun] = {}
    notes = []
    for run in sorted(runs, key=lambda run: run.record.created):
        settings = tuple(sorted((path, repr(value)) for path, value in run.settings.items()))
        key = (run.record.split.sha256, run.record.seed, settings)
        if key in newest:
            older = newest[key].record.run_id
            notes.append(f"{older} is left out: {run.record.run_id} has the same settings and is newer")
        newest[key] = run
    return list(newest.values()), notes


def _comparable(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """Return the runs that were measured like most others of their protocol, and notes on the others."""
    groups: dict[str, dict[tuple[Any, ...], list[StoredRun]]] = {}
    for run in runs:
        by_facts = groups.setdefault(run.record.split_name, {})
        by_facts.setdefault(tuple(measured(run.record).items()), []).append(run)
    kept, notes = [], []
    for name, by_facts in groups.items():
        facts, most = max(by_facts.items(), key=lambda item: len(item[1]))
        kept += most
        for other, group in by_facts.items():
            if other != facts:
                key, value = next(fact for fact in other if fact not in facts)
                more = f" and {len(group) - 1} more" if len(group) > 1 else ""
                notes.append(
                    f"left out of {name}: {group[0].record.run_id}{more}, since {key} is {value} and not "
                    f"{dict(facts)[key]}; --where {key}={value} selects such runs"
                )
    return kept, notes


def _with_metric(runs: list[StoredRun], metric: str | None) -> tuple[list[StoredRun], list[str]]:
    """Return the runs that have the metric, with its name, and notes on the others."""
    if metric == "":
        return runs, []
    first: dict[str, Counter[str]] = {}
    for run in runs:
        first.setdefault(run.record.split_name, Counter())[run.record.first_metric] += 1
    chosen = {name: metric or counts.most_common(1)[0][0] for name, counts in first.items()}
    runs = [replace(run, metric=chosen[run.record.split_name]) for run in runs]
    found = [run for run in runs if run.metric in run.record.metrics]
    if not found:
        known = ", ".join(dict.fromkeys(name for run in runs for name in run.record.metrics))
        raise UsageError(f"no run has {metric}; choose --metric from {known}")
    left_out = dict.fromkeys((run.label, run.metric) for run in runs if run.metric not in run.record.metrics)
    return found, [f"{label} is left out where it has no {name}" for label, name in left_out]


def _mixed_code(runs: Iterable[StoredRun]) -> list[str]:
    """Return a note for each mean over runs of different source code."""
    sources: dict[tuple[str, ...], set[Any]] = {}
    for run in runs:
        record = run.record
        where = run.label, record.split_name, f"{record.bits} bits"
        sources.setdefault(where, set()).add(record.environment.get("source"))
    return [
        f"the seeds of {', '.join(where)} were run by {len(found)} versions of the source code"
        for where, found in sources.items()
        if len(found) > 1
    ]


def _label_key(run: StoredRun | Unfinished) -> tuple[Any, ...]:
    record = run.record if isinstance(run, StoredRun) else run
    return run.label, record.dataset, record.protocol_name, record.bits, record.seed


def _order(run: StoredRun, wanted: RunFilter) -> tuple[Any, ...]:
    record = run.record
    column = _rank(record.dataset, wanted.datasets), _rank(record.protocol, wanted.protocols)
    return (*column, record.split_name, _row_order(run, wanted), record.bits, record.seed)


def _row_order(run: StoredRun, wanted: RunFilter) -> tuple[Any, ...]:
    record = run.record
    return _rank(record.method, wanted.methods), bool(record.changes), run.label


def _rank(name: str, asked: Sequence[str]) -> tuple[int, str]:
    """Return a key that sorts names in the order of the filter, else by name."""
    return (list(asked).index(name) if asked else 0), name
