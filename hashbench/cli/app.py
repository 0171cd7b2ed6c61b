"""The program `hashbench`. Commands import heavy modules inside, so that --help answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.main import get_command

import hashbench
from hashbench.cli import backbones, cache, completion, data, evaluate, plot, report, tables
from hashbench.cli.options import AsJson, PluginFiles, Settings, add_plugins
from hashbench.cli.output import print_json, show
from hashbench.cli.results import commands as cli_results
from hashbench.cli.training import ablate, experiments, run, sweep
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.runtime.console import is_main_process, protect_streams, quiet_libraries, write_line

if TYPE_CHECKING:
    from hashbench.registry import Entry, Kind

_TyperUsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer exports only its subclasses

app = typer.Typer(
    help="A benchmark suite for unsupervised image hashing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        show(f"hashbench {hashbench.__version__}")
        raise typer.Exit


@app.callback()
def group(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Handle the options before the name of a command."""


app.command()(run.run)
app.command()(ablate.ablate)
app.command()(experiments.experiments)
app.command()(backbones.backbones)
app.command()(tables.table)
app.command()(tables.compare)
app.command()(report.report)
app.command()(evaluate.evaluate)
app.add_typer(data.app, name="data")
app.add_typer(plot.app, name="plot")
app.add_typer(cli_results.app, name="results")
app.add_typer(cache.app, name="cache")
app.add_typer(sweep.app, name="sweep")


@app.command()
def methods(plugin: PluginFiles = [], as_json: AsJson = False) -> None:  # noqa: B006
    """List the registered methods."""
    _list("method", plugin, as_json)


@app.command()
def datasets(plugin: PluginFiles = [], as_json: AsJson = False) -> None:  # noqa: B006
    """List the registered datasets."""
    _list("dataset", plugin, as_json)


@app.command()
def check_method(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the method.", autocompletion=completion.methods)
    ],
    settings: Settings = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Check a method against its contract, on synthetic images, in seconds; exit code 1 if it fails."""
    add_plugins(plugin)
    from hashbench import registry

    registry.find("method", name)  # rejects an unknown name before torch is imported

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
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the method: letters, digits and underscores.")
    ],
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a separate, installable package in this folder.")
    ] = None,
) -> None:
    """Create a method to start from, with a recipe, a card and a test."""
    from hashbench.method import scaffold

    folder = scaffold.new_method(name, into)
    plugin = "" if into else f"--plugin {folder / 'method.py'} "
    show(f"wrote {folder}; next:")
    if into:
        show(f"  pip install -e {folder}")
    show(f"  hashbench check-method {plugin}{name}")
    show(f"  hashbench run {plugin}--method {name} --dataset digits")


def main() -> NoReturn:
    """Run a command, and turn errors into one line and an exit code."""
    protect_streams()
    quiet_libraries()
    completion.join_colons()
    try:
        _reject_empty(sys.argv[1:])
        sys.exit(app(prog_name="hashbench", standalone_mode=False))
    except HashbenchError as error:
        _fail(error)
    except _TyperUsageError as error:
        if message := _usage_message(error):
            _fail(UsageError(message))
        sys.exit(2)
    except (ImportError, MemoryError, OSError) as error:
        if not isinstance(error, OSError) or "shared object" in str(error):  # numba's error for a library
            remedy = "free memory, raise its limit (`ulimit -v`), or reinstall the library"
            _fail(HashbenchError(f"out of memory, or a library cannot be loaded ({error!r}); {remedy}"))
        # For example if the disk that the output goes to is full.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - else Python fails again when it exits
        first = error.__context__  # the failure of a run, after which the other results could not be shown
        failure = HashbenchError(f"cannot write the output ({error})")
        _fail(first if isinstance(first, HashbenchError) else failure)


def _fail(error: HashbenchError) -> NoReturn:
    """Print an error and exit with its code."""
    # Any process may fail on its own, but a usage error occurs in all of them and is printed once.
    if error.exit_code == 1 or is_main_process():
        for line in f"hashbench: error: {error}".split("\n"):
            write_line(line)
    sys.exit(error.exit_code)


def _usage_message(error: Any) -> str:
    """Return typer's error as one line that names the help; empty if typer has already printed the help."""
    command, path = get_command(app), "hashbench"
    if error.ctx is not None:
        command, path = error.ctx.command, error.ctx.command_path
    else:  # as for an option without its value
        for argument in sys.argv[1:]:
            if inner := getattr(command, "commands", {}).get(argument):
                command, path = inner, f"{path} {argument}"
    if hasattr(error, "possibilities"):
        known = [name for parameter in command.params for name in parameter.opts]
        message = str(unknown_name("option", error.option_name, known))
    else:
        message = error.format_message().replace("Value error, ", "").strip().rstrip(".")
    return f"{message[0].lower()}{message[1:]} (see `{path} --help`)" if message else ""


def _reject_empty(arguments: list[str]) -> None:
    """Reject empty arguments, which unset shell variables leave; as a path, one would be the current folder.

    Raises:
        UsageError: An argument is empty.
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

    extra_columns = ["published for"] if kind == "method" else []
    table = Table(kind, "summary", *extra_columns, "from")
    for row in rows:
        reason = row["broken"]
        splits = [", ".join(map("@".join, row["published_protocol"].items()))] if extra_columns else []
        table.add_row(row[kind], f"broken: {reason}" if reason else row["summary"], *splits, row["from"])
    show(table)


def _published(entry: Entry) -> dict[str, Any]:
    """Return the splits that a method's training lengths were published for, or the error in its recipe."""
    from hashbench.recipe import load_published_protocols

    path = entry.recipe()
    try:
        return {"published_protocol": load_published_protocols(path) if path else {}}
    except HashbenchError as error:
        return {"published_protocol": {}, "broken": str(error)}
