"""Verification of runs against their records, including the recipe of the method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from pydantic import ValidationError

from hashbench import registry
from hashbench.config import RunConfig
from hashbench.errors import HashbenchError
from hashbench.experiment import configure
from hashbench.results.published_protocol import PublishedProtocol
from hashbench.results.stored_run import StoredRun
from hashbench.results.verify import Checked, check_figures
from hashbench.runtime.files import sha256_of


def verify_all(runs: Iterable[StoredRun]) -> Iterator[Checked]:
    """Verify the files and figures of runs, and what their records say about the recipes of their methods.

    A recipe is only compared if it and the source code have not changed since the run. It is read once.
    """
    installed = _Installed()
    for run in runs:
        checked = check_figures(run)
        _check_recipe(checked, installed)
        yield checked


class _Installed:
    """The installed recipes and source code, each read once."""

    def __init__(self) -> None:
        self.digests = cache(_digests)
        self._recipes: dict[tuple[Any, ...], Any] = {}

    def recipe(
        self, run: RunConfig, images: int
    ) -> tuple[RunConfig | None, dict[str, Any], PublishedProtocol | None]:
        """Return the configuration, the components and the published protocol from the recipe of a run."""
        key = run.method, run.dataset, run.bits, run.device, run.processes, run.recipe
        if key not in self._recipes:
            self._recipes[key] = (
                configure.recipe_alone(run),
                configure.components(run.method),
                configure.published_protocol(run, images),
            )
        return self._recipes[key]  # type: ignore[no-any-return]


def _digests(method: str, dataset: str) -> tuple[str | None, str]:
    """Return the hashes of the installed recipe, if there is one, and of the installed source code."""
    entry = registry.find("method", method)
    path = entry.recipe()
    source = registry.source_digest(entry, registry.find("dataset", dataset))
    return sha256_of(path) if path else None, source


def _check_recipe(checked: Checked, installed: _Installed) -> None:
    """Recompute what the record says about the recipe, if recipe and source code are those of the run."""
    record = checked.run.record
    if record.sha256 is None:  # such a record does not name its recipe
        return
    try:
        recorded_digests = record.recipe, record.environment.get("source")
        if recorded_digests != installed.digests(record.method, record.dataset):
            raise HashbenchError("the recipe or the source code has changed since the run")
        config = RunConfig(**record.config)
        recipe, components, published = installed.recipe(config, record.split.train)
        if published is not None:
            batches, steps = configure.training_length(config, record.split.train)
            published = published.model_copy(update={"own_batches": batches, "own_steps": steps})
        expected: dict[str, Any] = {
            "changes": configure.differences(recipe, config),
            "components": components,
            "published_protocol": published,
        }
    except HashbenchError as error:  # or a plugin is not registered
        checked.remarks.append(f"changes and components are not recomputed: {error}")
        return
    except ValidationError as error:
        checked.problems.append(f"its config is not valid for {record.method}: {error.errors()[0]['msg']}")
        return
    recorded = {key: getattr(record, key) for key in expected}
    if config.device == "cuda":  # the value of `auto` depends on the GPU
        for fields in (recorded, expected):
            fields["changes"] = {k: v for k, v in fields["changes"].items() if k != "training.precision"}
    checked.problems += [
        f"{key} is recorded as {recorded[key]}; the recipe gives {expected[key]}"
        for key in recorded
        if recorded[key] != expected[key]
    ]
