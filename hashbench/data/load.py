"""Load a dataset by its name."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from hashbench import registry
from hashbench.data.dataset import Dataset, DatasetPlugin, default_root
from hashbench.data.list_splits import LISTS
from hashbench.data.packing import use_packed
from hashbench.errors import HashbenchError, UsageError, unknown_name
from hashbench.recipe import check_settings
from hashbench.runtime.arguments import as_path


def create_dataset(name: str, **options: Any) -> DatasetPlugin:
    """Make the plugin of a dataset; nothing is read yet.

    Args:
        name: A registered dataset.
        **options: What the dataset lets one choose; `hashbench data info NAME` lists it.

    Raises:
        UsageError: No such dataset, or an option that it does not have or that does not fit.
        HashbenchError: The plugin has no protocols.
    """
    entry = registry.find("dataset", name)
    cls: type[DatasetPlugin] = entry.load()
    if not getattr(cls, "protocols", None):
        raise HashbenchError(f'{entry} has no protocols; add protocols = {{"default": Protocol("…")}}')
    return cls(check_settings(f"option of {name}", cls.Options, options))


def choose_protocol(name: str, plugin: DatasetPlugin, protocol: str | None) -> str:
    """The protocol of that name, or the default; a folder of list files means `lists`.

    Raises:
        UsageError: There is none of that name, or list files do not go with it.
    """
    if getattr(plugin.options, "lists", None) is not None:
        if protocol not in (None, LISTS):
            raise UsageError(f"list files go with the protocol {LISTS}, not with {protocol}")
        protocol = LISTS
    if protocol is None:
        return next(iter(plugin.protocols))
    if not isinstance(protocol, str) or protocol not in plugin.protocols:
        raise unknown_name(f"protocol of {name}", protocol, plugin.protocols)
    return protocol


def choose_root(plugin: DatasetPlugin, root: Path | str | None) -> Path:
    """Return the folder of the data: the one that the user named, else the default one.

    Raises:
        UsageError: Neither is there, and the dataset needs one.
    """
    if isinstance(root, str) and not root.strip():
        raise UsageError("root is empty; give the folder of the data, or None for the default one")
    try:
        return default_root() if root is None else as_path(root, "root")
    except UsageError:
        if plugin.needs_root:
            raise
        return Path(os.devnull)


def load_dataset(
    name: str, protocol: str | None = None, root: Path | str | None = None, **options: Any
) -> Dataset:
    """Load a dataset by name; the packed copy of its images is used, if there is one.

    Args:
        name: A registered dataset.
        protocol: How it is split; None: the dataset's default.
        root: Folder of the data; None: `$HASHBENCH_DATA`, else `~/.cache/hashbench/data`.
        **options: What the dataset lets one choose; `hashbench data info NAME` lists it.

    Raises:
        UsageError: No such dataset, protocol or option.
        HashbenchError: The data is not there, or not sound.
    """
    plugin = create_dataset(name, **options)
    root = choose_root(plugin, root)
    dataset = read_dataset(name, plugin, choose_protocol(name, plugin, protocol), root)
    return use_packed(dataset, root) if plugin.options.packed else dataset


def read_dataset(name: str, plugin: DatasetPlugin, protocol: str, root: Path) -> Dataset:
    """Load a dataset by its plugin, from its own files, and compare it with what the protocol says.

    Args:
        name: The name that the plugin is registered by.
        plugin: The plugin.
        protocol: One of its protocols.
        root: Folder of the data.

    Raises:
        HashbenchError: The data is not there, or not sound; or the plugin gives something else.
    """
    dataset = plugin.load(root, protocol)
    if not isinstance(dataset, Dataset):
        raise HashbenchError(
            f"{registry.find('dataset', name)}: load gives {type(dataset).__name__}, not a Dataset"
        )
    if (dataset.name, dataset.protocol) != (name, protocol):
        raise HashbenchError(
            f"{registry.find('dataset', name)} gives a dataset that calls itself "
            f"{dataset.name}@{dataset.protocol}, not {name}@{protocol}"
        )
    counts = {part: len(split.images) for part, split in dataset.parts().items()}
    unusual = plugin.protocols[protocol].differences(**counts)
    return replace(dataset, warnings=(*dataset.warnings, *unusual))
