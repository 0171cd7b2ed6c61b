"""Whether runs can go on where they were stopped: not with other settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hashbench import distributed
from hashbench.config import RunConfig, flatten
from hashbench.data.dataset import Dataset
from hashbench.errors import UsageError
from hashbench.experiment.run import identity, run_id, source_of
from hashbench.results.folders import has_state, stopped_runs
from hashbench.results.record import IDENTITY, STATES, THREADS, run_folder
from hashbench.runtime.console import is_main_process
from hashbench.runtime.json_files import read_json
from hashbench.runtime.locking import LOCK, owned

SHOWN = 6  # differences


def require_same_settings(planned: Sequence[tuple[RunConfig, Dataset]], results: Path) -> None:
    """Refuse to start runs anew beside one of the same method, data, bits and seed that was stopped.

    Args:
        planned: The runs that a command is to resume, with their data.
        results: Folder of all records.

    Raises:
        UsageError: There is one with other settings, which are named.
    """
    refusal = distributed.broadcast_object(_refusal(planned, results) if is_main_process() else None)
    if refusal is not None:
        raise UsageError(refusal)


def _refusal(planned: Sequence[tuple[RunConfig, Dataset]], results: Path) -> str | None:
    runs = [(config, dataset, source_of(config)) for config, dataset in planned]
    ids = [run_id(*run) for run in runs]
    for (config, dataset, source), own in zip(runs, ids, strict=True):
        final = run_folder(results, config.dataset, config.protocol, config.method, config.bits, own)
        if final.exists() or stopped_runs(final):
            continue
        for folder in sorted(final.parent.glob(".*")):
            found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}", folder.name)
            then = _identity(folder)
            if found and found[1] not in ids and then and then["config"]["seed"] == config.seed:
                with owned(folder / LOCK) as stopped:
                    if not stopped:
                        continue
                now = identity(config, dataset, source)
                return (
                    f"the run that was stopped in {folder} had other settings: {_differences(then, now)}; "
                    "take them back, start anew without --resume, or delete that folder"
                )
    return None


def _identity(folder: Path) -> dict[str, Any] | None:
    """Return what a run was that was stopped, but for its threads, if it has a state."""
    if not has_state(folder):
        return None
    try:
        found: dict[str, Any] = read_json(folder / STATES / IDENTITY)
        if "seed" not in found["config"]:
            return None
        found.pop(THREADS, None)
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = flatten(then), flatten(now)
    found = [
        f"{path.removeprefix('config.')} was {before.get(path)} and is {after.get(path)}"
        for path in dict.fromkeys([*before, *after])
        if before.get(path) != after.get(path)
    ]
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
