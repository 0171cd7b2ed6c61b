"""The end of the program: nothing that was written is lost, and the exit code is that of the command."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

CODE = """
import sys
from types import SimpleNamespace
from hashbench.__main__ import program

class Slow:
    def __del__(self):
        print("freed")

def main():
    global logs
    import atexit, logging.handlers
    logs = logging.handlers.MemoryHandler(1000, target=logging.StreamHandler(sys.stdout))
    logs.handle(logging.makeLogRecord({"msg": "logged", "levelno": 20}))
    atexit.register(print, "registered")
    print("written")
    raise ENDING

kept = Slow()
sys.modules["hashbench.cli.app"] = SimpleNamespace(main=main)
program()
"""


@pytest.mark.parametrize(
    ("ending", "code", "error"),
    [
        ("SystemExit", 0, ""),
        ("SystemExit(75)", 75, ""),
        ("SystemExit('a text')", 1, "a text\n"),
        ("ValueError('unexpected')", 1, "ValueError: unexpected\n"),
        ("KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt\n"),
    ],
)
def test_an_ending_keeps_its_code_and_its_output(ending: str, code: int, error: str) -> None:
    source = CODE.replace("ENDING", ending)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.endswith(error)
    assert bool(done.stderr) == bool(error)
    assert done.stdout.splitlines()[:3] == ["written", "registered", "logged"]
    assert ("freed" in done.stdout) == bool(error)  # Python ends what is unexpected
