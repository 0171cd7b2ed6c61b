"""The command `hashbench ablate`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import MetricName, TableFile, TableFormat, names, with_options
from hashbench.cli.output import write_ablations
from hashbench.cli.training.grid import grid
from hashbench.cli.training.sweep import show_submitted
from hashbench.runtime.console import is_main_process

if TYPE_CHECKING:
    from hashbench.launchers.grid import Grid


@with_options("wanted", grid)
def ablate(
    wanted: Grid,
    components: Annotated[
        str | None,
        typer.Option(
            help="Components to remove, as the recipe names them under `components`, separated by commas, "
            "e.g. 'balance term,patch weighting' (default: those of the experiment, else all)."
        ),
    ] = None,
    metric: MetricName = None,
    form: TableFormat = "markdown",
    output: TableFile = None,
) -> None:
    """Run a method whole, without each of its components and without all; show what each contributes.

    The recipe of the method declares the components. Runs that have a record are not repeated, so the same
    command continues an ablation that was interrupted.
    """
    from hashbench.launchers.execute import report_failures, run_all
    from hashbench.launchers.submission import submit_all

    of_file = wanted.experiment.components or "all"
    removed = of_file if components is None else tuple(names("--components", components))
    report = wanted.experiment.report
    if metric is not None:
        report = report.model_copy(update={"metric": metric})
    changed = wanted.experiment.change({"components": removed, "report": report}, {})
    wanted = replace(wanted, experiment=changed)
    device, options = wanted.execution.init()
    planned = wanted.plan(device)
    if wanted.launch.launcher == "slurm":
        show_submitted(submit_all(planned, wanted, options), wanted.results)
        return
    failed: list[str] = []
    runs = list(run_all(planned, wanted, options, failed))

    from hashbench.results.selection import found_runs
    from hashbench.results.stored_run import StoredRun

    if is_main_process():
        found = found_runs([StoredRun(done.record, done.folder) for done in runs], report.metric)
        write_ablations(found.runs, form, output=output)
    report_failures(failed, len(planned))
