"""Walking a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hashbench.errors import HashbenchError


def walk(root: Path | str) -> Iterator[tuple[str, list[str]]]:
    """Each folder below a root, and the root itself, with the names of its files, in no order.

    Links to folders are followed, but none that leads back to where it has been or up to the root. What is
    hidden is left out.

    Args:
        root: The folder; one that does not exist holds nothing.
    """
    seen = set()
    above = os.path.join(os.path.realpath(root), "")  # noqa: PTH118
    for folder, subfolders, names in os.walk(root, onerror=_refuse, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - os.walk gives strings
        if (status.st_dev, status.st_ino) in seen or _leads_up(folder, above, str(root)):
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield folder, [name for name in names if name[0] != "."]


def _refuse(error: OSError) -> None:
    """Name a folder that cannot be read, and would be left out; one that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError):
        raise HashbenchError(f"{error.filename} cannot be read: {error.strerror}") from error


def _leads_up(folder: str, above: str, root: str) -> bool:
    """Whether a folder is a link to one that the root is in; its other images are not the root's."""
    if folder == root or not os.path.islink(folder):  # noqa: PTH114
        return False
    return above.startswith(os.path.join(os.path.realpath(folder), ""))  # noqa: PTH118
