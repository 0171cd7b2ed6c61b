"""Empty arguments, as of unset shell variables: wrong use in all commands, never the current folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command

from hashbench.cli.app import app

RUN = ("run", "--method", "itq", "--dataset", "digits")


def options(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """The commands and options that take a value, as a user types them."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, *names, name)
    for parameter in () if hasattr(command, "commands") else command.params:
        if parameter.param_type_name == "option" and not parameter.is_flag:
            yield (*names, parameter.opts[0])


def test_every_option_of_every_command(cli: Callable[..., Any]) -> None:
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
def test_arguments_without_an_option(cli: Callable[..., Any], command: tuple[str, ...]) -> None:
    done = cli(*command)
    before = command[command.index("") - 1]
    line = f"hashbench: error: the argument after {before} is empty; is a shell variable unset?\n"
    assert (done.code, done.out, done.err) == (2, "", line)


@pytest.mark.parametrize("setting", ["lists=", "seed= "])
def test_a_setting_of_a_dataset(cli: Callable[..., Any], setting: str) -> None:
    for command in (RUN, ("data", "verify", "folder"), ("data", "export-lists", "digits", "--output", "o")):
        done = cli(*command, "--data", setting)
        key = setting.partition("=")[0]
        line = f"hashbench: error: --data {key} is empty; is a shell variable unset?\n"
        assert (done.code, done.err) == (2, line)


def test_what_is_not_empty(cli: Callable[..., Any]) -> None:
    assert cli("data", "info", "digits", "--data-root", ".").code == 0
    assert cli("data", "info", "digits", "--data-root=a=").code == 0
