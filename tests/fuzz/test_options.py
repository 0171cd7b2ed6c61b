"""Damaged values of --set, --data and --where, and damaged recipes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz.mutation import PIECES, mutations
from fuzz.outcomes import refused

import hashbench_methods
from hashbench.cli.datasets import data_options
from hashbench.data.load import create_dataset
from hashbench.recipe import load_components, load_published_protocols, load_recipe, resolve
from hashbench.runtime.yaml_values import parse_yaml
from hashbench_methods.wch import WCH

FLAGS: dict[str, Any] = {
    "method": "wch", "dataset": "digits", "protocol": "default", "bits": 16, "seed": 0, "device": "cpu",
}  # fmt: skip
BASE = {"backbone": {"name": "resnet18", "options": {"drop_path_rate": 0.1}}}
OPTIONS = [
    *(b"lr=1e-3", b"k=[10, all]", b"views.affine={degrees: 5, translate: 0.1}", b"backbone=resnet50"),
    *(b"options={a: &a [1, .5, no], b: *a}", b"epochs=0x10", b"views.crop_scale=[0.2, 1]", b"size=1:30"),
    *(b"seed=1", b"unlabelled=drop", b"created=2001-01-01", b"packed=!!bool true", b"precision=~"),
]
RECIPES = sorted(Path(hashbench_methods.__file__).parent.glob("*/recipe.yaml"))


def read_options(text: str) -> int:
    def data() -> None:
        create_dataset("folder", **data_options(data_settings=[text]).options)

    return refused(resolve, BASE, [text], WCH.Hyperparameters, **FLAGS) + refused(data)


def test_options(tries: Callable[[int, int], int]) -> None:
    texts = [key + piece for key in (b"lr=", b"k=[", b"options={a: ", b"seed=") for piece in PIECES]
    texts += mutations(OPTIONS, tries(500, 10_000))
    found = sum(read_options(text.decode(errors="surrogateescape")) for text in texts)
    assert len(texts) < found < 2 * len(texts)


def test_a_text_that_is_no_yaml_is_a_value_error(tries: Callable[[int, int], int]) -> None:
    """The option --where then searches for the text itself."""
    for text in mutations(OPTIONS, tries(500, 10_000), seed=1):
        with suppress(ValueError):
            parse_yaml(text.partition(b"=")[2].decode(errors="surrogateescape"))


def test_recipes(tmp_path: Path, tries: Callable[[int, int], int]) -> None:
    path = tmp_path / "recipe.yaml"
    found = 0
    for content in mutations([recipe.read_bytes() for recipe in RECIPES], tries(100, 10_000)):
        path.write_bytes(content)
        for call in (
            lambda: resolve(load_recipe(path, "digits", 16), (), WCH.Hyperparameters, **FLAGS),
            lambda: load_components(path, WCH.Hyperparameters),
            lambda: load_published_protocols(path),
        ):
            found += refused(call)
    assert found
