"""The commands `hashbench data …`: what a dataset is, whether it is sound, getting it ready."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from hashbench.cli.datasets import ChosenDataset, DataRoot, choose_dataset
from hashbench.cli.options import AsJson, PluginFiles, add_plugins, with_options
from hashbench.cli.output import print_json, show, warn_about
from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime.console import info, warn

if TYPE_CHECKING:
    from hashbench.data.dataset import DatasetPlugin
    from hashbench.data.verify import Verification

SHOWN = 10  # of the problems; --json has all

app = typer.Typer(
    help="Datasets: what they are, whether yours is sound, getting them ready.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Dataset.")]


@app.command("info")
def describe(
    name: Name,
    data_root: DataRoot = None,
    plugin: PluginFiles = [],  # noqa: B006 (typer copies it)
    as_json: AsJson = False,
) -> None:
    """Say what a dataset is: protocols, counts, licence, source, layout, options."""
    add_plugins(plugin)
    from hashbench import registry
    from hashbench.data.load import choose_root, create_dataset

    made = create_dataset(name)
    described = _describe(name, made, choose_root(made, data_root))
    if as_json:
        print_json(described)
    else:
        _show_description(described, registry.find("dataset", name).summary())


def _describe(name: str, made: DatasetPlugin, root: Path) -> dict[str, Any]:
    defaults = made.options.model_dump(mode="json")
    options = {
        key: {
            "default": defaults[key],
            "choices": get_args(field.annotation) if get_origin(field.annotation) is Literal else (),
            "description": " ".join((field.description or "").split()),
        }
        for key, field in made.Options.model_fields.items()
    }
    return {
        "dataset": name,
        **asdict(made.about),
        "root": str(root),
        "downloads": [{**asdict(archive), "there": archive.exists(root)} for archive in made.downloads],
        "protocols": {key: asdict(protocol) for key, protocol in made.protocols.items()},
        "options": options,
        "column_orders": made.column_orders,
    }


def _show_description(described: dict[str, Any], summary: str) -> None:
    from rich.table import Table

    show(f"{described['dataset']}: {summary}\n")
    for key in ("licence", "source", "size", "root"):
        if described[key]:
            show(f"{key:<8} {described[key]}")
    for number, line in enumerate(described["layout"]):
        show(f"{'' if number else 'layout':<8} {line}")
    for archive in described["downloads"]:
        show(f"download {archive['url']} ({'there' if archive['there'] else archive['size']})")
    table = Table("protocol", "query", "train", "database", "how", title="protocols")
    for key, protocol in described["protocols"].items():
        counts = (protocol[part] for part in ("query", "train", "database"))
        table.add_row(key, *("" if n is None else f"{n:,}" for n in counts), protocol["definition"])
    show(table)
    table = Table("option", "default", "what", title="options: --data OPTION=VALUE")
    for key, option in described["options"].items():
        choices = f"{', '.join(option['choices'])}. " if option["choices"] else ""
        table.add_row(key, str(option["default"]), choices + option["description"])
    show(table)
    for classes, orders in described["column_orders"].items():
        for order, class_names in orders.items():
            show(f"columns={order} of {classes}: {', '.join(class_names)}")
    for note in described["notes"]:
        show(f"note: {note}")
    if described["by_hand"]:
        show(f"\n{described['by_hand']}.")


@app.command()
@with_options("chosen", choose_dataset)
def verify(
    chosen: ChosenDataset,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a dataset is there, sound, and what its protocol says; exit code 1 if not."""
    from hashbench.data.packing import check_packed
    from hashbench.data.verify import Verification
    from hashbench.data.verify import verify as verify_dataset

    try:
        dataset = chosen.read()
    except UsageError:
        raise
    except HashbenchError as error:
        if not as_json:
            raise
        nothing = {field.name: None for field in fields(Verification)}
        print_json({**nothing, "dataset": chosen.name, "protocol": chosen.protocol, "problems": [str(error)]})
        raise typer.Exit(1) from None
    found = verify_dataset(dataset, chosen.plugin.protocols[chosen.protocol], decode_all=decode)
    if (wrong := check_packed(dataset, chosen.root)) is not None:
        found.problems.append(wrong)
    if as_json:
        print_json(found.to_dict())
    else:
        _show(found)
    if found.problems:
        raise typer.Exit(1)


