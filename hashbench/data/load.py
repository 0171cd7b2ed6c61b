"""Load datasets by name."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hashbench import registry
from hashbench.data.dataset import Dataset, DatasetPlugin
from hashbench.data.list_splits import LISTS
from hashbench.data.packing import use_packed
from hashbench.data.protocol import MAX_LIMIT, SPLIT, fingerprint, limit_of, overlaps
from hashbench.errors import HashbenchError, TooFewImagesError, UsageError, unknown_name
from hashbench.recipe import check_settings
from hashbench.runtime.arguments import as_count, as_path

# What to do if a protocol draws more images than there are.
_INSTEAD = {LISTS: "; pass smaller numbers as --data query=N and --data train=N", SPLIT: "; add images"}
_ELSE = (
    "; --limit and --data fraction reduce the complete split, so add the missing images, or split those that "
    "are there by ratios: list them with their labels in a labels.csv, for --dataset folder"
)


def create_dataset(name: str, /, **options: Any) -> DatasetPlugin:
    """Create the plugin of a dataset without reading any data.

    Args:
        name: Name of a registered dataset.
        **options: Options of the dataset; `hashbench data info NAME` lists them.

    Raises:
        UsageError: The dataset or an option is unknown, or a value is invalid.
        HashbenchError: The plugin has no protocols.
    """
    entry = registry.find("dataset", name)
    cls: type[DatasetPlugin] = entry.load()
    if not getattr(cls, "protocols", None):
        raise HashbenchError(f'{entry} has no protocols; add protocols = {{"default": Protocol("…")}}')
    return cls(check_settings(f"option of {name}", cls.Options, options))


def choose_protocol(name: str, plugin: DatasetPlugin, protocol: str | None) -> str:
    """Return the protocol to use: the given one, `lists` if a folder of list files is given, or the default.

    Raises:
        UsageError: The protocol is unknown, or cannot be combined with list files.
    """
    if getattr(plugin.options, "lists", None) is not None:
        if protocol not in (None, LISTS):
            raise UsageError(f"list files need the protocol {LISTS}, got {protocol}; omit one of them")
        protocol = LISTS
    if protocol is None:
        return next(iter(plugin.protocols))
    if not isinstance(protocol, str) or protocol not in plugin.protocols:
        raise unknown_name(f"protocol of {name}", protocol, plugin.protocols)
    return protocol


def default_root() -> Path:
    """Return the default data root: `$HASHBENCH_DATA` if it is set, else `~/.cache/hashbench/data`.

    Raises:
        UsageError: The user has no home folder, for example in a container.
    """
    configured = os.environ.get("HASHBENCH_DATA", "").strip()
    try:
        return Path(configured or "~/.cache/hashbench/data").expanduser()
    except RuntimeError:
        raise UsageError(
            "this user has no home folder; set the data root with --data-root DIR or $HASHBENCH_DATA"
        ) from None


def choose_root(plugin: DatasetPlugin, root: Path | str | None) -> Path:
    """Return the data root: the given folder, or the default one.

    Raises:
        UsageError: The given folder is empty text, or there is no default one and the dataset needs it.
    """
    if isinstance(root, str) and not root.strip():
        raise UsageError("root is empty; pass the data root, or None for the default one")
    try:
        return default_root() if root is None else as_path(root, "root")
    except UsageError:
        if plugin.needs_root:
            raise
        return Path(os.devnull)


def load_dataset(
    name: str,
    /,
    protocol: str | None = None,
    root: Path | str | None = None,
    *,
    limit: int | None = None,
    **options: Any,
) -> Dataset:
    """Load a dataset by name, using the packed copy of its images if there is one.

    Args:
        name: Name of a registered dataset.
        protocol: Name of the protocol; None: the dataset's default.
        root: The data root; None: `$HASHBENCH_DATA`, else `~/.cache/hashbench/data`.
        limit: Number of images to draw from each part, for a first try. The protocol is then called
            `NAME-limitN`, a name that is also accepted as the protocol.
        **options: Options of the dataset; `hashbench data info NAME` lists them.

    Raises:
        UsageError: The dataset, the protocol or an option is unknown, or the limit is invalid.
        HashbenchError: The data is missing or damaged.
    """
    protocol, limit = without_limit(protocol, limit)
    plugin = create_dataset(name, **options)
    root = choose_root(plugin, root)
    dataset = read_dataset(name, plugin, choose_protocol(name, plugin, protocol), root)
    if plugin.options.packed:
        dataset = use_packed(dataset, root)
    return dataset if limit is None else _limited(dataset, limit)


def without_limit(protocol: str | None, limit: int | None) -> tuple[str | None, int | None]:
    """Return the name of a protocol without `-limitN`, and the limit.

    Raises:
        UsageError: The limit is not a number of images, or the protocol has another one.
    """
    if limit is not None:
        limit = as_count(limit, "limit", f"a number of images from 1 to {MAX_LIMIT:,}", 1, MAX_LIMIT)
    named = limit_of(protocol) if isinstance(protocol, str) else None
    if named is None or protocol is None:
        return protocol, limit
    if limit not in (None, named):
        raise UsageError(f"the protocol {protocol} has another limit than {limit}; omit one of them")
    return protocol.removesuffix(f"-limit{named}"), named


def _limited(dataset: Dataset, limit: int) -> Dataset:
    """Draw images from each part of a dataset; the split is another one, and so is its fingerprint."""
    parts = {**dataset.parts(), "validation": dataset.validation}
    drawn = {
        name: part.subset(np.sort(np.random.default_rng(0).permutation(len(part.images))[:limit]))
        for name, part in parts.items()
        if part is not None
    }
    train, query, database = (drawn[name] for name in ("train", "query", "database"))
    return replace(
        dataset,
        protocol=f"{dataset.protocol}-limit{limit}",
        train=train.images,
        train_labels=train.labels,
        query=query,
        database=database,
        validation=drawn.get("validation"),
        fingerprint=fingerprint(*((part.images.ids, part.labels) for part in (train, query, database))),
        overlaps=overlaps(train.images.ids, query.images.ids, database.images.ids),
        warnings=(*dataset.warnings, f"limited to {limit:,} images of each part, for a first try only"),
    )


def read_dataset(name: str, plugin: DatasetPlugin, protocol: str, root: Path) -> Dataset:
    """Load a dataset with its plugin from its own files, and compare the sizes with the protocol.

    Raises:
        HashbenchError: The data is missing or damaged, or the plugin returns something else.
    """
    try:
        dataset = plugin.load(root, protocol)
    except TooFewImagesError as error:
        raise HashbenchError(f"{name}@{protocol}: {error}{_INSTEAD.get(protocol, _ELSE)}") from error
    if not isinstance(dataset, Dataset):
        raise HashbenchError(
            f"{registry.find('dataset', name)}: expected a Dataset from load(), got {type(dataset).__name__}"
        )
    if (dataset.name, dataset.protocol) != (name, protocol):
        raise HashbenchError(
            f"{registry.find('dataset', name)}: expected the dataset {name}@{protocol} from load(), got "
            f"{dataset.name}@{dataset.protocol}"
        )
    counts = {part: len(split.images) for part, split in dataset.parts().items()}
    differences = plugin.protocols[protocol].scaled(plugin.options.fraction).differences(**counts)
    return replace(dataset, warnings=(*dataset.warnings, *differences))
