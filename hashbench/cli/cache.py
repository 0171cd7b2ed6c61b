"""The commands `hashbench cache …`, for the features of frozen networks that are cached on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hashbench.cli.options import AsJson
from hashbench.cli.output import print_json, show
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.encoding.feature_cache import CacheEntry

_KEY_DIGITS = 10  # that are shown
_LEFT_OVER = "left over"

app = typer.Typer()


@app.callback(invoke_without_command=True)
def cache(context: typer.Context) -> None:
    """List (the default) or remove the features that are cached on disk for later runs."""
    if context.invoked_subcommand is None:
        list_features()


@app.command("list")
def list_features(as_json: AsJson = False) -> None:
    """List the cached features, most recently used first."""
    folder, found = _find()
    if as_json:
        print_json({"folder": str(folder), "features": [_json(entry) for entry in found]})
        return
    if not found:
        show(f"{folder} contains no features")
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
    for entry in found:
        facts = entry.facts
        table.add_row(
            entry.key[:_KEY_DIGITS],
            facts.backbone if facts else _LEFT_OVER,
            *((f"{n:,}" for n in (facts.image_size, facts.images, facts.dimensions)) if facts else [""] * 3),
            _megabytes(entry),
            f"{entry.used.astimezone():%Y-%m-%d}",
        )
    show(table)
    show(f"{_megabytes(*found)} MB in {folder}")


@app.command()
def clear(
    key: Annotated[
        list[str] | None, typer.Argument(metavar="KEY", help="Keys of features, or the beginnings of keys.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all features.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(min=0, metavar="DAYS", help="Only features last used more than DAYS days ago."),
    ] = None,
) -> None:
    """Remove cached features; later runs compute them again. Other files in the folder stay."""
    if key and everything:
        raise UsageError("pass either keys or --all, not both")
    if not (key or everything or older_than is not None):
        raise UsageError("pass keys, as `hashbench cache` lists them, or --all or --older-than DAYS")

    from datetime import datetime, timedelta, timezone

    from hashbench.encoding.feature_cache import remove

    folder, found = _find()
    chosen = _named(key, found) if key else found
    if older_than is not None:
        now = datetime.now(timezone.utc)
        chosen = [entry for entry in chosen if now - entry.used > timedelta(days=older_than)]
    for entry in chosen:
        remove(entry)
        facts = entry.facts
        what = f"{facts.backbone}, {facts.images:,} images of {facts.image_size} px" if facts else _LEFT_OVER
        show(f"removed {entry.key[:_KEY_DIGITS]}: {what}, {_megabytes(entry)} MB")
    show(
        f"removed {len(chosen):,} of {len(found):,} sets of features, {_megabytes(*chosen)} MB, from {folder}"
    )


def _find() -> tuple[Path, list[CacheEntry]]:
    """Return the folder of the cache and its entries.

    Raises:
        UsageError: The cache is off.
    """
    from hashbench.encoding.feature_cache import cache_folder, stored

    folder = cache_folder()
    if folder is None:
        raise UsageError(
            "features are not cached: HASHBENCH_CACHE is off, or there is no home folder; set "
            "HASHBENCH_CACHE to a folder"
        )
    return folder, stored(folder)


def _named(keys: list[str], found: list[CacheEntry]) -> list[CacheEntry]:
    """Return the entries whose keys begin with the given texts, without duplicates.

    Raises:
        UsageError: A text is the beginning of no key, or of more than one.
    """
    chosen: dict[str, CacheEntry] = {}
    for key in keys:
        matches = [entry for entry in found if entry.key.startswith(key)]
        if len(matches) != 1:
            count = f"{len(matches)} keys begin" if matches else "no key begins"
            raise UsageError(f"{count} with {key!r}; `hashbench cache list --json` lists the full keys")
        chosen[matches[0].key] = matches[0]
    return list(chosen.values())


def _json(entry: CacheEntry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "bytes": entry.size,
        "last_used": entry.used.isoformat(),
        "created": entry.created.isoformat() if entry.created else None,
        **(entry.facts.model_dump() if entry.facts else {"backbone": None}),
    }


def _megabytes(*entries: CacheEntry) -> str:
    return f"{sum(entry.size for entry in entries) / 1e6:,.1f}"
