"""The source files of a plugin, how it imports them, and which files determine run ids."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import forget_plugins

import hashbench
import hashbench_datasets
import hashbench_methods
from hashbench import HashbenchError, registry
from hashbench.plugin_files import import_file
from hashbench.registry import Entry, source_digest

CLASS = "\nfrom hashbench import HashMethod\nclass Mine(HashMethod): ...\nMETHODS = {'mine': Mine}\n"


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.PLUGIN_FILES, "paths", [])
    forget_plugins()


def write(folder: Path, files: Mapping[str, str]) -> Entry:
    """Write modules by their paths without `.py`, and return the method in `mine.py`."""
    for name, source in files.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return Entry("method", "mine", f"{folder / 'mine.py'}:Mine", "file")


def module(entry: Entry) -> Any:
    """Import a plugin file."""
    return import_file(Path(entry.target.rpartition(":")[0]))


def digest(*entries: Entry) -> str:
    """Return the digest that a new process computes."""
    forget_plugins()
    return source_digest(*entries)


def sources(entry: Entry, folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in entry.sources()]


# runs


PROJECTION = """
from hashbench_methods.lsh import LSH
from scales import scaled

class Mine(LSH):
    def encode_features(self, features):
        return scaled(super().encode_features(features))

METHODS = {"mine": Mine}
"""
RUN = (
    "run", "--plugin", "mine.py", "--method", "mine", "--dataset", "digits", "--bits", 12, "--json",
    *(f"--set={setting}" for setting in ("backbone=test_resnet", "pretrained=false", "images.size=16")),
)  # fmt: skip


@pytest.mark.usefixtures("small_digits")
def test_a_run_after_a_change_of_a_module_beside_the_plugin_file(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    write(tmp_path, {"mine": PROJECTION, "scales": "def scaled(values): return values"})

    def run() -> tuple[str, float, bool]:
        done = cli(*RUN)
        assert done.code == 0, done.err
        (record,) = json.loads(done.out)
        return record["run_id"], record["metrics"]["mAP@all"]["expected"], "a record exists" in done.err

    first = run()
    assert run() == (*first[:2], True)
    write(tmp_path, {"scales": "import bits\ndef scaled(values): return bits.kept(values)"})
    write(tmp_path, {"bits": "def kept(values): return values.abs()"})  # all codes are equal
    second = run()
    assert second[0] != first[0]
    assert second[1] < first[1]
    assert not second[2]
    write(tmp_path, {"bits": "def kept(values): return values"})
    third = run()
    assert third[0] not in (first[0], second[0])
    assert third[1:] == first[1:]


def test_a_file_that_is_edited_while_a_process_runs(tmp_path: Path) -> None:
    """The process uses the code that it has imported, and its runs record that code."""
    late = "def late():\n    from losses import VALUE\n    return VALUE\n"
    entry = write(tmp_path, {"mine": late + CLASS, "losses": "VALUE = 1"})
    entry.load()
    before = source_digest(entry)
    write(tmp_path, {"losses": "VALUE = 2", "mine": ""})
    assert source_digest(entry) == before
    assert module(entry).late() == 1
    assert digest(entry) != before


# what counts


PACKAGE = {"package/__init__", "package/parts/__init__", "package/parts/one"}


@pytest.mark.parametrize(
    ("statement", "files"),
    [
        ("import losses", {"losses"}),
        ("import losses as other", {"losses"}),
        ("from losses import VALUE", {"losses"}),
        ("from losses import *", {"losses"}),
        ("from . import losses", {"losses"}),
        ("from .losses import VALUE", {"losses"}),
        ("def late():\n    import losses", {"losses"}),
        ("try:\n    import losses, missing\nexcept ImportError: ...", {"losses"}),
        ("import first", {"first", "second", "losses"}),
        ("import package", {*PACKAGE, "losses"}),
        ("import package.parts.one", {*PACKAGE, "losses"}),
        ("from .package import parts", {*PACKAGE, "losses"}),
        ("from folder import one", {"folder/one"}),
        ("import folder.inner.two", {"folder/inner/two", "folder/one"}),
        ("import json, numpy, hashbench.method.linear", set()),
        ("from missing import *\nfrom .. import losses\nfrom .missing import x", set()),
    ],
)
def test_what_a_plugin_file_imports_from_beside_it(tmp_path: Path, statement: str, files: set[str]) -> None:
    others = {
        "losses": "VALUE = 1",
        "first": "from second import *",
        "second": "import losses, first",
        "package/__init__": "",
        "package/parts/__init__": "from losses import VALUE",
        "package/parts/one": "from .. import parts",
        "folder/one": "",
        "folder/inner/two": "from ..one import *",
        "other": "",
    }
    entry = write(tmp_path, {"mine": statement, **others})
    assert sources(entry, tmp_path) == ["mine.py", *sorted(f"{file}.py" for file in files)]
    before = digest(entry)
    for name, source in others.items():
        write(tmp_path, {name: f"{source}\n# another line"})
        assert (digest(entry) != before) == (name in files), name
        write(tmp_path, {name: source})


def test_the_digest_of_a_folder_that_moves_and_of_files_that_change_places(tmp_path: Path) -> None:
    files = {"mine": f"import a, p.b{CLASS}", "a": "X = 1", "p/b": "X = 2", "p/__init__": ""}
    one = write(tmp_path / "one", files)
    other = write(tmp_path / "another" / "place", files)
    assert digest(one) == digest(other)
    write(tmp_path / "one", {"a": "X = 2", "p/b": "X = 1"})
    assert digest(one) != digest(other)
    before = digest(other)
    write(tmp_path / "another" / "place", {"p/__init__": "X = 2", "p/b": ""})
    assert digest(other) != before


def test_source_code_on_the_path_counts_and_installed_packages_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "lab", {"shared/__init__": "import helpers", "shared/more": "", "helpers": ""})
    write(tmp_path / "site", {"theirs": ""})
    (tmp_path / "site" / "theirs-1.dist-info").mkdir()
    for folder in ("lab", "site"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    entry = write(tmp_path / "mine", {"mine": "import shared.more, theirs, torch"})
    assert sources(entry, tmp_path) == [
        "mine/mine.py", "lab/helpers.py", "lab/shared/__init__.py", "lab/shared/more.py",
    ]  # fmt: skip


def test_a_built_in_that_another_plugin_derives_from(tmp_path: Path) -> None:
    entry = write(tmp_path, {"mine": "from hashbench_methods.wch.method import WCH"})
    files = [str(file) for file in entry.sources()]
    folder = hashbench_methods.__path__[0]
    assert files[1:] == [f"{folder}/wch/__init__.py", f"{folder}/wch/method.py"]


@pytest.mark.parametrize("name", registry.entries("method"))
def test_a_built_in_is_its_folder(name: str) -> None:
    """And the folders of the methods that it builds on."""
    packages = [name, *{"opq": ["pq"], "uhbdnn": ["itq"]}.get(name, [])]
    found = sources(registry.find("method", name), Path(hashbench_methods.__path__[0]))
    assert sorted(found) == sorted(
        f"{package}/{file}" for package in packages for file in ("__init__.py", "method.py")
    )


def installed(site: Path, target: str, *record: str) -> Entry:
    """Write the metadata of a distribution, as pip does."""
    metadata = site / "theirs-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[hashbench.methods]\nmine = {target}:Mine\n")
    (metadata / "RECORD").write_text("".join(f"{file},,\n" for file in record))
    return registry.find("method", "mine")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_installed_module_and_others_of_its_distribution(site: Path) -> None:
    write(site, {"theirs_method": "import theirs_losses, strange", "theirs_losses": "", "strange": ""})
    entry = installed(site, "theirs_method", "theirs_method.py", "theirs_losses.py")
    assert sources(entry, site) == ["theirs_method.py", "theirs_losses.py"]
    before = digest(entry)
    write(site, {"theirs_losses": "VALUE = 2"})
    assert digest(entry) != before


def test_an_installed_package_counts_whole(site: Path) -> None:
    source = "from ..losses import *"
    write(site / "theirs", {"__init__": "", "losses": "", "methods/__init__": "", "methods/mine": source})
    entry = installed(site, "theirs.methods.mine")
    assert sources(entry, site / "theirs") == [
        "methods/mine.py", "__init__.py", "losses.py", "methods/__init__.py",
    ]  # fmt: skip
    before = digest(entry)
    write(site / "theirs", {"losses": "VALUE = 2"})
    assert digest(entry) != before


# how it is imported


def test_modules_beside_a_plugin_file_are_its_own(tmp_path: Path) -> None:
    """This includes imports in functions, and modules with the same name in another folder."""
    source = f"""
