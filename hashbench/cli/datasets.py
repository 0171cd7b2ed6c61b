"""The options that choose a dataset, and the datasets that commands load."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hashbench.cli import completion
from hashbench.cli.options import PluginFiles, add_plugins, with_options
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.data.dataset import Dataset, DatasetPlugin
    from hashbench.results.record import Record

DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root", help="Folder of the data (default: $HASHBENCH_DATA, else ~/.cache/hashbench/data)."
    ),
]
DatasetName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the dataset.", autocompletion=completion.datasets)
]
Lists = Annotated[
    Path | None,
    typer.Option("--lists", metavar="DIR", help="Folder of list files; selects --protocol lists."),
]


@dataclass(frozen=True)
class DataOptions:
    """Location and split of the data; the options are those of the dataset."""

    protocol: str | None
    root: Path | None
    options: dict[str, Any]


def data_options(
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="Protocol that splits the dataset (default: the dataset's first).",
            autocompletion=completion.protocols,
        ),
    ] = None,
    data_root: DataRoot = None,
    lists: Lists = None,
    missing: Annotated[
        Literal["error", "skip"] | None,
        typer.Option(
            "--missing",
            help="What to do about missing listed images; skip makes a different split (default: error).",
        ),
    ] = None,
    data_settings: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="KEY=VALUE",
            help="Set an option of the dataset, e.g. --data seed=1; `hashbench data info NAME` lists them; "
            "repeatable.",
        ),
    ] = [],  # noqa: B006 (typer copies it)
) -> DataOptions:
    """Return the values of these options.

    Raises:
        UsageError: A value of --data is invalid, or belongs to another option of the command line.
    """
    from hashbench.recipe import parse_pairs

    own_flags = {"protocol": "protocol", "root": "data-root"}
    for key, equals, value in (setting.partition("=") for setting in data_settings):
        if equals and not value.strip():
            raise UsageError(f"--data {key[:100]} is empty; is a shell variable unset?")
        if key in own_flags:
            raise UsageError(f"--data {key}: use the flag --{own_flags[key]}")
    flags = {key: value for key, value in (("lists", lists), ("missing", missing)) if value is not None}
    return DataOptions(protocol, data_root, parse_pairs("--data", data_settings) | flags)


@dataclass(frozen=True)
class ChosenDataset:
    """A dataset that a command was asked for; its data is not read yet."""

    name: str
    plugin: "DatasetPlugin"
    protocol: str
    root: Path

    def read(self) -> "Dataset":
        """Read the dataset."""
        from hashbench.data.load import read_dataset

        return read_dataset(self.name, self.plugin, self.protocol, self.root)


@with_options("data", data_options)
def choose_dataset(
    name: DatasetName,
    data: DataOptions,
    plugin: PluginFiles = [],  # noqa: B006
) -> ChosenDataset:
    """Return the dataset that these options describe."""
    from hashbench.data.load import choose_protocol, choose_root, create_dataset

    add_plugins(plugin)
    made = create_dataset(name, **data.options)
    return ChosenDataset(name, made, choose_protocol(name, made, data.protocol), choose_root(made, data.root))


@dataclass(frozen=True)
class RunDatasets:
    """The datasets of stored runs.

    Attributes:
        root: Folder of the data; None is the default folder.
        lists: Folder of the list files, which a record does not name; None is that of the dataset.
    """

    root: Path | None
    lists: Path | None

    def load(self, record: "Record") -> "Dataset":
        """Load the dataset of a run, with the options that the run had.

        Raises:
            UsageError: The dataset, protocol or an option no longer exists.
            HashbenchError: The data is missing or damaged.
        """
        from hashbench.data.load import create_dataset, load_dataset

        known = create_dataset(record.dataset).Options.model_fields
        options = {key: value for key, value in record.config["data"].items() if key in known}
        options["packed"] = "packed" in options  # a record that has the key describes the packed copy by it
        if self.lists is not None:
            options["lists"] = self.lists
        return load_dataset(record.dataset, record.protocol, self.root, **options)


def run_datasets(
    data_root: DataRoot = None,
    lists: Lists = None,
    plugin: PluginFiles = [],  # noqa: B006
) -> RunDatasets:
    """Return the datasets of stored runs, by these options."""
    add_plugins(plugin)
    return RunDatasets(data_root, lists)
