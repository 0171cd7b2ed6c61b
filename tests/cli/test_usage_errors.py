"""Tests of wrong command lines, which give one line that names the help of the command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

PLOT = ("plot", "pr", "--output", "a.pdf")


@pytest.mark.parametrize(
    ("command", "message", "help_of"),
    [
        (("run", "--methodd", "itq"), "unknown option '--methodd'; did you mean '--method'?", "run"),
        (("plot", "pr"), "missing option '--output'", "plot pr"),
        (("run", "--method"), "option '--method' requires an argument", "run"),
        (("table", "--bounds=3"), "option '--bounds' does not take a value", "table"),
        (("rn",), "no such command 'rn'. Did you mean 'run'?", ""),
        (("results", "shwo"), "no such command 'shwo'. Did you mean 'show'?", "results"),
        (("results", "--methd", "x"), "unknown option '--methd'; did you mean '--method'?", "results list"),
        (("results", "show"), "missing argument 'RUN'", "results show"),
        (("results", "show", "a", "b"), "got unexpected extra argument(s) (b)", "results show"),
        (
            (*PLOT, "--kind", "x"),
            "invalid value for '--kind': 'x' is not one of 'rank', 'radius', 'topn'",
            "plot pr",
        ),
    ],
)
def test_a_wrong_command_line_gives_one_line(
    cli: Callable[..., Any], command: tuple[str, ...], message: str, help_of: str
) -> None:
    done = cli(*command)
    named = f"hashbench {help_of}".rstrip()
    assert (done.code, done.out) == (2, "")
    assert done.err == f"hashbench: error: {message} (see `{named} --help`)\n"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--save-every", "inf", "--save-every: expected a finite number of seconds, got inf"),
        ("--data", "limit=3", "unknown option of digits 'limit'; known: fraction, leaks, packed, seed, "),
        ("--dataset", "torchvision:cifar100", "unknown dataset 'torchvision:cifar100'; did you mean "
         "'torchvision:CIFAR100'?"),
        ("--jobs", "99999999999", "invalid value for '--jobs': Input should be less than or equal to 10000"),
    ],
)  # fmt: skip
def test_values_of_options_of_runs(cli: Callable[..., Any], option: str, value: str, message: str) -> None:
    done = cli("run", "--method=lsh", "--dataset=digits", option, value)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"hashbench: error: {message}")


def test_an_error_is_listed_once(cli: Callable[..., Any]) -> None:
    done = cli("run", "--method=lsh", "--dataset=digits", "--device=cpu", "--data=fraction=2", "--dry-run")
    assert done.out.splitlines()[-1].startswith("1. needed by 1 run: option of digits fraction=2: input ")


@pytest.mark.parametrize("command", [(), ("plot",), ("data",)])
def test_a_group_without_a_command_shows_its_help(cli: Callable[..., Any], command: tuple[str, ...]) -> None:
    done = cli(*command)
    assert (done.code, done.err) == (2, "")
    assert done.out.count("Usage: ") == 1


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0"])
def test_an_unknown_device(cli: Callable[..., Any], device: str) -> None:
    done = cli("run", "--method", "itq", "--dataset", "digits", "--device", device)
    line = f"hashbench: error: --device: expected auto, cpu, cuda or cuda:N, got {device!r}\n"
    assert (done.code, done.err) == (2, line)
