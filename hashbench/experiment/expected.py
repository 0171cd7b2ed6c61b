"""The configurations of the runs of an experiment, without their data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hashbench.data.load import create_dataset
from hashbench.experiment.definition import Experiment
from hashbench.experiment.plan import config_without_data, runs_of
from hashbench.results.expected import ExpectedRun, ExpectedRuns
from hashbench.results.query import RunFilter


def filter_of(experiment: Experiment, wanted: RunFilter | None = None) -> RunFilter:
    """Return a filter for the runs of an experiment; their order in reports is that of the experiment.

    Args:
        experiment: The experiment.
        wanted: Filter that the runs must match, too.

    Raises:
        UsageError: As by `config_without_data`.
    """
    wanted = wanted or RunFilter()
    expected = expected_runs(experiment)
    runs = [run for run in expected.runs if _is_wanted(run.config, wanted)]
    return replace(
        wanted,
        methods=wanted.methods or list(dict.fromkeys(entry.name for entry in experiment.methods)),
        datasets=wanted.datasets or list(dict.fromkeys(entry.name for entry in experiment.datasets)),
        expected=replace(expected, runs=runs),
    )


def _is_wanted(config: Mapping[str, Any], wanted: RunFilter) -> bool:
    names = (config[key] for key in ("dataset", "protocol", "method", "bits"))
    chosen = (config["seed"], wanted.seeds), (config["backbone"]["name"], wanted.backbones)
    return wanted.admits(*names) and all(not among or value in among for value, among in chosen)


def expected_runs(experiment: Experiment) -> ExpectedRuns:
    """Return the runs of an experiment, to find their records.

    Raises:
        UsageError: As by `config_without_data`.
    """
    found = []
    # The runs that differ in their seed alone follow each other.
    for _, group in itertools.groupby(runs_of(experiment), lambda run: replace(run, seed=0)):
        first, *others = group
        config = config_without_data(first)
        defaults = create_dataset(first.chosen.name).options.model_dump(mode="json")
        label = f"{first.method} ({', '.join(first.settings)})" if first.settings else first.method
        for run in (first, *others):
            name = f"{label} on {config.dataset}@{config.protocol}, {run.bits} bits, seed {run.seed}"
            seeded = config.model_copy(update={"seed": run.seed})
            found.append(ExpectedRun(name, seeded.model_dump(mode="json"), defaults))
    report = experiment.report
    return ExpectedRuns(experiment.name, found, report.metric, report.published, report.bounds)
