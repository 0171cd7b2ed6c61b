"""Standard streams that are closed, full or missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from hashbench.cli.output import show, write_tables
from hashbench.errors import HashbenchError
from hashbench.launchers import execute
from hashbench.runtime.console import info
from hashbench.runtime.preemption import PreemptionError
from hashbench.runtime.progress import progress

shell = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full and a shell of Unix")


class _Full:
    """A stream on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def isatty(self) -> bool:
        return False


def _closed() -> Any:
    stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, _closed(), _Full()], ids=["none", "closed", "full"])
def test_a_message_that_cannot_be_written_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, stream: object
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    info("a message")
    with progress("work", 2) as advance:
        advance(2)


def test_messages_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    info("a name \x1b[2J\n\udc80 ± ü")
    assert capsys.readouterr().err == "hashbench: a name \\x1b[2J\\n\\udc80 ± ü\n"
    assert str(HashbenchError("a\x1b]0;title\x07 b\n\tc")) == "a\\x1b]0;title\\x07 b c"


def test_results_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name \x1b[1m", "[bold]x[/bold]")
    table.add_row("a\x1b[2J", "\x07é")
    show(table)
    show("a\x1b[2J\nb\x9b [red]")
    write_tables("csv", list, lambda: "a\x1b[2J,±\n")
    lines = capsys.readouterr().out.splitlines()
    assert re.sub(" +", " ", lines[1]) == "┃ name \\x1b[1m ┃ [bold]x[/bold] ┃"
    assert re.sub(" +", " ", lines[3]) == "│ a\\x1b[2J │ \\x07é │"
    assert lines[-3:] == ["a\\x1b[2J", "b\\x9b [red]", "a\\x1b[2J,±"]


def test_a_run_that_is_stopped_ends_so_where_results_cannot_be_shown(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> Any:
        raise PreemptionError("stopped by SIGHUP")

    def gone(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(execute, "run_all", stopped)
    monkeypatch.setattr("hashbench.cli.training.run.print_json", gone)
    done = cli("run", "--method", "lsh", "--dataset", "digits", "--set", "backbone=test_resnet", "--json")
    assert (done.code, done.err) == (75, "hashbench: error: stopped by SIGHUP\n")


@shell
@pytest.mark.parametrize(
    ("command", "code", "out", "err"),
    [
        ("--help >/dev/full", 1, "", "hashbench: error: cannot write the output ([Errno 28] No space left"),
        ("--help >/dev/full 2>/dev/full", 1, "", ""),
        ("--help >&- 2>&-", 0, "", ""),
        ("--help 2>&-", 0, "Usage", ""),
        ("--help 2>/dev/full", 0, "Usage", ""),
        ("evaluate nowhere.npz 2>/dev/full", 1, "", ""),
        ("evaluate nowhere.npz 2>&-", 1, "", ""),
        ("--help | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 1, "", ""),
    ],
)
def test_exit_codes_where_streams_are_closed_or_full(command: str, code: int, out: str, err: str) -> None:
    program = f"{sys.executable} -m hashbench {command}"
    shown = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert shown.returncode == code
    assert out in shown.stdout
    assert shown.stderr.startswith(err)
    assert shown.stderr.count("\n") == bool(err)


@shell
def test_a_file_that_is_opened_does_not_take_the_place_of_a_closed_stream() -> None:
    """Otherwise a library that writes to descriptor 2 would write into it."""
    code = (
        "import os; from hashbench.runtime.console import protect_streams; protect_streams(); "
        "print(os.open(os.devnull, os.O_RDONLY) > 2)"
    )
    command = f'{sys.executable} -c "{code}" 2>&- <&-'
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert shown.stdout == "True\n"
