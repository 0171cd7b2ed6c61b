"""The commands `hashbench cache …`: features of networks that are kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashbench.cli.options import AsJson
from hashbench.cli.output import print_json, show
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.encoding.feature_cache import CacheEntry

SHOWN = 10  # digits of a key
LEFT_OVER = "left over"

app = typer.Typer()


@app.callback(invoke_without_command=True)
def cache(context: typer.Context) -> None:
    """Features kept on disk for later runs: list them (as without a command), remove them."""
    if context.invoked_subcommand is None:
        list_features()


@app.command("list")
def list_features(as_json: AsJson = False) -> None:
    """List the features, the last used first."""
    folder, found = _find()
    if as_json:
        print_json({"folder": str(folder), "features": [_json(one) for one in found]})
        return
    if not found:
        show(f"{folder} has no features")
        return
    from rich.table import Column, Table

    table = Table(
        "key",
        Column("backbone", overflow="fold"),
        *(Column(name, justify="right") for name in ("pixels", "images", "dimensions", "MB")),
        Column("last used", no_wrap=True),
        box=None,
        padding=(0, 1, 0, 0),
    )
    for one in found:
        facts = one.facts
        table.add_row(
            one.key[:SHOWN],
            facts.backbone if facts else LEFT_OVER,
            *((f"{n:,}" for n in (facts.image_size, facts.images, facts.dimensions)) if facts else [""] * 3),
            _megabytes(one),
            f"{one.used.astimezone():%Y-%m-%d}",
        )
    show(table)
    show(f"{_megabytes(*found)} MB in {folder}")


@app.command()
def clear(
    key: Annotated[
        list[str] | None, typer.Argument(metavar="KEY", help="Keys of features, or their beginnings.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All features.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Only what was last used more than DAYS days ago."),
    ] = None,
) -> None:
    """Remove features; later runs compute them again. Other files in the folder stay."""
    if key and everything:
        raise UsageError("name keys, or pass --all, not both")
    if not (key or everything or older_than is not None):
        raise UsageError("name keys, as `hashbench cache` lists them, or pass --all or --older-than DAYS")

    from datetime import datetime, timedelta, timezone

    from hashbench.encoding.feature_cache import remove

    folder, found = _find()
    chosen = _named(key, found) if key else found
    if older_than is not None:
        now = datetime.now(timezone.utc)
        chosen = [one for one in chosen if now - one.used > timedelta(days=older_than)]
    for one in chosen:
        remove(one)
        facts = one.facts
        what = f"{facts.backbone}, {facts.images:,} images of {facts.image_size} px" if facts else LEFT_OVER
        show(f"removed {one.key[:SHOWN]}: {what}, {_megabytes(one)} MB")
    show(
        f"removed {len(chosen):,} of {len(found):,} sets of features, {_megabytes(*chosen)} MB, from {folder}"
    )


def _find() -> tuple[Path, list[CacheEntry]]:
    """The folder of the cache, and what is there."""
    from hashbench.encoding.feature_cache import cache_folder, stored

    folder = cache_folder()
    if folder is None:
        raise UsageError("no features are kept on disk; HASHBENCH_CACHE is off, or there is no home")
    return folder, stored(folder)


def _named(keys: list[str], found: list[CacheEntry]) -> list[CacheEntry]:
    """What is under the keys that begin so, each once.

    Raises:
        UsageError: There is none that begins so, or more than one.
    """
    chosen: dict[str, CacheEntry] = {}
    for key in keys:
        fitting = [one for one in found if one.key.startswith(key)]
        if len(fitting) != 1:
            many = f"{len(fitting)} keys begin" if fitting else "no key begins"
            raise UsageError(f"{many} with {key!r}; `hashbench cache list --json` has them in full")
        chosen[fitting[0].key] = fitting[0]
    return list(chosen.values())


def _json(one: CacheEntry) -> dict[str, Any]:
    return {
        "key": one.key,
        "bytes": one.size,
        "last_used": one.used.isoformat(),
        "created": one.created.isoformat() if one.created else None,
        **(one.facts.model_dump() if one.facts else {"backbone": None}),
    }


def _megabytes(*several: CacheEntry) -> str:
    return f"{sum(one.size for one in several) / 1e6:,.1f}"
