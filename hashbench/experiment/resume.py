"""Checks that stopped runs are resumed with the same settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hashbench import distributed
from hashbench.config import RunConfig, flatten
from hashbench.data.dataset import Dataset
from hashbench.errors import UsageError
from hashbench.experiment.identity import identity_of, source_of
from hashbench.results.folders import has_checkpoint, stopped_runs
from hashbench.results.record import IDENTITY, STATES, THREADS, run_folder, run_id_of
from hashbench.runtime.console import is_main_process
from hashbench.runtime.json_files import read_json
from hashbench.runtime.locking import LOCK, owned

SHOWN = 6  # differences


def require_same_settings(planned: Sequence[tuple[RunConfig, Dataset]], results: Path) -> None:
    """Refuse to start a run from its beginning if a stopped run had other settings.

    Runs are compared if they have the same method, dataset, protocol, code length and seed.

    Raises:
        UsageError: A stopped run had other settings; the message lists them.
    """
    refusal = distributed.broadcast_object(_refusal(planned, results) if is_main_process() else None)
    if refusal is not None:
        raise UsageError(refusal)


def _refusal(planned: Sequence[tuple[RunConfig, Dataset]], results: Path) -> str | None:
    identities = [identity_of(config, dataset, source_of(config)) for config, dataset in planned]
    run_ids = [run_id_of(identity) for identity in identities]
    for (config, _), identity, run_id in zip(planned, identities, run_ids, strict=True):
        final = run_folder(results, config.dataset, config.protocol, config.method, config.bits, run_id)
        if final.exists() or stopped_runs(final):
            continue
        for folder in sorted(final.parent.glob(".*")):
            found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}", folder.name)
            stopped = _stored_identity(folder)
            if found and found[1] not in run_ids and stopped and stopped["config"]["seed"] == config.seed:
                with owned(folder / LOCK) as free:
                    if not free:  # it is still running
                        continue
                return (
                    f"the run that was stopped in {folder} had other settings: "
                    f"{_differences(stopped, identity)}; restore them, start from the beginning without "
                    "--resume, or delete that folder"
                )
    return None


def _stored_identity(folder: Path) -> dict[str, Any] | None:
    """Return the identity of a stopped run that has a checkpoint; None for any other folder."""
    if not has_checkpoint(folder):
        return None
    try:
        identity: dict[str, Any] = read_json(folder / STATES / IDENTITY)
        if "seed" not in identity["config"]:
            return None
        identity.pop(THREADS, None)
        return identity
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _differences(stopped: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    before, after = flatten(stopped), flatten(planned)
    found = [
        f"{path.removeprefix('config.')} was {before.get(path)} and is {after.get(path)}"
        for path in dict.fromkeys([*before, *after])
        if before.get(path) != after.get(path)
    ]
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
