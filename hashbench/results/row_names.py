"""Names of configurations that fit into a table: a given name, a short label, or the method with a letter."""

from __future__ import annotations

import itertools
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hashbench.errors import UsageError, unknown_name
from hashbench.results.stored_run import FOREIGN, StoredRun, Unfinished

LONGEST_LABEL = 40  # characters


def with_row_names(
    runs: Sequence[StoredRun], unfinished: Sequence[Unfinished] = (), rename: Mapping[str, str] | None = None
) -> tuple[list[StoredRun], list[Unfinished]]:
    """Return runs with names that fit into a table, and with notes on what the names do not say.

    Args:
        runs: Finished runs.
        unfinished: Runs without a record.
        rename: New names by name.

    Raises:
        UsageError: `rename` contains an unknown name, or gives the same name to two configurations.
    """
    every: list[StoredRun | Unfinished] = [*runs, *unfinished]
    rename = rename or {}
    given = {run.label: run.record.name for run in runs if run.record.name}
    short = _short_names({run.label: given.get(run.label) or _base(run) for run in every})
    for name in rename:
        if name not in short.values():
            raise unknown_name("row", name, short.values())
    chosen = {label: rename.get(name, name) for label, name in short.items()}
    for name, count in Counter(chosen.values()).items():
        if count > 1:
            raise UsageError(f"two rows would have the name {name!r}; choose another one")

    def named(run: StoredRun | Unfinished) -> dict[str, Any]:
        return {"name": chosen[run.label], "note": "" if short[run.label] == run.label else run.label}

    return [replace(run, **named(run)) for run in runs], [replace(run, **named(run)) for run in unfinished]


def _base(run: StoredRun | Unfinished) -> str:
    """Return the label of a run if it is short, else the name of its method."""
    method = run.record.method if isinstance(run, StoredRun) else run.method
    return run.label if len(run.label) <= LONGEST_LABEL else method


def _short_names(bases: Mapping[str, str]) -> dict[str, str]:
    """Return a name of its own for each label: its base, with a letter if others have the same base."""
    counts = Counter(bases.values())
    names = {label: label for label, base in bases.items() if label == base}
    used = set(names)
    for label, base in sorted(bases.items()):
        if label in names:
            continue
        mark = FOREIGN if label.endswith(FOREIGN) else ""
        # The name of a method alone stands for its recipe.
        alone = [base] if counts[base] == 1 and not label.startswith(f"{base} (") else []
        candidates = (f"{name}{mark}" for name in itertools.chain(alone, (f"{base} {x}" for x in _letters())))
        names[label] = next(name for name in candidates if name not in used)
        used.add(names[label])
    return names


def _letters() -> Iterator[str]:
    """Yield a, b, …, z, aa, ab, …."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))
