"""The reference tables are the output of their commands on the reference records."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hashbench.results.query import RunFilter, find
from hashbench.results.verify import check_files

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
RECORDS = REFERENCE / "records"


def commands() -> list[tuple[list[str], str]]:
    """Return the commands of the README that write a table, each with its file."""
    lines = (REFERENCE / "README.md").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"hashbench (table .*) > (\S+)", line) for line in lines]
    return [(shlex.split(match[1]), match[2]) for match in found if match]


@pytest.mark.parametrize(("arguments", "file"), commands())
def test_a_table_is_what_its_command_makes(cli: Callable[..., Any], arguments: list[str], file: str) -> None:
    arguments = [str(RECORDS) if word == "records" else word for word in arguments]
    done = cli(*arguments)
    assert done.code == 0, done.err
    assert done.out == (REFERENCE / file).read_text(encoding="utf-8")


def test_every_reference_record_is_sound() -> None:
    runs, unfinished, notes = find(RECORDS, RunFilter())
    assert len(runs) >= 110
    assert (unfinished, notes) == ([], [])
    assert [(run.record.run_id, problem) for run in runs for problem in check_files(run).problems] == []


def test_the_readmes_show_the_reference_table() -> None:
    table = (REFERENCE / "tables" / "digits.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    for readme in (REFERENCE / "README.md", REFERENCE.parents[1] / "README.md"):
        text = readme.read_text(encoding="utf-8")
        assert "\n".join(rows) in text, readme
