"""The commands. What is heavy is imported inside them, so that --help answers at once."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hashbench import cli_data
from hashbench.errors import HashbenchError
from hashbench.terminal import (
    AsJson,
    DataRoot,
    DataSettings,
    Lists,
    Missing,
    PluginFiles,
    ProtocolName,
    add_plugins,
    data_options,
    integers,
    names,
    print_json,
    say,
    say_warnings,
    show,
)

if TYPE_CHECKING:
    from hashbench.experiment import Run
    from hashbench.registry import Kind
    from hashbench.results import Record

RUNS_ABREAST = 3  # in a table, so that it fits a terminal of 80 columns

app = typer.Typer(
    help="A benchmark suite for unsupervised image hashing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Settings = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override the recipe, as in --set epochs=10; may be repeated."
    ),
]
app.add_typer(cli_data.app, name="data")


@app.command()
def run(
    method: Annotated[str, typer.Option(help="Method, or several with commas between.")],
    dataset: Annotated[str, typer.Option(help="Dataset, or several with commas between.")],
    bits: Annotated[str, typer.Option(help="Code length, or several: 16,32,64.")] = "32",
    seed: Annotated[str, typer.Option(help="Seed, or several: 0,1,2.")] = "0",
    protocol: ProtocolName = None,
    settings: Settings = [],  # noqa: B006 (typer copies it)
    data_root: DataRoot = None,
    lists: Lists = None,
    missing: Missing = None,
    data_settings: DataSettings = [],  # noqa: B006
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = Path("results/runs"),
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU if there is one.")
    ] = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that load images (default: up to 8 for a GPU, else 0)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Run again what has a record, and replace it.")
    ] = False,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Accept queries that are also in the database.")
    ] = False,
    plugin: PluginFiles = [],  # noqa: B006 (typer copies it)
    as_json: AsJson = False,
) -> None:
    """Train, encode, evaluate, and leave a record; commas make a grid."""
    add_plugins(plugin)
    lengths, seeds = integers("--bits", bits, least=1), integers("--seed", seed, least=0)
    from hashbench import registry

    methods, datasets = names("--method", method), names("--dataset", dataset)
    for name in methods:
        registry.find("method", name)  # a wrong name is said at once, before torch is imported
    for name in datasets:
        registry.find("dataset", name)

    from hashbench import experiment
    from hashbench.training import resolve_device, resolve_workers

    chosen = resolve_device(device)
    processes = resolve_workers(workers, chosen)
    options = data_options(lists, missing, data_settings)
    planned = []  # all of it, before hours of training end in a wrong key
    for name in datasets:
        data = registry.load_dataset(name, protocol, data_root, **options)
        if not allow_overlap:
            data.require_disjoint_queries()
        say_warnings(data)
        planned += [
            (experiment.configure(m, data, bits=b, seed=s, device=chosen, settings=settings), data)
            for m in methods
            for b in lengths
            for s in seeds
        ]
    runs = []
    try:
        for config, data in planned:
            what = f"{config.method} on {data.name}@{data.protocol}"
            say(f"{what}, {config.bits} bits, seed {config.seed}, {chosen}")
            done = experiment.run(config, data, results, force=force, workers=processes)
            if done.existed:
                say("a record exists, nothing was trained; --force runs it again")
            runs.append(done)
    finally:  # those that are done, too, if one fails
        if as_json:
            print_json([{**done.record.model_dump(mode="json"), "folder": str(done.folder)} for done in runs])
        else:
            _print_runs(runs)


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
    from hashbench import scaffold

    folder = scaffold.new_method(name, into)
    plugin = "" if into else f"--plugin {folder / 'method.py'} "
    show(f"{folder} is written; next:")
    if into:
        show(f"  pip install -e {folder}")
    show(f"  hashbench check-method {plugin}{name}")
    show(f"  hashbench run {plugin}--method {name} --dataset digits")


@app.command()
def evaluate(
    codes: Annotated[
        Path,
        typer.Argument(
            metavar="CODES.npz",
            help="Arrays query_codes and database_codes [n, bits], query_labels and database_labels "
            "[n, classes] or [n]; or the codes.npz of a run. Product codes: real query_codes, "
            "database_codes [n, books], codebooks [books, words, dim].",
        ),
    ],
    k: Annotated[str, typer.Option(help="Ranks, as in 1000,all.")] = "1000,all",
    radius: Annotated[int, typer.Option(min=0, help="Hamming radius.")] = 2,
    denominator: Annotated[Literal["hits", "relevant"], typer.Option(help="What AP@K divides by.")] = "hits",
    no_relevant: Annotated[
        Literal["zero", "skip"], typer.Option(help="Queries with nothing relevant in the database.")
    ] = "zero",
    as_json: AsJson = False,
) -> None:
    """Evaluate the codes of any program, exactly."""
    ranks: list[int | Literal["all"]] = [
        "all" if name == "all" else integers("--k", name, least=1)[0] for name in names("--k", k)
    ]

    from hashbench.evaluation import evaluate as evaluate_codes
    from hashbench.evaluation.files import load_codes

    evaluation = evaluate_codes(
        *load_codes(codes), k=ranks, radius=radius, denominator=denominator, no_relevant=no_relevant
    )
    if as_json:
        print_json(evaluation.to_dict())
        return
    from rich.table import Table

    table = Table("metric", "expected", "lowest", "highest")
    for name, metric in evaluation.to_dict()["metrics"].items():
        table.add_row(name, *(f"{metric[part]:.4f}" for part in ("expected", "lowest", "highest")))
    show(table)
    if unanswerable := evaluation.queries_without_relevant:
        counted = "count 0; --no-relevant skip leaves them out" if no_relevant == "zero" else "are left out"
        show(f"{unanswerable:,} queries, to which nothing in the database is relevant, {counted}")


def main() -> None:
    """The program: runs a command, and turns errors into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not know every character
    try:
        app()
    except HashbenchError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except OSError as error:  # as when the disk is full that the output goes to
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - else Python fails again at the end
        say(f"error: {error}")
        sys.exit(1)


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
        }
        for entry in registry.entries(kind).values()
    ]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(kind, "summary", "from")
    for row in rows:
        reason = row["broken"]
        table.add_row(row[kind], f"broken: {reason}" if reason else row["summary"], row["from"])
    show(table)


