"""The options that several commands share, and groups of options that become one argument of a command."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from hashbench.cli import completion
from hashbench.errors import UsageError, quoted

if TYPE_CHECKING:
    from hashbench.experiment.definition import Experiment
    from hashbench.results.query import RunFilter

T = TypeVar("T")

RESULTS = Path("results/runs")
_MAX_DIGITS = 18  # of a number that fits 64 bits

PluginFiles = Annotated[
    list[Path],
    typer.Option("--plugin", metavar="FILE.py", help="Register the plugins in this file; repeatable."),
]
MethodNames = Annotated[
    str | None,
    typer.Option(
        "--method", help="One or more methods, separated by commas.", autocompletion=completion.methods
    ),
]
DatasetNames = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="One or more datasets, separated by commas.", autocompletion=completion.datasets
    ),
]
ExperimentName = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE.yaml",
        help="The runs of an experiment: a file, or a name from `hashbench experiments`.",
        autocompletion=completion.experiments,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output instead of a table.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:N for GPU number N, or auto, which uses a GPU if there is one.",
    ),
]
Settings = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Override the recipe, e.g. --set epochs=10; repeatable."),
]
RecipePart = Annotated[
    Literal["paper", "laptop"] | None,
    typer.Option(
        "--recipe",
        help="The published settings, or those for a CPU (default: laptop if the recipe has some for the "
        "dataset, else paper).",
    ),
]
AllowOverlap = Annotated[
    bool | None,
    typer.Option("--allow-overlap/--no-allow-overlap", help="Accept queries that are also in the database."),
]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="Folder of the records.")]
_Run = typer.Argument(
    metavar="RUN",
    help="Id of a run, the beginning of its id, its hash, or its folder.",
    autocompletion=completion.runs,
)
RunName = Annotated[str, _Run]
OptionalRun = Annotated[str | None, _Run]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric", help="Metric in the records, e.g. mAP@1000 or P@H<=2 (default: the recipes' first mAP)."
    ),
]
AcrossBackbones = Annotated[
    bool,
    typer.Option(
        "--across-backbones", help="Rank and test methods together, even if their backbones differ."
    ),
]
TableFormat = Annotated[
    Literal["markdown", "latex", "csv"],
    typer.Option("--format", help="latex is a complete document; csv has full precision."),
]
TableFile = Annotated[
    Path | None,
    typer.Option("--output", metavar="FILE", help="File to write instead of standard output."),
]
TestName = Annotated[
    Literal["bootstrap", "permutation"],
    typer.Option("--test", help="Paired test of a difference, over the queries."),
]


def run_filter(
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="Only these methods, separated by commas.",
            autocompletion=completion.methods,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Only these datasets, separated by commas.",
            autocompletion=completion.datasets,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="Only these protocols, separated by commas.",
            autocompletion=completion.protocols,
        ),
    ] = None,
    bits: Annotated[
        str | None, typer.Option("--bits", help="Only these code lengths, e.g. 16,32,64.")
    ] = None,
    seed: Annotated[str | None, typer.Option("--seed", help="Only these seeds, e.g. 0,1,2.")] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="Only these backbones, separated by commas.")
    ] = None,
    where: Annotated[
        list[str],
        typer.Option(
            "--where",
            metavar="KEY=VALUE",
            help="Only runs whose record has this value, e.g. --where training.epochs=10; repeatable.",
        ),
    ] = [],  # noqa: B006 (typer copies it)
    unchanged: Annotated[
        bool, typer.Option("--unchanged", help="Only runs of unchanged recipes, without --set.")
    ] = False,
) -> "RunFilter":
    """Return the filter for runs that these options describe."""
    from hashbench.registry import canonical_method
    from hashbench.results.query import RunFilter

    return RunFilter(
        methods=[*map(canonical_method, names("--method", method))] if method is not None else (),
        datasets=names("--dataset", dataset) if dataset is not None else (),
        protocols=names("--protocol", protocol) if protocol is not None else (),
        bits=integers("--bits", bits, least=1) if bits is not None else (),
        seeds=integers("--seed", seed, least=0) if seed is not None else (),
        backbones=names("--backbone", backbone) if backbone is not None else (),
        where=pairs("--where", where),
        unchanged=unchanged,
    )


def pairs(option: str, texts: list[str]) -> dict[str, str]:
    """Split `KEY=VALUE` texts.

    Raises:
        UsageError: A text has no "=", or two have the same key.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{option}: expected KEY=VALUE, got {quoted(text)}")
        if key in found:
            raise UsageError(f"{option} has {key[:100]} twice; pass it once")
        found[key] = value
    return found


def add_plugins(files: list[Path]) -> None:
    """Register plugin files."""
    from hashbench import registry

    for file in files:
        registry.add_plugin_file(file)


def names(option: str, text: str) -> list[str]:
    """Split names that are separated by commas, and drop duplicates.

    Raises:
        UsageError: There are no names.
    """
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"{option} is empty; pass at least one name or number")
    return found


def integers(option: str, text: str, least: int) -> list[int]:
    """Parse integers that are separated by commas, and drop duplicates.

    Raises:
        UsageError: A part is not an integer, or is less than `least`.
    """
    values = []
    for part in names(option, text):
        if not part.isdecimal() or len(part) > _MAX_DIGITS or int(part) < least:
            raise UsageError(
                f"{option}: expected integers from {least}, separated by commas, got {quoted(part)}"
            )
        values.append(int(part))
    return values


def with_options(argument: str, group: Callable[..., Any]) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Make a decorator that replaces one argument of a function by a group of options.

    Args:
        argument: Name of the argument.
        group: A function whose parameters are the options and whose result becomes the argument.
    """
    options = inspect.signature(group).parameters

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def with_group(**values: Any) -> T:
            value = group(**{name: values.pop(name) for name in options})
            return function(**{argument: value}, **values)

        for name in (argument, "return"):  # typer cannot evaluate them, and does not need them
            function.__annotations__.pop(name, None)
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            parameters += options.values() if name == argument else [parameter]
        # By keyword, since the options of a group, which have defaults, may precede required ones.
        by_keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        with_group.__signature__ = inspect.Signature(by_keyword)  # type: ignore[attr-defined]
        with_group.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_group

    return decorate


@with_options("wanted", run_filter)
def shown_runs(
    wanted: "RunFilter",
    config: ExperimentName = None,
    rename: Annotated[
        list[str],
        typer.Option(
            "--rename", metavar="OLD=NEW", help="Show the configuration OLD under the name NEW; repeatable."
        ),
    ] = [],  # noqa: B006
) -> "RunFilter":
    """Return the filter for the runs of a report, with new names for their configurations."""
    wanted = replace(wanted, rename=pairs("--rename", rename))
    if config is None:
        return wanted
    from hashbench.experiment.expected import filter_of

    return filter_of(read_experiment(config), wanted)


def read_experiment(config: str) -> "Experiment":
    """Read an experiment, and register its plugins."""
    from hashbench.experiment import definition

    experiment = definition.read_experiment(config)
    add_plugins(list(experiment.plugins))
    return experiment
