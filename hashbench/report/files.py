"""Files that a report writes: whole, or as they were."""

from __future__ import annotations

from pathlib import Path

from hashbench.durable import replacing
from hashbench.errors import HashbenchError, UsageError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, in place of one that may be there.

    Raises:
        UsageError: There is no such folder.
        HashbenchError: It cannot be written; what was there is as it was.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written, since there is no folder {path.parent}")
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise HashbenchError(f"{path} cannot be written ({error.strerror}); choose another place") from error
