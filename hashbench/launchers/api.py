"""The command `hashbench run` as functions."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hashbench import registry
from hashbench.experiment.definition import Experiment, read_experiment
from hashbench.experiment.run import Run
from hashbench.launchers.execute import report_failures, run_all
from hashbench.launchers.grid import Execution, Grid
from hashbench.recipe import check_settings
from hashbench.results.data_frame import data_frame
from hashbench.results.stored_run import StoredRun
from hashbench.runtime.arguments import as_path

RESULTS = Path("results/runs")
_TURN = threading.RLock()  # the random generators and the claims of runs belong to the whole process


def run(
    method: str,
    dataset: str,
    *,
    bits: int = 32,
    seed: int = 0,
    protocol: str | None = None,
    backbone: str | None = None,
    settings: Mapping[str, Any] | None = None,
    results: Path | str = RESULTS,
    data_root: Path | str | None = None,
    data: Mapping[str, Any] | None = None,
    limit: int | None = None,
    plugins: Sequence[Path | str] = (),
    allow_overlap: bool = False,
    **execution: Any,
) -> Run:
    """Train a method on a dataset and evaluate its codes, unless the run has a record already.

    Calls in several threads of a process are carried out one after another.

    Args:
        method: Name of a registered method.
        dataset: Name of a registered dataset.
        bits: Length of the codes.
        seed: Random seed.
        protocol: Protocol that splits the dataset; None: its first.
        backbone: Name of the backbone; None: that of the recipe.
        settings: Settings that override the recipe, such as `{"training.epochs": 10}`; `{"recipe": "laptop"}`
            chooses its part for machines without a GPU.
        results: The results folder.
        data_root: Folder of the data; None: `$HASHBENCH_DATA`, else `~/.cache/hashbench/data`.
        data: Options of the dataset, such as `{"seed": 1}`.
        limit: Number of images to use of each part, for a first try; None: all.
        plugins: Files of plugins to register first.
        allow_overlap: Accept queries that are also in the database.
        **execution: Attributes of `hashbench.launchers.grid.Execution`, such as `device="cpu"`,
            `workers=4`, `resume=True` or `force=True`; they change no result.

    Returns:
        The run, with its record and its folder.

    Raises:
        UsageError: A name, a setting or a value is invalid.
        HashbenchError: The data is missing, or the run failed.

    Example:
        >>> run = hashbench.run("lsh", "digits", bits=16, results="runs")
        >>> round(run.record.metrics["mAP@all"].expected, 1)
        0.4
        >>> run.folder.parts[:4]
        ('runs', 'digits@default', 'lsh', '16bit')
    """
    chosen = {"name": dataset, "protocol": protocol, "root": data_root, "limit": limit, "options": data or {}}
    experiment = {
        "methods": [method],
        "datasets": [chosen],
        "bits": [bits],
        "seeds": [seed],
        "backbones": [] if backbone is None else [backbone],
        "settings": settings or {},
        "plugins": plugins,
        "allow_overlap": allow_overlap,
    }
    (done,) = _carry_out(read_experiment(experiment), results, execution)
    return done


def run_experiment(
    experiment: str | Path | Mapping[str, Any],
    *,
    results: Path | str = RESULTS,
    **execution: Any,
) -> pd.DataFrame:
    """Carry out the runs of an experiment; those that have a record are not repeated.

    Args:
        experiment: A YAML file or its content, or the name of an experiment that comes with hashbench.
        results: The results folder.
        **execution: As for `run`.

    Returns:
        A row for each run, as by `read_results`, in the order of the experiment; those that other processes
        have carried out meanwhile come last.

    Raises:
        UsageError: There is no such experiment, or a key, name or value is invalid.
        HashbenchError: Runs have failed; the others have records.

    Example:
        >>> runs = hashbench.run_experiment({"methods": ["lsh"], "datasets": ["digits"], "bits": [8, 16]})
        >>> list(runs["bits"])
        [8, 16]
    """
    runs = _carry_out(read_experiment(experiment), results, execution)
    return data_frame([StoredRun(done.record, done.folder) for done in runs])


def _carry_out(experiment: Experiment, results: Path | str, execution: Mapping[str, Any]) -> list[Run]:
    checked = check_settings("option", Execution, execution)
    wanted = Grid(experiment, as_path(results, "results"), checked)
    with _TURN:
        for file in experiment.plugins:
            registry.add_plugin_file(file)
        experiment.require_registered()
        device, options = wanted.execution.init()
        planned, failed = wanted.plan(device), list[str]()
        runs = list(run_all(planned, wanted, options, failed))
        report_failures(failed, len(planned))
        return runs
