"""The command `hashbench ablate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated

import typer

from hashbench.cli.grid import Grid, Planned, grid, run_all
from hashbench.cli.options import METRIC, MetricName, TableFormat, names, with_options
from hashbench.cli.output import write_ablations
from hashbench.errors import UsageError, unknown_name
from hashbench.runtime.console import is_main_process


@with_options("wanted", grid)
def ablate(
    wanted: Grid,
    components: Annotated[
        str | None,
        typer.Option(
            help="Components to take away, of those under `components` in the method's recipe, with commas "
            "between, as in 'balance term,patch weighting' (default: all)."
        ),
    ] = None,
    metric: MetricName = METRIC,
    form: TableFormat = "markdown",
) -> None:
    """Run a method whole, without each of its components, and without all; show what each one gives.

    Components are what the method's recipe declares. Runs that have a record are not repeated, so that an
    ablation that was stopped goes on where it was.
    """
    device, options = wanted.init()
    variants = {
        name: [[*wanted.settings, *without] for without in _variants(name, components)]
        for name in wanted.methods
    }
    planned = wanted.plan(variants, device)
    _check_plan(planned, metric)
    runs = list(run_all(planned, wanted.results, wanted.force, options))

    from hashbench.results.query import share_common
    from hashbench.results.stored_run import StoredRun

    stored, _ = share_common([StoredRun(done.record, done.folder) for done in runs])
    if is_main_process():
        write_ablations(stored, metric, form)


def _check_plan(planned: Sequence[Planned], metric: str) -> None:
    """Find out now what would spoil the table of an ablation after hours of training.

    Raises:
        UsageError: The metric will not be there, or two variants could not be told apart.
    """
    from hashbench.experiment.configure import changes

    seen = set()
    for config, data in planned:
        if metric not in config.evaluation.metrics:
            raise UsageError(
                f"no run will have {metric}; choose --metric from {', '.join(config.evaluation.metrics)}"
            )
        where = config.method, config.dataset, config.bits, config.seed
        variant = (*where, json.dumps(changes(config), sort_keys=True))
        if variant in seen:
            raise UsageError(
                f"two variants of {config.method} on {data.name} would be the same run, since --set or "
                "the recipe takes a component away already; leave it out by --components"
            )
        seen.add(variant)


def _variants(method: str, wanted: str | None) -> list[list[str]]:
    """Settings of the whole method, of it without each component, and without all of them.

    Raises:
        UsageError: It declares no components, or not these.
    """
    from hashbench.experiment.configure import components

    declared = components(method)
    if not declared:
        raise UsageError(
            f"the recipe of {method} declares no components; add `components: {{NAME: {{KEY: VALUE}}}}`, "
            "with the settings that take each away"
        )
    chosen = names("--components", wanted) if wanted is not None else list(declared)
    for name in chosen:
        if name not in declared:
            raise unknown_name(f"component of {method}", name, declared)
    without = [[f"{path}={json.dumps(value)}" for path, value in declared[name].items()] for name in chosen]
    every = [setting for settings in without for setting in settings]
    return [[], *without, *([every] if len(without) > 1 else [])]
