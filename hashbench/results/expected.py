"""The runs that an experiment consists of, to find their records and to say which are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hashbench.results.record import Record

_OF_MACHINE = {"data", "device", "processes"}  # `data` is compared apart, since a record describes more
_NAMED = 6  # missing runs in a sentence


@dataclass(frozen=True)
class ExpectedRun:
    """A run of an experiment, known without its data.

    Attributes:
        name: Description, such as `wch on digits@default, 32 bits, seed 0`.
        config: The configuration that its record contains.
        data_defaults: Defaults of the options of its dataset, which a record of an older version may lack.
    """

    name: str
    config: Mapping[str, Any]
    data_defaults: Mapping[str, Any]

    def is_of(self, record: Record) -> bool:
        """Return True if a record is that of this run, on whatever machine it was made."""
        recorded = {**self.data_defaults, **record.config["data"]}
        # Older records do not name the part of the recipe, but all have its settings.
        part = record.config["recipe"] or self.config["recipe"]
        recorded_config = _comparable({**record.config, "recipe": part})
        return _comparable(self.config) == recorded_config and all(
            value is None or recorded[key] == value  # the dataset itself chooses what is None
            for key, value in self.config["data"].items()
        )


@dataclass(frozen=True)
class ExpectedRuns:
    """The runs of an experiment, and what its reports show.

    Attributes:
        experiment: Name of the experiment.
        runs: The runs.
        metric: Metric that reports show; None: the first mAP of the recipes.
        published: Tables show the figures that papers print.
        bounds: Tables show the bounds over all orders of equal distances.
    """

    experiment: str
    runs: Sequence[ExpectedRun] = field(repr=False)
    metric: str | None = None
    published: bool = False
    bounds: bool = False

    def includes(self, record: Record) -> bool:
        """Return True if a record is that of one of the runs."""
        return any(run.is_of(record) for run in self.runs)

    def missing(self, records: Sequence[Record]) -> list[str]:
        """Return a note on the runs that have no record; empty if all have one."""
        left = [run.name for run in self.runs if not any(run.is_of(record) for record in records)]
        if not left:
            return []
        more = f" and {len(left) - _NAMED:,} more" if len(left) > _NAMED else ""
        return [
            f"{len(left):,} of {len(self.runs):,} runs of the experiment {self.experiment} have no record: "
            f"{'; '.join(left[:_NAMED])}{more}"
        ]


def _comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in config.items() if key not in _OF_MACHINE}
    found["training"] = {key: value for key, value in config["training"].items() if key != "precision"}
    if config["selection"]["name"] == "last":  # otherwise the first cutoff selects the epoch
        found["evaluation"] = {**config["evaluation"], "k": sorted(map(str, config["evaluation"]["k"]))}
    return found
