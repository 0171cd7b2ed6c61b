"""Progress with and without a terminal, and in a notebook."""

import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from rich.console import Console

from hashbench.runtime import progress as module
from hashbench.runtime.progress import progress


def test_lines_now_and_then_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 5.0, 16.0, 20.0, 25.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("work", 8) as advance:
        for _ in range(4):
            advance(2, "going well")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "work: 4/8, 16 s, 16 s left, going well",
        "work: 8/8, 25 s, 0 s left, going well",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        module, "Console", lambda **options: Console(force_terminal=True, width=100, **options)
    )
    with progress("work", 8) as advance:
        advance(8, "going well")
    shown = capsys.readouterr().err
    assert "8/8" in shown
    assert "going well" in shown


@pytest.mark.parametrize("widgets", [True, False])
def test_a_bar_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], widgets: bool
) -> None:
    shown: list[object] = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=shown.append))
    monkeypatch.setitem(sys.modules, "ipywidgets", SimpleNamespace(Output=MagicMock))
    monkeypatch.setattr(module, "find_spec", lambda name: name if widgets else None)
    monkeypatch.setattr(module, "Console", lambda **options: Console(force_jupyter=True, **options))
    with progress("work", 8) as advance:
        advance(8, "going well")
    line = "work: 8/8, 0 s, 0 s left, going well\n"
    assert (bool(shown), capsys.readouterr().err) == ((True, "") if widgets else (False, line))
