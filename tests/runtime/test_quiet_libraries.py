"""Tests of what libraries print beside the messages of a command."""

from __future__ import annotations

import pytest
from helpers.forked import run_python

LIBRARIES = """
import sys
from hashbench.runtime.console import quiet_libraries
if sys.argv[1] == "quiet":
    quiet_libraries()
import matplotlib
matplotlib.get_cachedir()
from huggingface_hub.utils import logging
logging.get_logger("huggingface_hub.utils._http").warning("Retrying in 1s")
"""


@pytest.mark.parametrize(("mode", "lines"), [("quiet", 0), ("loud", 3)])
def test_libraries_are_quiet(monkeypatch: pytest.MonkeyPatch, mode: str, lines: int) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", "/dev/null/none")
    monkeypatch.delenv("HF_HUB_VERBOSITY", raising=False)
    assert len(run_python("-c", LIBRARIES, mode).stderr.splitlines()) == lines
