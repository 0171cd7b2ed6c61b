"""Properties of every dataset, tested on a small copy in its own layout."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import torchvision_trees
from helpers.trees import PROTOCOLS, TREES
from PIL import Image

from hashbench import load_dataset, read_record
from hashbench.data.dataset import Dataset
from hashbench.data.load import create_dataset
from hashbench.errors import HashbenchError
from hashbench.images.image_sets import FileImages
from hashbench_datasets import DATASETS

README = Path(__file__).parents[2] / "datasets" / "README.md"
FAST = ("backbone=test_resnet", "pretrained=false", "images.size=16", "epochs=1", "batch_size=16")


NAMES = [name for name in DATASETS if not name.startswith("torchvision:")]
FROM_TORCHVISION = ["torchvision:CIFAR100", "torchvision:VOCDetection"]  # in memory, and in files


@pytest.fixture(params=[*NAMES, *FROM_TORCHVISION])
def tree(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Return the name of a dataset, and a data root with a small copy of it."""
    root = tmp_path / "data"
    root.mkdir()
    if request.param in TREES:
        TREES[request.param](root, monkeypatch)
    else:
        torchvision_trees.write(request.param.removeprefix("torchvision:"), root, monkeypatch)
    return request.param, root


def protocols(name: str) -> list[str]:
    """Return the protocols that a small copy supports."""
    every = list(create_dataset(name).protocols)
    return [PROTOCOLS[name]] if name in PROTOCOLS else [p for p in every if p not in ("lists", "folders")]


def test_the_guide_has_what_the_plugin_says() -> None:
    readme = README.read_text(encoding="utf-8")
    for name in DATASETS:
        plugin = create_dataset(name)
        assert plugin.about.licence in readme, name
        assert plugin.about.size in readme, name
        assert all(note in readme for note in plugin.about.notes), name
        for protocol, definition in plugin.protocols.items():
            assert "\n" not in definition.definition
            if name.startswith("torchvision:"):  # in one row, since their protocols have the same definitions
                (row,) = re.findall(rf"^\| `{name}` \|.*$", readme, re.MULTILINE)
                for text in (plugin.about.licence, plugin.about.source, plugin.about.size, plugin.folder):
                    assert text in row
                row += f"| {definition.definition} |" if definition.definition in readme else ""
            else:
                (row,) = re.findall(rf"^\| `{name}` \| `{protocol}`.*$", readme, re.MULTILINE)
            assert f"| {definition.definition} |" in row
            for count in definition.counts.values():
                assert count is None or f"{count:,}" in row, row


def test_every_protocol_loads_as_it_says(tree: tuple[str, Path]) -> None:
    name, root = tree
    for protocol in protocols(name):
        dataset = load_dataset(name, protocol, root)
        again = load_dataset(name, protocol, root)
        assert dataset.fingerprint == again.fingerprint
        assert dataset.overlaps.query_database == dataset.overlaps.query_train == 0
        assert not [warning for warning in dataset.warnings if "images, not" in warning]
        assert dataset.train[0].mode == dataset.query.images[0].mode == "RGB"
        assert len(dataset.class_names) == len(set(dataset.class_names))
        assert dataset.options["seed"] == 0
        assert "lists" not in dataset.options
        assert pickle.loads(pickle.dumps(dataset)).database.images[0].mode == "RGB"


def test_another_seed_is_another_draw(tree: tuple[str, Path]) -> None:
    name, root = tree
    if name == "cifar10":  # its small copy has the official split only
        with pytest.raises(HashbenchError, match="seed=1 cannot change"):
            load_dataset(name, "spq", root, seed=1)
        return
    protocol = "split" if name in FROM_TORCHVISION else None
    one, other = load_dataset(name, protocol, root), load_dataset(name, protocol, root, seed=1)
    assert one.fingerprint != other.fingerprint
    assert len(one.train) == len(other.train)


def test_ids_do_not_depend_on_the_machine(tree: tuple[str, Path], tmp_path: Path) -> None:
    name, root = tree
    protocol = protocols(name)[0]
    before = load_dataset(name, protocol, root).fingerprint
    assert load_dataset(name, protocol, root.rename(tmp_path / "moved")).fingerprint == before


