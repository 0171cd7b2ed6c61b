"""The commands. What is heavy is imported inside them, so that --help answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from hashbench.cli import ablate, cache, data, evaluate, plot, report, run, tables
from hashbench.cli import results as cli_results
from hashbench.cli.options import AsJson, PluginFiles, Settings, add_plugins
from hashbench.cli.output import print_json, show
from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime.console import is_main_process, protect_streams, write_line

if TYPE_CHECKING:
    from hashbench.registry import Entry, Kind

app = typer.Typer(
    help="A benchmark suite for unsupervised image hashing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(run.run)
app.command()(ablate.ablate)
app.command()(tables.table)
app.command()(tables.compare)
app.command()(report.report)
app.command()(evaluate.evaluate)
app.add_typer(data.app, name="data")
app.add_typer(plot.app, name="plot")
app.add_typer(cli_results.app, name="results")
app.add_typer(cache.app, name="cache")


@app.command()
def methods(plugin: PluginFiles = [], as_json: AsJson = False) -> None:  # noqa: B006
    """List the methods."""
    _list("method", plugin, as_json)


@app.command()
def datasets(plugin: PluginFiles = [], as_json: AsJson = False) -> None:  # noqa: B006
    """List the datasets."""
    _list("dataset", plugin, as_json)


@app.command()
def check_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Method.")],
    settings: Settings = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Check that a method keeps its contract, on made-up images, in seconds."""
    add_plugins(plugin)
    from hashbench import registry

    registry.find("method", name)  # a wrong name is said at once, before torch is imported

    from hashbench import testing

    results = testing.check_method(name, settings)
    if as_json:
        rows = [
            {"check": result.name, "passed": result.passed, "message": result.message} for result in results
        ]
        print_json(rows)
    else:
        from rich.table import Table

        table = Table("check", name)
        for result in results:
            table.add_row(result.name, "passed" if result.passed else f"failed: {result.message}")
        show(table)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command()
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the method: letters, digits, _.")],
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a package of its own there, to be installed.")
    ] = None,
) -> None:
    """Write a method to start from, with recipe, card and test."""
    from hashbench.method import scaffold

    folder = scaffold.new_method(name, into)
    plugin = "" if into else f"--plugin {folder / 'method.py'} "
    show(f"{folder} is written; next:")
    if into:
        show(f"  pip install -e {folder}")
    show(f"  hashbench check-method {plugin}{name}")
    show(f"  hashbench run {plugin}--method {name} --dataset digits")


def main() -> None:
    """The program: runs a command, and turns errors into one line and an exit code."""
    protect_streams()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # Before torch is imported, which warns of weights that have a gradient after all.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        _refuse_empty(sys.argv[1:])
        app()
    except HashbenchError as error:
        _fail(error)
    except (ImportError, MemoryError, OSError) as error:
        if not isinstance(error, OSError) or "shared object" in str(error):  # as numba says of a library
            remedy = "make memory free, raise its limit (`ulimit -v`), or reinstall the library"
            _fail(HashbenchError(f"out of memory, or a library cannot be loaded ({error!r}); {remedy}"))
        # As when the disk is full that the output goes to.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - else Python fails again at the end
        first = error.__context__  # after which results were to be shown
        failure = HashbenchError(f"cannot write the output ({error})")
        _fail(first if isinstance(first, HashbenchError) else failure)


def _fail(error: HashbenchError) -> NoReturn:
    """End with an error's line and exit code."""
    # What is wrong in one process may be right in others; what a user did is wrong in all, and said once.
    if error.exit_code == 1 or is_main_process():
        write_line(f"hashbench: error: {error}")
    sys.exit(error.exit_code)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse an empty argument, as of an unset shell variable; as a path it would be the current folder.

    Raises:
        UsageError: There is one.
    """
    for before, argument in zip(["hashbench", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument.strip() or (option.startswith("--") and equals and not value.strip()):
            named = option if equals else before
            what = named if named.startswith("-") else f"the argument after {named}"
            raise UsageError(f"{what[:100]} is empty; is a shell variable unset?")


def _list(kind: Kind, plugin: list[Path], as_json: bool) -> None:
    from hashbench import registry

    add_plugins(plugin)
    broken = registry.broken(kind)
    rows = [
        {
            kind: entry.name,
            "summary": entry.summary(),
            "from": entry.origin,
            "target": entry.target,
            "broken": broken.get(entry.name),
            **(_published(entry) if kind == "method" else {}),
        }
        for entry in registry.entries(kind).values()
    ]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    more = ["published for"] if kind == "method" else []
    table = Table(kind, "summary", *more, "from")
    for row in rows:
        reason = row["broken"]
        splits = [", ".join(map("@".join, row["published_protocol"].items()))] if more else []
        table.add_row(row[kind], f"broken: {reason}" if reason else row["summary"], *splits, row["from"])
    show(table)


def _published(entry: Entry) -> dict[str, Any]:
    """The splits that a method's training lengths were published for, or why its recipe cannot be read."""
    from hashbench.recipe import load_published_protocols

    path = entry.recipe()
    try:
        return {"published_protocol": load_published_protocols(path) if path else {}}
    except HashbenchError as error:
        return {"published_protocol": {}, "broken": str(error)}
