"""Completion of names in the shell, which must be fast: torch is not imported and no record is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from hashbench.errors import HashbenchError

if TYPE_CHECKING:
    from hashbench.registry import Kind


_typed: list[str] = []  # what bash separates from the word to complete: its part before a colon


def join_colons() -> None:
    """Join the words that bash splits at colons; of the word to complete, only the end is kept as a word."""
    _typed.clear()
    words = os.environ.get("COMP_WORDS", "").split()
    if os.environ.get("_HASHBENCH_COMPLETE") != "complete_bash" or ":" not in words:
        return
    cursor = int(os.environ["COMP_CWORD"])
    before, current = words[:cursor], "".join(words[cursor : cursor + 1])
    if current == ":":
        before, current = [*before, ":"], ""
    _typed[:] = [f"{before[-2]}:"] if before[-1] == ":" else []
    before = " ".join(before[:-2] if _typed else before).replace(" : ", ":").split()
    os.environ.update(COMP_WORDS=" ".join([*before, current]), COMP_CWORD=str(len(before)))


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
    typed = "".join(_typed)
    before, comma, last = f"{typed}{incomplete}".rpartition(",")
    return [f"{before}{comma}{name}".removeprefix(typed) for name in known if name.startswith(last)]
