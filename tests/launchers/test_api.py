"""The arguments of the functions that carry out runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hashbench


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plugins": "mine.py"}, "the experiment, plugins: expected a list, got 'mine.py'"),
        ({"plugins": Path("mine.py")}, "the experiment, plugins: expected a list, got "),
        ({"settings": "epochs=1"}, "settings: expected a mapping, or a list of texts KEY=VALUE, got"),
        ({"settings": {"epoch": np.int64(1)}}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"results": ""}, "results is empty; pass a path"),
        ({"bits": [16]}, "the experiment, bits.0: input should be a valid integer"),
        ({"workers": -1}, "option workers=-1: input should be greater than or equal to 0"),
        ({"worker": 1}, "unknown option 'worker'; did you mean 'workers'"),
    ],
)
def test_invalid_arguments_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hashbench.UsageError) as refused:
        hashbench.run("lsh", "digits", **arguments)
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_single_plugin_is_not_a_list(tmp_path: Path) -> None:
    with pytest.raises(hashbench.UsageError, match=r"plugins: expected list or tuple, got 'mine\.py'"):
        hashbench.load(tmp_path, plugins="mine.py")
