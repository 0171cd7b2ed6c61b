"""Whether a run is what its record says, its method's recipe included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError

from hashbench import registry
from hashbench.config import RunConfig
from hashbench.data.download import file_digest
from hashbench.errors import HashbenchError
from hashbench.experiment import configure
from hashbench.results.record import PublishedProtocol
from hashbench.results.stored_run import StoredRun
from hashbench.results.verify import Checked, check_figures


def verify(run: StoredRun) -> Checked:
    """Check what `check_figures` does, and what was changed of the recipe, if the recipe is the run's."""
    (checked,) = verify_all([run])
    return checked


def verify_all(runs: Iterable[StoredRun]) -> Iterator[Checked]:
    """Do what `verify` does for several runs, one by one; each recipe is read once."""
    installed = _Installed()
    for run in runs:
        checked = check_figures(run)
        _check_recipe(checked, installed)
        yield checked


@dataclass(frozen=True)
class _Recipe:
    """What the recipe of a method says of a dataset and a code length."""

    config: RunConfig | None
    components: dict[str, dict[str, Any]]
    published: PublishedProtocol | None


class _Installed:
    """What is installed of the methods of some runs, read once for all of them."""

    def __init__(self) -> None:
        self.digests = cache(_digests)
        self._recipes: dict[tuple[Any, ...], _Recipe] = {}

    def recipe(self, run: RunConfig, images: int) -> _Recipe:
        """Read the recipe of the method of a run on so many training images."""
        kind = run.method, run.dataset, run.bits, run.device, run.processes
        if kind not in self._recipes:
            self._recipes[kind] = _Recipe(
                configure.recipe_alone(run),
                configure.components(run.method),
                configure.published_protocol(run, images),
            )
        return self._recipes[kind]


def _digests(method: str, dataset: str) -> tuple[str | None, str]:
    """Return the hashes of the recipe and of the source code that are installed."""
    entry = registry.find("method", method)
    path = entry.recipe()
    source = registry.source_digest(entry, registry.find("dataset", dataset))
    return file_digest(path, "sha256") if path else None, source


def _check_recipe(checked: Checked, installed: _Installed) -> None:
    """Compute what the record says of the recipe again, where recipe and source code are those of the run."""
    record = checked.run.record
    if record.sha256 is None:  # it does not say which recipe that is
        return
    try:
        recipe, source = installed.digests(record.method, record.dataset)
        if (recipe, source) != (record.recipe, record.environment.get("source")):
            checked.remarks.append(
                "changes and components are not computed again: recipe or source code is not that of the run"
            )
            return
        config = RunConfig(**record.config)
        says = installed.recipe(config, record.split.train)

        published = says.published
        if published is not None:
            batches, steps = configure.training_length(config, record.split.train)
            published = published.model_copy(update={"own_batches": batches, "own_steps": steps})
        anew: dict[str, Any] = {
            "changes": configure.differences(says.config, config),
            "components": says.components,
            "published_protocol": published,
        }
    except HashbenchError as error:  # as of a plugin that is not registered here
        checked.remarks.append(f"changes and components are not computed again: {error}")
        return
    except ValidationError as error:
        checked.problems.append(f"its config cannot be one of {record.method}: {error.errors()[0]['msg']}")
        return
    recorded = {key: getattr(record, key) for key in anew}
    if config.device == "cuda":  # what `auto` stands for depends on the GPU
        for one in (recorded, anew):
            one["changes"] = {k: v for k, v in one["changes"].items() if k != "training.precision"}
    checked.problems += [
        f"{key} is recorded as {recorded[key]}; the recipe gives {anew[key]}"
        for key in recorded
        if recorded[key] != anew[key]
    ]