@app.command()
@with_options("chosen", choose_dataset)
def prepare(
    chosen: ChosenDataset,
    pack: Annotated[
        int | None,
        typer.Option(
            min=16,
            metavar="PIXELS",
            help="Write a packed copy with this shorter side; runs use it when it is there.",
        ),
    ] = None,
) -> None:
    """Download what may be downloaded, say what only you can get, and write the lists of the split."""
    from hashbench.data.dataset import default_root
    from hashbench.data.packing import pack as pack_images
    from hashbench.data.prepare import ensure, export_lists
    from hashbench.runtime.locking import locked

    # Lists are written below the root even if the dataset needs none.
    root = default_root() if chosen.root == Path(os.devnull) else chosen.root
    dataset = ensure(chosen.name, chosen.plugin, root, chosen.protocol)
    warn_about(dataset)
    counts = f"{len(dataset.query.images):,} queries, {len(dataset.train):,} training images, "
    show(f"{chosen.name}@{chosen.protocol}: {counts}a database of {len(dataset.database.images):,}")
    show(f"fingerprint {dataset.fingerprint}")
    if pack is not None:
        show(f"packed copy {pack_images(dataset, root, pack)}")
    folder = root / "lists" / f"{chosen.name}@{chosen.protocol}-{dataset.fingerprint[:8]}"
    try:
        with locked(root):
            export_lists(dataset, folder)
        show(f"lists {folder}")
    except (HashbenchError, OSError) as error:  # they are for other code; ours does not need them
        warn(f"no lists: {error}")


@app.command()
@with_options("chosen", choose_dataset)
def export_lists(
    chosen: ChosenDataset,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the lists.")],
    images: Annotated[
        bool, typer.Option("--images", help="Write the images, too, if they are in no files of their own.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace lists that are there.")] = False,
) -> None:
    """Write a split as list files for other people's code: path, then 0 or 1 for each class."""
    from hashbench.data.list_splits import CLASS_NAMES, find_lists
    from hashbench.data.prepare import export_lists as export

    if not force and (find_lists(output) or (output / CLASS_NAMES).exists()):
        raise UsageError(f"{output} has lists already; name another folder, or pass --force to replace them")
    dataset = chosen.read()
    warn_about(dataset)
    files, base = export(dataset, output, write_images=images)
    for file in files:
        show(str(file))
    show(f"paths are relative to {base}")


def _show(found: Verification) -> None:
    from rich.table import Table

    table = Table(f"{found.dataset}@{found.protocol}", "found", "expected", "without a label")
    for part, count in found.counts.items():
        expected: Any = found.expected[part]
        table.add_row(
            part,
            f"{count:,}",
            "" if expected is None else f"{expected:,}",
            f"{found.unlabelled[part]:,}",
        )
    show(table)
    overlaps, duplicates = found.overlaps, found.duplicates
    show(f"classes       {found.classes}")
    show(
        f"shared ids    {overlaps.query_database:,} query and database, {overlaps.query_train:,} query and "
        f"train, {overlaps.train_database:,} train and database"
    )
    show(
        f"same content  {duplicates.groups:,} images under several ids, {len(duplicates.conflicting):,} of "
        f"them with other labels; {duplicates.query_database:,} queries are in the database under another id"
    )
    for group in duplicates.examples:
        show(f"              {' = '.join(group[:SHOWN])}{' = …' if len(group) > SHOWN else ''}")
    show(f"unanswerable  {found.unanswerable:,} queries, to which nothing in the database is relevant")
    show(f"decoded       {'all' if found.decoded else 'none; --decode does'}")
    if found.truncated:
        show(f"truncated     {len(found.truncated):,}, such as {found.truncated[0]}")
    show(f"fingerprint   {found.fingerprint}")
    for warning in found.warnings:
        warn(f"{warning}")
    if duplicates.query_database:
        warn(
            f"{duplicates.query_database:,} queries have the content of a database image; each "
            "finds itself there"
        )
    if duplicates.conflicting:
        warn(f"{len(duplicates.conflicting):,} images are there several times, with other labels")
    for problem in found.problems[:SHOWN]:
        info(f"problem: {problem}")
    if len(found.problems) > SHOWN:
        info(f"and {len(found.problems) - SHOWN:,} more problems; --json has all")
    show(f"problems      {len(found.problems):,}")
