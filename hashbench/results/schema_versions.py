"""Older schema versions of records, which are read as records of the newest one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hashbench.config import SelectionConfig

NEWEST = 5

# Keys of a record by the version that introduced them.
_KEYS_SINCE = {
    2: ("evaluator", "changes", "components", "files"),
    3: ("resumed", "selected"),
    4: ("recipe", "published_protocol", "sha256"),
    5: ("foreign",),
}

# Settings that are absent from records of versions 1 and 2, with the values that their runs used.
_LATER: dict[str, Any] = {
    "processes": 1,
    "views": {"on_device": False},
    "training": {"accumulate": 1, "compile": False},
    "selection": SelectionConfig().model_dump(mode="json"),
    "evaluation": {"graded": False},
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
    if version in (1, 2) and isinstance(data.get("config"), dict):
        data = {**data, "config": _with_later_settings(data["config"])}
    return {**data, "schema_version": NEWEST} if version in range(1, NEWEST) else data


def _check_keys(version: int, data: Mapping[str, Any]) -> None:
    """Refuse a record that lacks a key of its version or has one of a later version."""
    for since, keys in _KEYS_SINCE.items():
        for key in keys:
            if since > version and key in data:
                raise ValueError(f"records of version {version} have no {key}")
            if since <= version and key not in data:
                raise ValueError(f"records of version {version} have {key}, which is missing")


def _with_later_settings(config: dict[str, Any]) -> dict[str, Any]:
    later = {key: {**v, **config.get(key, {})} if isinstance(v, dict) else v for key, v in _LATER.items()}
    return {**config, **later}
