"""Tests of empty arguments, as unset shell variables leave them: a usage error of every command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command

from hashbench.cli.app import app

RUN = ("run", "--method", "itq", "--dataset", "digits")


def options(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield each option that takes a value, with the command before it."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, *names, name)
    for parameter in () if hasattr(command, "commands") else command.params:
        if parameter.param_type_name == "option" and not parameter.is_flag:
            yield (*names, parameter.opts[0])


def test_empty_values_of_every_option_of_every_command(cli: Callable[..., Any]) -> None:
    every = [*options(get_command(app))]
    for known in (("run", "--data-root"), ("data", "verify", "--lists"), ("plot", "pr", "--output")):
        assert known in every
    for *command, option in every:
        for empty in ([option, ""], [option, " \t"], [f"{option}="], [f"{option}= "]):
            done = cli(*command, *empty)
            line = f"hashbench: error: {option} is empty; is a shell variable unset?\n"
            assert (done.code, done.out, done.err) == (2, "", line), (command, empty)


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", ""),
        ("results", "show", ""),
        ("results", "verify", ""),
        ("results", "export", ""),
        ("results", "import", ""),
        ("cache", "clear", ""),
        ("compare", "", ""),
        ("data", "info", ""),
        ("new-method", ""),
    ],
)
def test_empty_positional_arguments(cli: Callable[..., Any], command: tuple[str, ...]) -> None:
    done = cli(*command)
    before = command[command.index("") - 1]
    line = f"hashbench: error: the argument after {before} is empty; is a shell variable unset?\n"
    assert (done.code, done.out, done.err) == (2, "", line)


@pytest.mark.parametrize("setting", ["lists=", "seed= "])
def test_empty_options_of_a_dataset(cli: Callable[..., Any], setting: str) -> None:
    for command in (RUN, ("data", "verify", "folder"), ("data", "export-lists", "digits", "--output", "o")):
        done = cli(*command, "--data", setting)
        key = setting.partition("=")[0]
        line = f"hashbench: error: --data {key} is empty; is a shell variable unset?\n"
        assert (done.code, done.err) == (2, line)


def test_values_that_are_not_empty(cli: Callable[..., Any]) -> None:
    assert cli("data", "info", "digits", "--data-root", ".").code == 0
    assert cli("data", "info", "digits", "--data-root=a=").code == 0
