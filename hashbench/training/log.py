"""The log of a training: one JSON object a line."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hashbench.errors import HashbenchError
from hashbench.runtime.console import is_main_process

if TYPE_CHECKING:
    from typing_extensions import Self


class JsonLinesLog:
    """A JSON-lines file, written by the main process only; in other processes all methods do nothing.

    Values that are not finite become strings, since JSON has no numbers for them.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open the file, and drop what follows its first bytes.

        Args:
            path: The file; created if it is missing.
            length: Number of bytes to keep: those that were written before the checkpoint.

        Raises:
            HashbenchError: The file is shorter.
        """
        if not is_main_process():
            self._file = None
            return
        self._file = path.open("a", encoding="utf-8")
        written = os.fstat(self._file.fileno()).st_size
        if written < length:
            self._file.close()
            raise HashbenchError(
                f"{path}: expected at least {length:,} bytes, its size when the checkpoint was saved, got "
                f"{written:,}; put the file back, or start over without --resume"
            )
        self._file.truncate(length)
        self._file.seek(0, os.SEEK_END)  # `tell` needs it until something is written

    def write(self, **entry: float) -> None:
        """Append a line."""
        if self._file is not None:
            values = {key: value if math.isfinite(value) else str(value) for key, value in entry.items()}
            self._file.write(json.dumps(values) + "\n")

    def sync(self) -> int:
        """Write everything to disk, and return the length of the file in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