from __future__ import annotations
import losses, package.parts.one, package.parts.one as last
from package import parts
from . import losses as same
def late():
    import utils.deep
    return utils.deep.VALUE
assert same is losses and last is parts.one is package.parts.one
{CLASS}"""
    path, modules = [*sys.path], {*sys.modules}
    values = []
    for number in (1, 2):
        files = {
            "mine": source,
            "losses": f"VALUE = {number}",
            "package/__init__": "from package.parts import one",
            "package/parts/__init__": "",
            "package/parts/one": "import losses as elsewhere\nVALUE = elsewhere.VALUE",
            "utils/deep": "from ..losses import VALUE",  # a folder without __init__.py
        }
        entry = write(tmp_path / str(number), files)
        entry.load()
        mine = module(entry)
        assert mine.package.__name__.endswith(".package")
        values.append((mine.losses.VALUE, mine.last.VALUE, mine.late()))
    assert values == [(1, 1, 1), (2, 2, 2)]
    assert sys.path == path
    assert {name.partition("_plugin_")[0] for name in {*sys.modules} - modules} == {"hashbench"}
    assert not [
        *tmp_path.rglob("__pycache__")
    ]  # its code would be wrong where the module is imported as usual


def test_modules_beside_a_plugin_file_and_others_of_the_same_name(tmp_path: Path) -> None:
    """A module precedes an installed one, but a mere folder does not; hashbench and built-ins remain."""
    names = ["numpy/__init__", "random", "hashbench", "torch/data"]
    entry = write(
        tmp_path,
        {"mine": f"import numpy, random, hashbench, torch{CLASS}", **dict.fromkeys(names, "HERE = 1")},
    )
    entry.load()
    mine = module(entry)
    modules = mine.numpy, mine.random, mine.hashbench
    assert [hasattr(one, "HERE") for one in modules] == [True, False, False]
    assert mine.torch is sys.modules["torch"]
    assert sources(entry, tmp_path) == ["mine.py", "numpy/__init__.py"]


def test_a_module_that_is_on_the_path_anyway_is_imported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = write(tmp_path, {"mine": f"import neighbour_on_path{CLASS}", "neighbour_on_path": ""})
    before = digest(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry.load()
    assert module(entry).neighbour_on_path is sys.modules.pop("neighbour_on_path")
    assert digest(entry) == before


@pytest.mark.parametrize(
    ("mine", "losses", "reason"),
    [
        ("import missing", "", "ModuleNotFoundError: No module named 'missing'"),
        ("from losses import x", "", "ImportError: cannot import name 'x' from '.*losses'"),
        ("import losses", "def", r"SyntaxError: invalid syntax \(losses.py, line 1\)"),
        ("from .. import x", "", "ImportError: attempted relative import beyond top-level package"),
    ],
)
def test_imports_that_fail(tmp_path: Path, mine: str, losses: str, reason: str) -> None:
    entry = write(tmp_path, {"mine": mine, "losses": losses})
    match = rf"method 'mine' \(.*mine.py:Mine, file\) cannot be loaded: {reason}"
    with pytest.raises(HashbenchError, match=match):
        entry.load()


def test_another_process_finds_classes_of_plugin_files(tmp_path: Path) -> None:
    """Worker processes must find them if they are not forked."""
    files = {
        "mine": "from images import Grey\nclass Mine(Grey): ...\n",
        "images": "from hashbench import ArrayImages\nclass Grey(ArrayImages): ...\n",
    }
    mine = module(write(tmp_path, files))
    images = [kind(np.full((1, 2, 3), 7, np.uint8), "a") for kind in (mine.Mine, mine.Grey)]
    code = (
        "import hashbench, pickle, sys; print([i[0].getpixel((0, 0)) for i in pickle.load(sys.stdin.buffer)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(images), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "[(7, 7, 7), (7, 7, 7)]"


# edits of hashbench itself


RUN_IDS = """
from hashbench.registry import find, source_digest
from hashbench.results.record import run_id_of, run_identity
for method in ("itq", "wch"):
    config = {"method": method, "dataset": "digits", "bits": 16, "seed": 0, "data": {}}
    code = source_digest(find("method", method), find("dataset", "digits"))
    print(run_id_of(run_identity(config, "split", None, code, {})))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with copies of the packages."""
    folder = tmp_path_factory.mktemp("copied")
    for package in (hashbench, hashbench_methods, hashbench_datasets):
        source = Path(package.__path__[0])
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_ids(folder: Path) -> list[str]:
    """Return the run ids of ITQ and WCH, as a new process computes them from the packages in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_IDS],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    return done.stdout.split()


