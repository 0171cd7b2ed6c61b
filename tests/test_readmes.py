"""Commands, code and links in the READMEs and guides."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from hashbench import read_record, registry
from hashbench.cli.app import main

ROOT = Path(__file__).parents[1]


def blocks(file: str, language: str) -> list[str]:
    text = (ROOT / file).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


@pytest.mark.usefixtures("small_digits")
def test_the_ten_minute_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = blocks("methods/README.md", "python")
    (recipe,) = blocks("methods/README.md", "yaml")
    (command,) = blocks("methods/README.md", "")
    (tmp_path / "far_apart.py").write_text(source)
    (tmp_path / "far_apart.yaml").write_text(recipe)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry.PLUGIN_FILES, "paths", [])
    fast = "--set backbone=test_resnet --set pretrained=false --set images.size=32 --set epochs=1"
    monkeypatch.setattr(sys, "argv", f"{command} {fast}".split())
    with pytest.raises(SystemExit) as exit_:
        main()
    assert not exit_.value.code
    (path,) = tmp_path.rglob("record.json")
    record = read_record(path.parent)
    assert record.method == "far_apart"
    assert record.config["hyperparameters"] == {"temperature": 0.3}
    assert record.config["views"]["affine"]["degrees"] == 10


def test_the_evaluator_from_python() -> None:
    random = np.random.RandomState(0)
    (source,) = blocks("README.md", "python")
    names = {
        "query_codes": random.choice([-1, 1], (4, 16)),
        "database_codes": random.choice([-1, 1], (50, 16)),
        "query_labels": random.randint(0, 3, 4),
        "database_labels": random.randint(0, 3, 50),
    }
    exec(source, names)
    result = names["result"]
    lowest, highest = result.bounds(10)
    assert lowest <= result.mean_average_precision(10) <= highest


def anchors(file: Path) -> set[str]:
    """Return the anchors of the headings of a file, as GitHub and GitLab name them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    for file in ROOT.glob("**/*.md"):
        if any(part.startswith(".") for part in file.relative_to(ROOT).parts):
            continue
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", file.read_text(encoding="utf-8")
        ):
            linked = file.parent / target if target else file
            assert linked.exists(), f"{file}: {target}"
            assert not anchor or anchor in anchors(linked), f"{file}: {target}#{anchor}"