def test_verify_finds_it_sound(tree: tuple[str, Path], cli: Callable[..., Any]) -> None:
    name, root = tree
    for protocol in protocols(name):
        command = ("data", "verify", name, "--data-root", root, "--protocol", protocol, "--decode", "--json")
        result = cli(*command)
        found = json.loads(result.out)
        assert found["problems"] == [], result.err
        assert result.code == 0
        dataset = load_dataset(name, protocol, root)
        assert found["fingerprint"] == dataset.fingerprint
        assert found["counts"] == {
            "train": len(dataset.train),
            "query": len(dataset.query.images),
            "database": len(dataset.database.images),
        }
        assert found["decoded"]
        assert found["classes"] == len(dataset.class_names)


def test_a_run_takes_it(tree: tuple[str, Path], cli: Callable[..., Any], tmp_path: Path) -> None:
    name, root = tree
    protocol = protocols(name)[0]
    settings = [f"--set={setting}" for setting in FAST]
    result = cli(
        "run", "--method", "wch", "--dataset", name, "--protocol", protocol, "--data-root", root,
        "--bits", 16, *settings,
    )  # fmt: skip
    assert result.code == 0, result.err
    (path,) = (tmp_path / "results").rglob("record.json")
    record = read_record(path.parent)
    dataset = load_dataset(name, protocol, root)
    assert record.split.sha256 == dataset.fingerprint
    assert record.config["data"] == dataset.options
    assert 0 < record.metrics["mAP@all"].expected <= 1


def test_lists_of_it_are_the_same_split(
    tree: tuple[str, Path], cli: Callable[..., Any], tmp_path: Path
) -> None:
    name, root = tree
    protocol = protocols(name)[0]
    dataset = load_dataset(name, protocol, root)
    in_files = isinstance(dataset.train, FileImages)
    output = tmp_path / "lists"
    images = () if in_files else ("--images",)
    result = cli(
        "data", "export-lists", name, "--protocol", protocol, "--data-root", root, "--output", output, *images
    )
    assert result.code == 0, result.err
    assert (output / "classes.txt").read_text().splitlines() == list(dataset.class_names)
    read_by = name if "lists" in create_dataset(name).protocols else "folder"
    back = load_dataset(read_by, "lists", root if in_files else output, lists=output)
    assert [len(part.labels) for part in (back.query, back.database)] == [
        len(part.labels) for part in (dataset.query, dataset.database)
    ]
    if in_files and read_by == name:
        assert back.fingerprint == dataset.fingerprint
    np.testing.assert_array_equal(np.asarray(back.train[1]), np.asarray(dataset.train[1]))


def test_a_packed_copy_is_used_and_recorded(tree: tuple[str, Path], cli: Callable[..., Any]) -> None:
    name, root = tree
    protocol = protocols(name)[0]
    plain = load_dataset(name, protocol, root)
    result = cli("data", "prepare", name, "--protocol", protocol, "--data-root", root, "--pack", 16)
    if not isinstance(plain.train, FileImages):
        assert result.code == 1
        assert "needs no packed copy" in result.err
        return
    assert result.code == 0, result.err
    packed = load_dataset(name, protocol, root)
    assert packed.fingerprint == plain.fingerprint
    assert packed.options["packed"]["size"] == 16
    assert min(packed.query.images[0].size) == 16
    assert load_dataset(name, protocol, root, packed=False).options == plain.options


# the guide


def test_the_example_of_the_guide_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "shapes.py").write_text(code)
    spec = importlib.util.spec_from_file_location("shapes", tmp_path / "shapes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plugin = module.DATASETS["shapes"]()

    with pytest.raises(HashbenchError, match="no images in"):
        plugin.load(tmp_path, "default")
    for name in ("circle", "square"):
        (tmp_path / "shapes" / name).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (8, 8), "red").save(tmp_path / "shapes" / name / f"{index}.png")
    dataset: Dataset = plugin.load(tmp_path, "default")
    assert [len(part) for part in (dataset.query.images, dataset.train, dataset.database.images)] == [4, 6, 6]
    assert dataset.class_names == ("circle", "square")
    assert dataset.query.images.ids[0].startswith("circle/")
    assert dataset.train[0].getpixel((0, 0)) == (255, 0, 0)
