"""Every option that several commands share, defined once, and groups of them that make one argument."""

# Annotations must be objects here, since `with_options` hands them to typer out of this module.

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hashbench.errors import UsageError, quoted

if TYPE_CHECKING:
    from hashbench.data.dataset import DatasetPlugin
    from hashbench.results.query import RunFilter

Command = Callable[..., None]

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


def run_filter(
    method: Methods = None,
    dataset: Datasets = None,
    protocol: Protocols = None,
    bits: Lengths = None,
    seed: Seeds = None,
    where: Where = [],  # noqa: B006 (typer copies it)
    unchanged: Unchanged = False,
) -> "RunFilter":
    """Return the filter for runs that these options describe."""
    from hashbench.results.query import RunFilter

    return RunFilter(
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


@dataclass(frozen=True)
class ChosenDataset:
    """A dataset that a command was asked for; nothing of it is read yet."""

    name: str
    plugin: "DatasetPlugin"
    protocol: str
    root: Path


def choose_dataset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Dataset.")],
    protocol: ProtocolName = None,
    data_root: DataRoot = None,
    lists: Lists = None,
    missing: Missing = None,
    settings: DataSettings = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
) -> ChosenDataset:
    """Return the dataset that these options describe."""
    from hashbench.data.load import choose_protocol, choose_root, create_dataset

    add_plugins(plugin)
    made = create_dataset(name, **data_options(lists, missing, settings))
    return ChosenDataset(name, made, choose_protocol(name, made, protocol), choose_root(made, data_root))


def with_options(argument: str, group: Callable[..., Any]) -> Callable[[Command], Command]:
    """Make a decorator that replaces one argument of a command by a group of options.

    Args:
        argument: Name of the argument.
        group: A function whose parameters are the options; what it returns becomes the argument.
    """
    options = inspect.signature(group).parameters

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_group(**values: Any) -> None:
            made = group(**{name: values.pop(name) for name in options})
            command(**{argument: made}, **values)

        del command.__annotations__[argument]  # typer cannot evaluate it, and does not need it
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
            parameters += options.values() if name == argument else [parameter]
        # By keyword, since the options of a group, which have defaults, may stand before required ones.
        by_keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        with_group.__signature__ = inspect.Signature(by_keyword)  # type: ignore[attr-defined]
        with_group.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_group

    return decorate
