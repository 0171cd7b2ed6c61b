"""The commands `hashbench data …`, which describe, verify and prepare datasets."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from hashbench.cli.datasets import ChosenDataset, DataRoot, DatasetName, choose_dataset
from hashbench.cli.options import AsJson, PluginFiles, add_plugins, with_options
from hashbench.cli.output import print_json, show, warn_about
from hashbench.errors import HashbenchError, UsageError
from hashbench.runtime.console import info, warn

if TYPE_CHECKING:
    from hashbench.data.dataset import DatasetPlugin
    from hashbench.data.verify import Verification

_SHOWN = 10  # of the problems; --json has all

app = typer.Typer(help="Describe, verify, prepare and export datasets.", no_args_is_help=True)


@app.command("info")
def describe(
    name: DatasetName,
    data_root: DataRoot = None,
    plugin: PluginFiles = [],  # noqa: B006 (typer copies it)
    as_json: AsJson = False,
) -> None:
    """Describe a dataset: protocols, numbers of images, licence, source, layout, options."""
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
        show(f"\n{described['by_hand']}")


@app.command()
@with_options("chosen", choose_dataset)
def verify(
    chosen: ChosenDataset,
    decode: Annotated[bool, typer.Option("--decode", help="Also decode every image.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a dataset is complete, undamaged and split by its protocol; exit code 1 if not."""
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
    protocol = chosen.plugin.protocols[chosen.protocol].scaled(chosen.plugin.options.fraction)
    found = verify_dataset(dataset, protocol, decode_all=decode)
    if (wrong := check_packed(dataset, chosen.root)) is not None:
        found.problems.append(wrong)
    if as_json:
        print_json(asdict(found))
    else:
        _show_verification(found)
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
            help="Write a packed copy whose images have this shorter side; runs use it if it exists.",
        ),
    ] = None,
) -> None:
    """Download what may be downloaded, describe the manual steps, and write the lists of the split."""
    from hashbench.data.load import default_root
    from hashbench.data.packing import pack as pack_images
    from hashbench.data.prepare import ensure, export_lists
    from hashbench.runtime.files import folder_name
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
    name = f"{folder_name(chosen.name)}@{chosen.protocol}-{dataset.fingerprint[:8]}"
    folder = root / "lists" / name
    try:
        with locked(root):
            export_lists(dataset, folder)
        show(f"lists {folder}")
    except (HashbenchError, OSError) as error:  # runs do not need the lists, which are for other code
        warn(f"no lists were written: {error}")


@app.command()
@with_options("chosen", choose_dataset)
def export_lists(
    chosen: ChosenDataset,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write the lists to.")],
    images: Annotated[
        bool, typer.Option("--images", help="Also write the images, if they are not separate files.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing lists.")] = False,
) -> None:
    """Write a split as list files for other programs: a path, then 0 or 1 for each class."""
    from hashbench.data.list_splits import CLASS_NAMES, find_lists
    from hashbench.data.prepare import export_lists as export

    if not force and (find_lists(output) or (output / CLASS_NAMES).exists()):
        raise UsageError(
            f"{output} already contains lists; choose another folder, or pass --force to replace them"
        )
    dataset = chosen.read()
    warn_about(dataset)
    files, base = export(dataset, output, write_images=images)
    for file in files:
        show(str(file))
    show(f"paths are relative to {base}")


def _show_verification(found: Verification) -> None:
    _show_facts(found)
    duplicates = found.duplicates
    for warning in found.warnings:
        warn(f"{warning}")
    if duplicates.query_database:
        warn(f"{duplicates.query_database:,} queries have the content of a database image and retrieve it")
    if duplicates.conflicting:
        warn(f"{len(duplicates.conflicting):,} images occur several times, with different labels")
    for problem in found.problems[:_SHOWN]:
        info(f"problem: {problem}")
    if len(found.problems) > _SHOWN:
        info(f"and {len(found.problems) - _SHOWN:,} more problems; --json has all")
    show(f"problems      {len(found.problems):,}")


def _show_facts(found: Verification) -> None:
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
        f"same content  {duplicates.groups:,} images under several ids, {len(duplicates.conflicting):,} with "
        f"different labels; {duplicates.query_database:,} queries are in the database under another id"
    )
    for group in duplicates.examples:
        show(f"              {' = '.join(group[:_SHOWN])}{' = …' if len(group) > _SHOWN else ''}")
    show(f"unanswerable  {found.unanswerable:,} queries without relevant items in the database")
    show(f"decoded       {'all' if found.decoded else 'none; pass --decode to decode all'}")
    if found.truncated:
        show(f"truncated     {len(found.truncated):,}, such as {found.truncated[0]}")
    show(f"fingerprint   {found.fingerprint}")
