"""What commands read from the command line, and how they print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hashbench.errors import UsageError, quoted
from hashbench.runtime.console import printable_lines, say

if TYPE_CHECKING:
    from hashbench.data.dataset import Dataset
    from hashbench.report.significance import PairedTest
    from hashbench.report.tables.table import Grid
    from hashbench.results.query import Selected, Selection
    from hashbench.results.record import Timing
    from hashbench.results.stored_run import StoredRun

PluginFiles = Annotated[
    list[Path],
    typer.Option("--plugin", metavar="FILE.py", help="Register the plugins of a file; may be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the data (default: $HASHBENCH_DATA, else ~/.cache/hashbench/data)."),
]
ProtocolName = Annotated[
    str | None, typer.Option("--protocol", help="How the dataset is split; by default its first protocol.")
]
Lists = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of list files; means --protocol lists.")
]
Missing = Annotated[
    Literal["error", "skip"] | None,
    typer.Option(help="Listed images that are not there; skip makes another split (default: error)."),
]
DataSettings = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="KEY=VALUE",
        help="Option of the dataset, as `data info` lists them, as in --data seed=1; may be repeated.",
    ),
]

Settings = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override the recipe, as in --set epochs=10; may be repeated."
    ),
]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of the records.")]
RESULTS = Path("results/runs")
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run, its beginning or its hash; or the run's folder.")
]
Methods = Annotated[str | None, typer.Option("--method", help="Method, or several with commas between.")]
Datasets = Annotated[str | None, typer.Option("--dataset", help="Dataset, or several with commas between.")]
Protocols = Annotated[
    str | None, typer.Option("--protocol", help="Protocol, or several with commas between.")
]
Lengths = Annotated[str | None, typer.Option("--bits", help="Code length, or several: 16,32,64.")]
Seeds = Annotated[str | None, typer.Option("--seed", help="Seed, or several: 0,1,2.")]
Where = Annotated[
    list[str],
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only runs with this value in the record, as in --where training.epochs=10; may be repeated.",
    ),
]
Unchanged = Annotated[
    bool, typer.Option("--unchanged", help="Only runs with the recipe's own settings, none by --set.")
]
MetricName = Annotated[str, typer.Option("--metric", help="Metric of the records, as in mAP@1000 or P@H<=2.")]
METRIC = "mAP@all"
LONGEST_NUMBER = 18  # digits that fit 64 bits
TableFormat = Annotated[
    Literal["markdown", "latex", "csv"],
    typer.Option("--format", help="latex: a document that compiles; csv: full precision."),
]


def selection(
    method: str | None,
    dataset: str | None,
    protocol: str | None,
    bits: str | None,
    seed: str | None,
    where: list[str],
    unchanged: bool = False,
) -> Selection:
    """The runs that a command was asked for."""
    from hashbench.results.query import Selection

    return Selection(
        methods=names("--method", method) if method is not None else (),
        datasets=names("--dataset", dataset) if dataset is not None else (),
        protocols=names("--protocol", protocol) if protocol is not None else (),
        bits=integers("--bits", bits, least=1) if bits is not None else (),
        seeds=integers("--seed", seed, least=0) if seed is not None else (),
        where=_texts("--where", where),
        unchanged=unchanged,
    )


def _texts(flag: str, pairs: list[str]) -> dict[str, str]:
    """What `KEY=VALUE` texts say, by key."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key in found:
            twice = f"names {key[:100]} twice" if equals else f"takes KEY=VALUE, not {quoted(pair)}"
            raise UsageError(f"{flag} {twice}")
        found[key] = text
    return found


def data_options(lists: Path | None, missing: str | None, settings: list[str]) -> dict[str, Any]:
    """The options of a dataset that a command was given."""
    from hashbench.recipe import parse_pairs

    own_flags = {"name": "dataset", "protocol": "protocol", "root": "data-root"}
    for key, equals, value in (setting.partition("=") for setting in settings):
        if equals and not value.strip():
            raise UsageError(f"--data {key[:100]} is empty; is a shell variable unset?")
        if key in own_flags:
            raise UsageError(f"--data {key}: use the flag --{own_flags[key]}")
    flags = {"lists": lists, "missing": missing}
    return parse_pairs("--data", settings) | {key: value for key, value in flags.items() if value is not None}


