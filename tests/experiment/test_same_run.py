"""What a run depends on besides its settings: source code, number of threads and training length."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.toy_plugin import RECIPE, run_toy, toy_plugin

import hashbench
import hashbench_methods
from hashbench import ArrayImages, Dataset, HashbenchError, Split, registry
from hashbench.data.load import create_dataset
from hashbench.experiment import configure, run
from hashbench.results.record import IDENTITY, STATES
from hashbench.runtime import environment, preemption
from hashbench.runtime.preemption import PreemptionError, stoppable
from hashbench.training import trainer
from hashbench.training.options import RunOptions


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the plugin file of the small method and dataset."""
    with toy_plugin(tmp_path_factory.mktemp("plugin")) as path:
        yield path


@pytest.fixture(scope="module")
def finished(plugin: Path) -> Path:
    """Return the folder of a finished run."""
    return run_toy(plugin.parent / "runs", "short").folder


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch compute with 2 threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# Source code


def test_the_method_of_a_run_is_loaded(finished: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = hashbench.load(finished)
    assert not method.training


def test_loading_a_method_draws_no_random_numbers(finished: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    hashbench.load(finished)
    assert torch.equal(torch.rand(3), expected)


def test_a_method_whose_source_code_has_changed_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = hashbench.read_record(finished).environment
    versions = {**environment.library_versions(), "hashbench": "9.9"}
    monkeypatch.setattr(registry, "source_digest", lambda *_: "edited")
    monkeypatch.setattr(environment, "library_versions", lambda *_: versions)
    said = (
        f"{finished}: the source code of tiny, toy or hashbench has changed since the run (recorded "
        f"{recorded['source']}, installed edited; hashbench was {recorded['hashbench']} and is 9.9) and may "
        "produce other codes"
    )
    with pytest.raises(HashbenchError) as refused:
        hashbench.load(finished)
    assert str(refused.value) == f"{said}; run it again, or load it anyway with load(…, strict=False)"
    with pytest.warns(UserWarning, match=f"^{re.escape(said)}$"):
        method = hashbench.load(finished, strict=False)
    assert not method.training


def test_source_code_that_cannot_be_compared_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, the plugin file of the dataset is not registered."""
    find = registry.find

    def without_datasets(kind: Any, name: str) -> registry.Entry:
        if kind == "dataset":
            raise hashbench.UsageError("unknown dataset 'toy'")
        return find(kind, name)

    monkeypatch.setattr(registry, "find", without_datasets)
    with pytest.raises(
        HashbenchError, match=r"cannot be compared .*\(unknown dataset 'toy'\); run it again, or "
    ):
        hashbench.load(finished)
    with pytest.warns(UserWarning, match="cannot be compared"):
        hashbench.load(finished, strict=False)


# Threads


def test_a_record_of_another_number_of_threads_says_so(
    cli: Callable[..., Any], plugin: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished.parents[3], tmp_path / "runs")
    command = ["run", "--plugin", plugin, "--method", "tiny", "--dataset", "toy", "--protocol", "short"]
    command += ["--bits", "8", "--results", "runs"]
    same = "hashbench: a record exists, nothing was trained; --force runs it again"
    assert same in cli(*command).err.splitlines()
    torch.set_num_threads(2)
    try:
        other = cli(*command)
    finally:
        torch.set_num_threads(1)
    assert (
        "hashbench: a record exists, nothing was trained; it was made with 1 thread; this process has 2, "
        "which would give other figures; --force runs it again"
    ) in other.err.splitlines()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("environment", "device", "note"),
    [
        ({"threads": 2}, "cpu", None),
        ({"threads": 1}, "cuda", None),
        ({}, "cpu", None),
        ({"threads": 4}, "cpu", "made with 4 threads; this process has 2, which would give other figures"),
        ({"threads": 2, "threads_before_stop": [1]}, "cpu",
         "made with 1 and then 2 threads; this process has 2, which would give other figures"),
    ],
)  # fmt: skip
def test_which_threads_are_said(
    finished: Path, environment: dict[str, Any], device: str, note: str | None
) -> None:
    record = hashbench.read_record(finished)
    changed = {"environment": environment, "config": {**record.config, "device": device}}
    assert run.threads_note(record.model_copy(update=changed)) == (note and f"it was {note}")


def test_a_run_goes_on_with_other_threads_and_says_so(
    plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The number of threads is not part of the identity of the run."""
    step, steps = trainer.Trainer._step, count()

    def stopped(self: Any, *arguments: Any) -> None:
        step(self, *arguments)
        if next(steps) == 1:
            monkeypatch.setattr(preemption, "requested", lambda: True)

    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "_step", stopped)
        with stoppable(), pytest.raises(PreemptionError):
            run_toy(tmp_path, "short", execution=RunOptions(resume=True))
    monkeypatch.undo()
    (identity,) = tmp_path.glob(f"toy@short/tiny/8bit/.*/{STATES}/{IDENTITY}")
    assert json.loads(identity.read_text())["threads"] == [1]
    torch.set_num_threads(2)
    try:
        capsys.readouterr()
        done = run_toy(tmp_path, "short", execution=RunOptions(resume=True))
    finally:
        torch.set_num_threads(1)
    assert done.record.resumed == 1
    assert (done.record.environment["threads_before_stop"], done.record.environment["threads"]) == ([1], 2)
    assert (
        "hashbench: warning: the number of threads was 1 until the run was stopped and is 2 now, so the "
        "figures will differ from those of either number; set OMP_NUM_THREADS=1 to continue as before\n"
    ) in capsys.readouterr().err


# Published training lengths


def cifar10(protocol: str, images: int) -> Dataset:
    """Return a dataset with the name and the number of training images of a protocol of CIFAR-10."""
    pixels = ArrayImages(np.zeros((images + 2, 1, 1), np.uint8), [f"{n}" for n in range(images + 2)])
    everything = Split(pixels, np.arange(images + 2) % 2)
    query, rest = everything.subset(np.arange(2)), everything.subset(np.arange(2, images + 2))
    return Dataset.from_splits("cifar10", protocol, ["odd", "even"], train=rest, query=query, database=rest)


def test_a_length_published_for_another_split_is_said_with_the_steps() -> None:
    small, own = cifar10("54k", 5_000), cifar10("spq", 50_000)
    config = configure.configure("spq", small, bits=32, seed=0, device="cpu")
    assert configure.length_note(config, small) == (
        "spq's training length was published for cifar10@spq (50,000 images, 195 batches an epoch, 975,000 "
        "steps); cifar10@54k has 19 batches an epoch and 95,000 steps"
    )
    shorter = configure.configure("spq", small, bits=32, seed=0, device="cpu", settings=["epochs=10"])
    note = configure.length_note(shorter, small) or ""
    assert note.endswith("975,000 steps); cifar10@54k has 19 batches an epoch and 190 steps")
    config = configure.configure("spq", own, bits=32, seed=0, device="cpu")
    assert configure.length_note(config, own) is None


def test_another_split_of_the_same_size_is_as_long() -> None:
    other = cifar10("59k", 5_000)
    config = configure.configure("wch", other, bits=32, seed=0, device="cpu")
    published = configure.published_protocol(config, 5_000)
    assert published is not None
    assert (published.name, published.images, published.steps) == ("54k", 5_000, 157 * 50)
    assert configure.length_note(config, other) is None


def test_every_published_protocol_is_one_of_its_dataset() -> None:
    found = {}
    for name in hashbench_methods.METHODS:
        path = registry.find("method", name).recipe()
        assert path is not None
        for dataset, protocol in yaml.safe_load(path.read_text()).get("published_protocol", {}).items():
            images = create_dataset(dataset).protocols[protocol].train
            assert images, (name, dataset, protocol)
            found[name, dataset] = protocol, images
    assert found == {
        ("bihalf", "cifar10"): ("bihalf-1", 50_000),
        ("bihalf", "flickr25k"): ("24", 5_000),
        ("cibhash", "cifar10"): ("cibhash", 5_000),
        ("cimon", "cifar10"): ("bihalf-2", 5_000),
        ("crovca", "cifar10"): ("spq", 50_000),
        ("greedyhash", "cifar10"): ("spq", 50_000),
        ("mecoq", "cifar10"): ("bihalf-2", 5_000),
        ("mecoq", "flickr25k"): ("24", 5_000),
        ("nsh", "cifar10"): ("spq", 50_000),
        ("sdc", "cifar10"): ("59k", 5_000),
        ("sdc", "imagenet100"): ("13k", 13_000),
        ("spq", "cifar10"): ("spq", 50_000),
        ("tbh", "cifar10"): ("50k", 50_000),
        ("wch", "cifar10"): ("54k", 5_000),
        ("wch", "coco"): ("107k", 10_000),
        ("wch", "nuswide"): ("21", 10_500),
    }


def test_record_and_run_name_the_published_split(
    cli: Callable[..., Any], plugin: Path, finished: Path
) -> None:
    said = (
        "tiny's training length was published for toy@long (44 images, 6 batches an epoch, 24 steps); "
        "toy@short has 3 batches an epoch and 12 steps"
    )
    record = hashbench.read_record(finished)
    assert record.length_note == said
    assert said in cli("results", "show", finished).out
    command = ["run", "--plugin", plugin, "--method", "tiny", "--dataset", "toy", "--bits", "8,12"]
    done = cli(*command, "--protocol", "short", "--set", "epochs=1", "--json")
    _, first, second, *_ = done.err.splitlines()
    assert first == "hashbench: [1/2] tiny (epochs=1) on toy@short, 8 bits, seed 0, cpu"
    assert second == f"hashbench: {said.replace('12 steps', '3 steps')}"
    assert done.err.count("was published for") == 1
    assert json.loads(done.out)[0]["published_protocol"] == {
        "name": "long", "images": 44, "batches": 6, "steps": 24, "own_batches": 3, "own_steps": 3,
    }  # fmt: skip


def test_methods_are_listed_with_the_splits_of_their_lengths(cli: Callable[..., Any]) -> None:
    listed = {row["method"]: row["published_protocol"] for row in json.loads(cli("methods", "--json").out)}
    assert (listed["spq"], listed["itq"]) == ({"cifar10": "spq"}, {})
    assert "cifar10@spq" in cli("methods").out


def test_an_unknown_published_protocol_is_refused(cli: Callable[..., Any], plugin: Path) -> None:
    recipe = plugin.with_suffix(".yaml")
    recipe.write_text(RECIPE.replace("toy: long", "toy: lng"))
    try:
        done = cli("run", "--plugin", plugin, "--method", "tiny", "--dataset", "toy")
    finally:
        recipe.write_text(RECIPE)
    assert done.code == 1
    assert done.err.splitlines()[-1] == (
        f"hashbench: error: the recipe {recipe}, published_protocol: unknown protocol of toy 'lng'; did you "
        "mean 'long'?"
    )


def test_a_published_protocol_of_any_size_says_nothing(plugin: Path) -> None:
    recipe = plugin.with_suffix(".yaml")
    recipe.write_text(RECIPE.replace("toy: long", "toy: any"))
    try:
        dataset = hashbench.load_dataset("toy", "short")
        config = configure.configure("tiny", dataset, bits=8, seed=0, device="cpu")
        assert configure.published_protocol(config, 24) is None
    finally:
        recipe.write_text(RECIPE)
