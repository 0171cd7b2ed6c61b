"""Files that a report writes: whole, or as they were."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from hashbench.errors import HashbenchError, UsageError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, in place of one that may be there.

    Raises:
        UsageError: There is no such folder.
        HashbenchError: It cannot be written; what was there is as it was.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written, since there is no folder {path.parent}")
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise HashbenchError(f"{path} cannot be written ({error.strerror}); choose another place") from error
