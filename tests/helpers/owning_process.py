"""Another process that holds a lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN = """
import os, sys
from pathlib import Path
from hashbench.runtime.locking import owned
with owned(Path(sys.argv[1]), content="process 7 on node9 since today") as free:
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print(free, flush=True)
    sys.stdin.readline()
"""

LOCKED = """
import sys
from pathlib import Path
from hashbench.runtime.locking import locked
with locked(Path(sys.argv[1])):
    print(True, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_process(path: Path, code: str = OWN) -> Iterator[subprocess.Popen[str]]:
    """Start a process that owns a file, or locks a folder, until it reads a line or is killed.

    The process that owns a file has a child, which waits as long.

    Args:
        path: The file or the folder.
        code: `OWN` or `LOCKED`.
    """
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()