@pytest.fixture(scope="module")
def unedited(copied: Path) -> list[str]:
    return run_ids(copied)


MESSAGES = [
    ("hashbench/cli/app.py", "hashbench: error: ", "hashbench: failure: "),
    ("hashbench/report/tables/result_table.py", "codes collapsed", "all codes are alike"),
    ("hashbench/results/verify.py", " has changed since ", " differs from "),
    ("hashbench/runtime/console.py", "warning: ", "caution: "),
    ("hashbench/method/scaffold.py", '"""', '"""Reworded: '),
]
NUMBERS = [
    ("hashbench/codes.py", '"""', '"""Reworded: '),  # the effect of an edit is unknown, so every edit counts
    ("hashbench/data/protocol.py", "sha256", "sha512"),
    ("hashbench/experiment/validation.py", "default_rng(0)", "default_rng(1)"),
    ("hashbench/method/linear.py", " - ", " + "),
    ("hashbench/training/dataloader.py", ".permutation(self.size)", ".permutation(self.size)[::-1]"),
]


@pytest.mark.parametrize(
    ("path", "old", "new", "changed"),
    [
        *((*edit, (False, False)) for edit in MESSAGES),
        *((*edit, (True, True)) for edit in NUMBERS),
        ("hashbench_methods/itq/method.py", "default=50", "default=40", (True, False)),
        ("hashbench_datasets/digits.py", '"""', '"""Reworded: ', (True, True)),
    ],
)
def test_an_edit_changes_the_run_ids_whose_numbers_it_can_change(
    copied: Path, unedited: list[str], path: str, old: str, new: str, changed: tuple[bool, bool]
) -> None:
    """Compare the run ids of ITQ and WCH before and after an edit."""
    original = (copied / path).read_text(encoding="utf-8")
    assert old in original
    (copied / path).write_text(original.replace(old, new, 1), encoding="utf-8")
    try:
        edited = run_ids(copied)
    finally:
        (copied / path).write_text(original, encoding="utf-8")
    assert tuple(one != other for one, other in zip(unedited, edited, strict=True)) == changed