def add_plugins(files: list[Path]) -> None:
    """Register plugin files."""
    from hashbench import registry

    for file in files:
        registry.add_plugin_file(file)


def names(option: str, text: str) -> list[str]:
    """What has commas between, each once.

    Raises:
        UsageError: There is nothing.
    """
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"{option} is empty")
    return found


def integers(option: str, text: str, least: int) -> list[int]:
    """Whole numbers with commas between, each once.

    Raises:
        UsageError: One is none, or less than `least`.
    """
    values = []
    for part in names(option, text):
        if not part.isdecimal() or len(part) > LONGEST_NUMBER or int(part) < least:
            raise UsageError(
                f"{option} takes whole numbers from {least}, with commas between, not {quoted(part)}"
            )
        values.append(int(part))
    return values


def say_warnings(dataset: Dataset) -> None:
    """What a reader of results on a dataset should know."""
    for warning in dataset.warnings:
        say(f"warning: {dataset.name}@{dataset.protocol}: {warning}")


def say_unfinished(selected: Selected) -> None:
    """Runs that a plot or table cannot show, since they have not ended."""
    for run in selected.unfinished:
        say(f"{run.run_id} has not ended, and is left out")


def print_json(value: Any) -> None:
    """JSON on standard output."""
    import json

    sys.stdout.write(json.dumps(value, indent=2) + "\n")
    sys.stdout.flush()  # a full disk is said here, and not when Python ends


def write_tables(form: str, grids: Callable[[], Sequence[Grid]], csv: Callable[[], str]) -> None:
    """Tables on standard output in the format that was asked for.

    Args:
        form: Of `TableFormat`.
        grids: Makes the tables.
        csv: Makes them as CSV.
    """
    from hashbench.report.tables.table import latex, markdown

    formats = {
        "markdown": lambda: "\n".join(map(markdown, grids())),
        "latex": lambda: latex(grids()),
        "csv": csv,
    }
    sys.stdout.write(printable_lines(formats[form]()))
    sys.stdout.flush()


def write_ablations(
    runs: Sequence[StoredRun], metric: str, form: str, test: PairedTest = "bootstrap"
) -> None:
    """The ablation tables among runs, on standard output.

    Raises:
        UsageError: There is none.
    """
    from hashbench.report.tables.ablation_table import ablation_grid, ablations
    from hashbench.report.tables.csv_tables import ablation_csv

    found = ablations(runs, metric, test)
    if not found:
        raise UsageError("there is no ablation among these runs; `hashbench ablate` makes one")
    write_tables(form, lambda: [ablation_grid(one) for one in found], lambda: ablation_csv(found))


def timing_in_words(timing: Timing) -> dict[str, str]:
    """How long a run took, how fast it was and what it held, as far as that is known."""
    words = {step: f"{getattr(timing, step):.2f} s" for step in ("train", "encode", "evaluate")}
    if timing.images_per_second is not None:
        words["speed"] = f"{timing.images_per_second:.0f} images/s"
    if timing.waiting is not None:
        words["waiting for data"] = f"{timing.waiting:.0%}"
    if timing.peak_memory:
        words["peak memory"] = f"{timing.peak_memory / 1e9:.1f} GB"
    return words


def show(what: Any) -> None:
    """Write text or a table to standard output; control characters in names are escaped."""
    from rich.console import Console
    from rich.text import Text

    class EscapingConsole(Console):
        """Escapes texts and cells, before their width is measured."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable_lines(text), **options)

    # Names and paths may have brackets, which rich would take for markup.
    console = EscapingConsole(soft_wrap=isinstance(what, str), highlight=False, markup=False, emoji=False)
    console.print(what)
