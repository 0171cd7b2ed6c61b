"""Another process that owns a file."""

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
with owned(Path(sys.argv[1])) as free:
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print(free, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns a file until it gets a line, and one that it forked and that waits with it."""
    command = [sys.executable, "-c", OWN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()
