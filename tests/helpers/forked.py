"""The command-line program in forked processes, so that torch is imported only once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets

import hashbench.experiment.run  # noqa: F401 (for the processes that are forked)
from hashbench import registry
from hashbench.cli.app import main

TESTS = Path(__file__).parents[1]


def run_python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python, with the folder of the tests on its path and one thread, and check that it succeeds.

    Args:
        *arguments: The arguments of Python.
        **options: Options of `subprocess.run`.
    """
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def run_forked(function: Callable[..., None], *arguments: object) -> None:
    """Call a function in a forked process, and check that it succeeds."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def call(arguments: Sequence[str]) -> Any:
    """Call `hashbench ARGUMENTS` in this process, and return its exit code.

    Processes that are forked later reuse everything that it has imported and compiled.
    """
    sys.argv = ["hashbench", *arguments]
    try:
        main()
    except SystemExit as exit_:
        return exit_.code or 0
    return 0


def start(arguments: Sequence[str], said: Path) -> int:
    """Start `hashbench ARGUMENTS` in a process, with its output in a file, and return the process id."""
    return start_function(lambda: call(arguments), said)


def start_function(function: Callable[[], Any], said: Path) -> int:
    """Call a function, which returns an exit code, in a process, with its output in a file."""
    process = os.fork()
    if process:
        return process
    code: Any = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which pytest's workers ignore
    try:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        # pytest may have replaced them in the parent process.
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        code = function()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int) -> int:
    """Wait for a process and return its exit code, which is the negative signal if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def pytest_in_fork(said: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest in a forked process; return its exit code and its output, which a file receives."""
    return wait(start_function(lambda: pytest.main([*arguments]), said)), said.read_text(encoding="utf-8")


def first_digits(images: int) -> Any:
    """Return the first images of the digits dataset as scikit-learn does; 200 of them become queries."""
    digits = sklearn.datasets.load_digits()
    digits.update(images=digits.images[:images], target=digits.target[:images])
    return digits


def few_digits(images: int) -> None:
    """Reduce the digits dataset to its first images, in this process and those that it forks."""
    registry.source_digest()  # now, because the sources may be edited later
    digits = first_digits(images)
    sklearn.datasets.load_digits = lambda: digits
