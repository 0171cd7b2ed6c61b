"""The examples in the docstrings of public names, and the scripts and notebooks of `examples/`."""

from __future__ import annotations

import doctest
import importlib
import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import hashbench

EXAMPLES = Path(__file__).parents[1] / "examples"
WITH_EXAMPLES = {"evaluate", "run", "run_experiment"}


@pytest.mark.parametrize("name", sorted(hashbench.__all__))
def test_examples_in_docstrings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    public = getattr(hashbench, name)
    assert public.__doc__, f"{name} has no docstring"
    module = importlib.import_module(public.__module__)
    tests = doctest.DocTestFinder(recurse=False).find(
        public, name, module, extraglobs={"hashbench": hashbench}
    )
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    tried = sum(runner.run(test).attempted for test in tests)
    assert runner.summarize(verbose=False).failed == 0
    assert (tried > 0) == (name in WITH_EXAMPLES)


def test_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "compare_methods.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["bits", "16", "32"]
    assert [line.split()[0] for line in lines[2:5]] == ["itq", "lsh", "pcah"]
    assert lines[5].startswith("best: itq, 32 bits, seed ")
    best, half = float(lines[5].rpartition(" ")[2]), float(lines[6].split()[6])
    assert 0.4 < half < best < 0.8
    assert len(hashbench.read_results("results/runs")) == 12


def test_the_notebook(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "first_look.ipynb", as_version=4)
    client = NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output["data"]["text/plain"] for output in outputs if output.output_type == "execute_result"]
    assert shown[0].startswith("Run(run=itq-digits-32bit-seed0-")
    assert shown[1].startswith("Metric(")
    assert "itq" in shown[2]
    assert shown[-1] == "(32, 'ITQ')"
    assert any("image/png" in output.get("data", {}) for output in outputs)
