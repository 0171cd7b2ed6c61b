"""Progress with and without a terminal, and in a notebook."""

import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from helpers.configs import run_config
from rich.console import Console

from hashbench.runtime import progress as module
from hashbench.runtime.progress import progress, with_forecast

PAPER = run_config(recipe="paper")


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


@pytest.mark.parametrize(
    ("left", "duration"),
    [(400, None), (1000, "8 minutes"), (10_000, "83 minutes"), (100_000, "14 hours"), (10**6, "6 days")],
)
def test_a_training_by_the_recipe_of_a_paper_says_how_long_it_takes_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], left: int, duration: str | None
) -> None:
    clock = iter([3.0, 8.0, 13.0, 13.5, 14.0])  # the first step takes 3 s, which do not count
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    reported: list[int] = []
    advance = with_forecast(lambda steps, note="": reported.append(steps), left, "training x", PAPER)
    for _ in range(5):
        advance(10, "going well")
    assert reported == [10] * 5
    line = f"hashbench: training x with the recipe of the paper takes about {duration} on this CPU; "
    assert capsys.readouterr().err == ("" if duration is None else f"{line}--recipe laptop takes minutes\n")


def test_other_recipes_and_devices_have_no_forecast() -> None:
    for settings in ({"recipe": "laptop"}, {"recipe": None}, {"recipe": "paper", "device": "cuda"}):
        advance = lambda steps, note="": None  # noqa: E731
        assert with_forecast(advance, 10, "training x", run_config(**settings)) is advance
