"""The identity of a run: everything that can change its numbers, from which its run id is computed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hashbench import registry
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.errors import HashbenchError
from hashbench.results.record import Record, read_record, run_identity
from hashbench.runtime import environment
from hashbench.runtime.environment import recorded_versions


def identity_of(config: RunConfig, dataset: Dataset, source: str) -> dict[str, Any]:
    """Return the identity of a run, from which `run_id_of` computes its id."""
    validation = dataset.validation if config.selection.name == "best-val" else None
    return run_identity(
        config.model_dump(mode="json"),
        dataset.fingerprint,
        None if validation is None else validation.fingerprint(),
        source,
        environment.library_versions(*optional_libraries(config)),
    )


def find_stale(parent: Path, identity: Mapping[str, Any]) -> Path | None:
    """Return the newest run whose identity differs in the source code of hashbench only; None if none does.

    Args:
        parent: The folder of the runs with this method, dataset, protocol and code length.
        identity: The identity of a run, from `identity_of`.
    """
    found = []
    for folder in parent.glob("[!.]*"):
        with suppress(HashbenchError):  # a record that cannot be read
            record = read_record(folder)
            split, libraries = record.split, recorded_versions(record.environment)
            stored = run_identity(record.config, split.sha256, split.validation, "", libraries)
            if _without_code(stored) == _without_code(identity):
                found.append((record.created, folder))
    return max(found)[1] if found else None


def _without_code(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {**identity, "code": None, "libraries": {**identity["libraries"], "hashbench": None}}


def source_of(run: RunConfig | Record) -> str:
    """Return the hash of the source code that a run depends on: its method, its dataset and the core."""
    return registry.source_digest(registry.find("method", run.method), registry.find("dataset", run.dataset))


def plugin_files(run: RunConfig) -> list[str]:
    """Return the names of the plugin files that the method and the dataset of a run come from."""
    entries = registry.find("method", run.method), registry.find("dataset", run.dataset)
    return list(dict.fromkeys(entry.sources()[0].name for entry in entries if entry.origin == "file"))


def optional_libraries(config: RunConfig) -> tuple[str, ...]:
    """Return the names of the optional libraries that a run uses."""
    return ("kornia",) if config.views.on_device else ()
