"""Folders of sweeps, which contain the output of runs that launchers have started."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from uuid import uuid4

SWEEPS = ".sweeps"


def new_sweep(results: Path) -> Path:
    """Create the folder of a new sweep, `.sweeps/ID` in the results folder."""
    folder = results / SWEEPS / f"{datetime.now():%Y%m%d-%H%M%S}-{uuid4().hex[:4]}"
    folder.mkdir(parents=True)
    return folder
