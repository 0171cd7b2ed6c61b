"""The commands `hashbench sweep`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hashbench.cli.options import RESULTS, AsJson, Results
from hashbench.cli.output import print_json, show
from hashbench.errors import UsageError, quoted

if TYPE_CHECKING:
    from hashbench.launchers.sweeps import Job

app = typer.Typer(help="Show and cancel the runs that --launcher slurm has submitted.", no_args_is_help=True)

RunNames = Annotated[
    list[str], typer.Argument(metavar="[RUN]...", help="Ids of runs, as `sweep status` shows them.")
]


def show_submitted(jobs: Iterable[Job], results: Path) -> None:
    """Show jobs as they are submitted."""
    shown = 0
    try:
        for job in jobs:
            show(f"job {job.job}: {job.run}")
            shown += 1
    finally:  # if other runs are impossible
        if shown:
            show(f"submitted {shown} runs; `hashbench sweep status --results {results}` shows them")


@app.command()
def status(results: Results = RESULTS, as_json: AsJson = False) -> None:
    """Show each submitted run: done, running, pending, cancelled or failed, and why."""
    from hashbench.launchers.sweeps import log_file, statuses

    found = statuses(results)
    if as_json:
        print_json(
            [
                {
                    "run": one.job.name,
                    "description": one.job.run,
                    "job": one.job.job,
                    "state": one.state,
                    "note": one.note,
                    "log": str(log_file(one.sweep, one.job.name)),
                }
                for one in found
            ]
        )
        return
    from rich.table import Table

    table = Table("run", "job", "state")
    for one in found:
        table.add_row(one.job.name, one.job.job, f"{one.state}: {one.note}" if one.note else one.state)
    show(table)
    counts = Counter(one.state for one in found)
    show(", ".join(f"{count:,} {state}" for state, count in counts.items()) or "no runs were submitted")


@app.command()
def logs(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or the beginning of its id.")],
    results: Results = RESULTS,
) -> None:
    """Print the output of a run that a launcher has started, since it was first started."""
    from hashbench.launchers.sweeps import output

    show(output(results, run).read_text(encoding="utf-8", errors="replace").rstrip("\n"))


@app.command()
def cancel(runs: RunNames = [], results: Results = RESULTS) -> None:  # noqa: B006 (typer copies it)
    """Cancel the given runs, or all that are pending or running; they can be submitted again later."""
    from hashbench.launchers.sweeps import UNFINISHED, statuses
    from hashbench.launchers.sweeps import cancel as cancel_jobs

    left = [found for found in statuses(results) if found.state in UNFINISHED]
    for name in runs:
        if not any(found.job.name.startswith(name) for found in left):
            raise UsageError(f"RUN {quoted(name)}: no such run is pending or running")
    chosen = [found for found in left if not runs or found.job.name.startswith(tuple(runs))]
    cancel_jobs(chosen)
    show(f"cancelled {len(chosen)} runs")
