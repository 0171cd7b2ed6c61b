"""The command that makes a run, from its record."""

from __future__ import annotations

import shlex
from functools import cache
from typing import Any

from hashbench.config import BackboneConfig, RunConfig, flatten
from hashbench.data.list_splits import LISTS
from hashbench.data.options import ListOptions
from hashbench.recipe import FLAGS
from hashbench.results.record import Record
from hashbench.runtime.yaml_values import as_set

_DESCRIPTIONS = {"files", "packed"}  # of the data, beside the options


def command_of(record: Record) -> str:
    """Return the command line that makes a run, quoted for a shell.

    It lacks what a record does not contain: the data root, the plugin files, and the folder of the list
    files, which reads DIR.
    """
    config = record.config
    if record.foreign:
        split = f"{record.dataset}@{record.protocol}"
        return shlex.join(
            ["hashbench", "evaluate", "CODES", "--record", "--method", record.method, "--dataset", split]
        )
    start = ["hashbench", "run"]
    if config["processes"] > 1:
        start = ["torchrun", "--nproc-per-node", str(config["processes"]), "-m", *start]
    words = [*start, "--method", record.method, "--dataset", record.dataset]
    words += ["--lists", "DIR"] if record.protocol == LISTS else ["--protocol", record.protocol]
    words += ["--bits", str(record.bits), "--seed", str(record.seed), "--device", config["device"]]
    for key, value in config["data"].items():
        field = ListOptions.model_fields.get(key)
        if key not in _DESCRIPTIONS and (field is None or value != field.default):
            words += ["--data", f"{key}={as_set(value)}"]
    for path, value in _settings(record).items():
        words += ["--set", f"{path}={as_set(value)}"]
    unknown = "  # its changed settings are not recorded" if record.changes is None else ""
    return shlex.join(words) + unknown


def _settings(record: Record) -> dict[str, Any]:
    """Return the settings that a command must name: changes of the recipe, or else of the defaults."""
    if record.recipe is not None or record.sha256 is None or record.changes is None:
        return record.changes or {}  # records of older versions, without a checksum, do not name the recipe
    own = flatten({key: value for key, value in record.config.items() if key not in FLAGS})
    known = _defaults() | ({"training.precision": "float32"} if record.config["device"] == "cpu" else {})
    return {path: value for path, value in own.items() if known.get(path) != value} | record.changes


@cache
def _defaults() -> dict[str, Any]:
    flags: dict[str, Any] = {
        "method": "",
        "dataset": "",
        "protocol": "",
        "bits": 1,
        "seed": 0,
        "device": "cpu",
    }
    return flatten(RunConfig(**flags, backbone=BackboneConfig(name="")).model_dump(mode="json"))
