"""Walking through folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hashbench.errors import HashbenchError

# Folders that operating systems and network drives create: thumbnails, recycle bins, snapshots, recovered
# files, and metadata that macOS adds to archives.
_SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin"),
        *("system volume information", "lost+found", "__macosx"),
    )
)


def walk(root: Path | str, skipped: list[str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield the root and each folder below it with the names of its files.

    Links to folders are followed, except to folders that were already visited or contain the root. Hidden
    files and folders and those of the operating system are skipped.

    Args:
        root: The folder; nothing is yielded below it if it does not exist.
        skipped: List that receives the paths of files and folders of the operating system; see
            `skipped_warning`.
    """
    seen = set()
    above = os.path.join(os.path.realpath(root), "")  # noqa: PTH118
    try:
        for folder, subfolders, names in os.walk(root, onerror=_refuse, followlinks=True):
            status = os.stat(folder)  # noqa: PTH116 - os.walk gives strings
            if (status.st_dev, status.st_ino) in seen or _leads_up(folder, above, str(root)):
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            if skipped is not None:
                system = [*filter(is_system_folder, subfolders), *filter(is_system_file, names)]
                skipped += [f"{folder}{os.sep}{name}" for name in system]
            subfolders[:] = sorted(
                name for name in subfolders if not (name[0] == "." or is_system_folder(name))
            )
            yield folder, [name for name in names if name[0] != "."]
    except RecursionError:  # raised by os.walk before Python 3.12
        raise HashbenchError(f"{root} contains too many nested folders; move them away") from None


def is_system_folder(name: str) -> bool:
    """Return True for the name of a folder of an operating system, such as a recycle bin."""
    return name.lower() in _SYSTEM_FOLDERS or name.startswith(".Trash-")


def is_system_file(name: str) -> bool:
    """Return True for the name of a file in which macOS stores attributes of another file."""
    return name.startswith("._")


def skipped_warning(skipped: Sequence[str]) -> list[str]:
    """Return a list with a warning about skipped files and folders; it is empty if there are none."""
    if not skipped:
        return []
    names = (os.path.basename(path) for path in skipped)  # noqa: PTH119 - these are strings
    counts = Counter("._*" if is_system_file(name) else name for name in names)
    listed = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    return [f"files and folders of the operating system are skipped: {listed}"]


def _refuse(error: OSError) -> None:
    """Raise an error for a folder that cannot be read; a folder that does not exist is skipped."""
    if not isinstance(error, FileNotFoundError):
        raise HashbenchError(f"{error.filename} cannot be read: {error.strerror}") from error


def _leads_up(folder: str, above: str, root: str) -> bool:
    """Return True for a link to a folder that contains the root."""
    if folder == root or not os.path.islink(folder):  # noqa: PTH114
        return False
    return above.startswith(os.path.join(os.path.realpath(folder), ""))  # noqa: PTH118
