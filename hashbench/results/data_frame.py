"""All records of a folder as a table for further analysis in Python."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hashbench.results.query import RunFilter, find
from hashbench.results.stored_run import StoredRun
from hashbench.runtime.arguments import as_path

_COLUMNS = (
    "run_id", "label", "method", "dataset", "protocol", "bits", "seed", "relevance", "backbone", "image_size",
    "created", "collapsed", "folder",
)  # fmt: skip


def read_results(path: Path | str = "results/runs") -> pd.DataFrame:
    """Read all records of a results folder.

    A record that cannot be read is left out, with a warning that names it.

    Args:
        path: The results folder.

    Returns:
        One row for each run: its id; its label, which is the method with its changed settings; method,
        dataset, protocol, bits, seed, relevance (labels or neighbours), backbone and image size; when it was
        created; whether its codes collapsed; its folder; and a column for each metric, which is NaN for runs
        without it.

    Raises:
        UsageError: The folder does not exist.
    """
    runs, _, notes = find(as_path(path, "path"), RunFilter())
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return data_frame(runs)


def data_frame(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return runs as a data frame; see `read_results`."""
    rows = [
        {
            **{name: getattr(run.record, name) for name in _COLUMNS if hasattr(run.record, name)},
            "label": run.label,
            "relevance": run.record.config["evaluation"]["relevance"],
            "backbone": run.record.config["backbone"]["name"],
            "image_size": run.record.config["images"]["size"],
            "collapsed": run.record.health.collapsed,
            "folder": str(run.folder),
            **{name: metric.expected for name, metric in run.record.metrics.items()},
        }
        for run in runs
    ]
    metrics = dict.fromkeys(name for run in runs for name in run.record.metrics)
    return pd.DataFrame(rows, columns=[*_COLUMNS, *metrics])
