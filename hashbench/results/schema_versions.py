"""Older schema versions of records, which are read as records of the newest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hashbench.config import SelectionConfig

NEWEST = 7

# Keys of a record by the version that introduced them.
_KEYS_SINCE = {
    2: ("evaluator", "changes", "components", "files"),
    3: ("resumed", "selected"),
    4: ("recipe", "published_protocol", "sha256"),
    5: ("foreign", "name"),
}

# Settings by the version that introduced them, with the values that earlier runs used.
_SETTINGS_SINCE: dict[int, dict[str, Any]] = {
    3: {
        "processes": 1,
        "views": {"on_device": False},
        "training": {"accumulate": 1, "compile": False},
        "selection": SelectionConfig().model_dump(mode="json"),
        "evaluation": {"graded": False},
    },
    5: {"evaluation": {"relevance": "labels", "neighbours": 50}},
    6: {"recipe": None},
    7: {"training": {"max_images": None}, "evaluation": {"precision_encode": "float32"}},
}


def to_newest(data: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record as one of the newest version; leave unknown versions unchanged.

    Raises:
        ValueError: The record lacks a key of its version, or has one of a later version.
    """
    version: Any = data.get("schema_version")
    if version in range(1, NEWEST + 1):
        _check_keys(version, data)
    if version == 1:
        data = {**data, "evaluator": 1, "changes": None, "components": {}, "files": None}
    elif None in (data.get("changes", {}), data.get("files", {})):
        raise ValueError("only records of version 1 have no changes and files")
    for since, settings in _SETTINGS_SINCE.items():
        if version in range(1, since) and isinstance(data.get("config"), dict):
            data = {**data, "config": _with_settings(data["config"], settings)}
    return {**data, "schema_version": NEWEST} if version in range(1, NEWEST) else data


def _check_keys(version: int, data: Mapping[str, Any]) -> None:
    """Refuse a record that lacks a key of its version or has one of a later version."""
    for since, keys in _KEYS_SINCE.items():
        for key in keys:
            if since > version and key in data:
                raise ValueError(f"records of version {version} have no {key}")
            if since <= version and key not in data:
                raise ValueError(f"records of version {version} have {key}, which is missing")


def _with_settings(config: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Add settings to a configuration, unless it has them."""
    added = {key: {**v, **config.get(key, {})} if isinstance(v, dict) else v for key, v in settings.items()}
    return {**config, **added}
