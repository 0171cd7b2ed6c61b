"""Completion of names in the shell, which must be fast: torch is not imported and no record is read."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from hashbench.errors import HashbenchError

if TYPE_CHECKING:
    from hashbench.registry import Kind


def methods(incomplete: str) -> list[str]:
    """Complete names of methods."""
    return _complete(incomplete, _registered("method"))


def datasets(incomplete: str) -> list[str]:
    """Complete names of datasets."""
    return _complete(incomplete, _registered("dataset"))


def protocols(context: typer.Context, incomplete: str) -> list[str]:
    """Complete names of protocols: those of the datasets on the command line, else of all."""
    from hashbench import registry

    given = context.params.get("dataset")
    found: dict[str, None] = {}
    for name in given.split(",") if given else _registered("dataset"):
        with suppress(HashbenchError):
            found |= dict.fromkeys(registry.find("dataset", name).load().protocols)
    return _complete(incomplete, found)


def experiments(incomplete: str) -> list[str]:
    """Complete names of the experiments that come with hashbench."""
    from hashbench.experiment.definition import shipped_experiments

    return _complete(incomplete, shipped_experiments())


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Complete ids of runs."""
    folders = context.params["results"].glob(f"*@*/*/*bit/{glob.escape(incomplete)}*")
    return sorted(folder.name for folder in folders if not folder.name.startswith("."))


def _registered(kind: Kind) -> list[str]:
    from hashbench import registry

    with suppress(HashbenchError):
        return [*registry.entries(kind)]
    return []


def _complete(incomplete: str, known: Iterable[str]) -> list[str]:
    """Complete the last of several names that are separated by commas."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in known if name.startswith(last)]
