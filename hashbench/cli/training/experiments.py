"""Experiments: the command that lists those that come with hashbench, and the files of their reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hashbench.cli.options import AsJson
from hashbench.cli.output import print_json, show, write_ablations, write_results
from hashbench.errors import UsageError
from hashbench.runtime.console import info

if TYPE_CHECKING:
    from hashbench.launchers.grid import Grid

FOLDER = "experiments"  # in the results folder
_SUFFIXES = {"markdown": "md", "latex": "tex", "csv": "csv"}


def experiments(as_json: AsJson = False) -> None:
    """List the experiments that come with hashbench, and what each needs; run one by `run --config NAME`."""
    from hashbench.experiment.definition import read_experiment, shipped_experiments

    found = [read_experiment(path) for path in shipped_experiments().values()]
    if as_json:
        print_json([experiment.model_dump(mode="json", exclude_defaults=True) for experiment in found])
        return
    for experiment in found:
        show(f"{experiment.name}: {experiment.description}")
        for name, text in experiment.needs.model_dump().items():
            if text:
                show(f"  {name}: {text}")


def save_experiment(wanted: Grid) -> None:
    """Write the experiment of a file, as it is carried out, beside its results."""
    from hashbench.runtime.files import write_output

    if wanted.experiment.name:
        folder = _folder(wanted)
        folder.mkdir(parents=True, exist_ok=True)
        write_output(folder / "experiment.yaml", wanted.experiment.as_yaml().encode())


def write_reports(wanted: Grid) -> None:
    """Write the tables and plots of the experiment of a file beside its results."""
    experiment = wanted.experiment
    if not experiment.name:
        return
    from hashbench.experiment.expected import filter_of
    from hashbench.report.plots.curve_plots import pr_plot, training_plot
    from hashbench.report.plots.metric_plots import bits_plot, speed_plot
    from hashbench.report.tables.published import read_published
    from hashbench.results.selection import select
    from hashbench.runtime.files import write_output

    folder, shown, runs = _folder(wanted), experiment.report, filter_of(experiment)
    selected = select(wanted.results, runs, None)
    figures = read_published(wanted.results, runs) if shown.published else []
    for form, suffix in _SUFFIXES.items():
        write_results(selected, form, figures, bounds=shown.bounds, output=folder / f"table.{suffix}")
        if experiment.components:
            write_ablations(selected.runs, form, output=folder / f"ablation.{suffix}")
    plots = {"pr": pr_plot, "bits": bits_plot, "speed": speed_plot, "training": training_plot}
    for name in shown.plots:
        try:
            write_output(folder / f"{name}.pdf", plots[name](selected.runs).render("pdf"))
        except UsageError as error:
            info(f"{name}.pdf is not drawn: {error}")
    info(f"the tables and plots of {experiment.name} are in {folder}")


def _folder(wanted: Grid) -> Path:
    return wanted.results / FOLDER / wanted.experiment.name