def _counts_unanswerable(record: Record) -> bool:
    """Whether queries to which nothing is relevant count 0 in the means."""
    return record.queries_without_relevant > 0 and record.config["evaluation"]["no_relevant"] == "zero"


def _answerable(record: Record, name: str) -> str:
    """A mean over the queries to which something is relevant; the others count 0 in the usual one."""
    if name not in record.metrics or not _counts_unanswerable(record):
        return ""
    answerable = record.split.query - record.queries_without_relevant
    return f"{record.metrics[name].expected * record.split.query / answerable:.4f}" if answerable else ""


def _print_runs(runs: list[Run]) -> None:
    from rich.table import Table

    for start in range(0, len(runs), RUNS_ABREAST):
        shown = [run.record for run in runs[start : start + RUNS_ABREAST]]
        table = Table("", pad_edge=False)
        for record in shown:
            table.add_column(
                f"{record.method}\n{record.dataset}@{record.protocol}\n{record.bits} bits, seed {record.seed}"
            )
        for name in dict.fromkeys(name for record in shown for name in record.metrics):
            if name.startswith("R@") or name == "P@all":
                continue
            metrics = [record.metrics.get(name) for record in shown]
            table.add_row(name, *(f"{m.expected:.4f}" if m else "" for m in metrics))
            if name.startswith("mAP"):
                table.add_row(
                    "  any tie order", *(f"{m.lowest:.4f} to {m.highest:.4f}" if m else "" for m in metrics)
                )
                if any(map(_counts_unanswerable, shown)):
                    table.add_row("  answerable only", *(_answerable(record, name) for record in shown))
        table.add_row("codes", *("COLLAPSED" if record.health.collapsed else "healthy" for record in shown))
        for step in ("train", "encode", "evaluate"):
            table.add_row(step, *(f"{getattr(record.timing, step):.1f} s" for record in shown))
        show(table)
    for run in runs:
        for reason in run.record.health.reasons:
            say(f"{run.record.run_id} COLLAPSED: {reason}")
        show(str(run.folder))
