"""Tests of `hashbench data …` and of the options of datasets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.trees import TREES, photo
from PIL import Image, features

from hashbench import load_dataset, read_record
from hashbench.data import packing
from hashbench.results.record import checksum
from hashbench_datasets import DATASETS
from hashbench_datasets.coco import COCO

FAST = [
    f"--set={setting}"
    for setting in ("backbone=test_resnet", "pretrained=false", "images.size=32", "epochs=1", "batch_size=16")
]
RUN = ("run", "--method", "wch", "--bits", "16", *FAST)


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data root with a small MS-COCO."""
    TREES["coco"](tmp_path / "data", monkeypatch)
    return tmp_path / "data"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Create a folder of images with lists; `1.png` has no label."""
    names = [f"{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        photo(tmp_path / "own" / name, number % 2, number)
    lines = [f"{name} {int(n % 2 == 0)} {int(n % 2 == 1 and n != 1)}\n" for n, name in enumerate(names)]
    for part, rows in (("train", lines[4:]), ("test", lines[:4]), ("database", lines[4:])):
        (tmp_path / "own" / f"{part}.txt").write_text("".join(rows))
    return tmp_path / "own"


# info


@pytest.mark.parametrize("name", DATASETS)
def test_info_describes_a_dataset(cli: Callable[..., Any], name: str) -> None:
    shown = cli("data", "info", name)
    assert shown.code == 0, shown.err
    told = json.loads(cli("data", "info", name, "--json").out)
    assert told["dataset"] == name
    assert told["licence"].split()[0] in shown.out
    for protocol, definition in told["protocols"].items():
        assert protocol in shown.out
        assert definition["query"] is None or f"{definition['query']:,}" in shown.out
    for option, described in told["options"].items():
        assert option in shown.out
        assert described["description"], option
    assert told["options"]["leaks"]["choices"] == ["keep", "drop"]


def test_info_names_the_orders_of_columns(cli: Callable[..., Any]) -> None:
    shown = cli("data", "info", "flickr25k").out
    assert "columns=bihalf of 24: people, plant_life, car" in shown


def test_info_shows_the_root_and_existing_downloads(cli: Callable[..., Any], coco: Path) -> None:
    told = json.loads(cli("data", "info", "coco", "--data-root", coco, "--json").out)
    assert told["root"] == str(coco)
    assert [archive["there"] for archive in told["downloads"]] == [True, True, True]
    assert "annotations_trainval2014.zip (there)" in cli("data", "info", "coco", "--data-root", coco).out
    assert "annotations_trainval2014.zip (253 MB)" in cli("data", "info", "coco").out


def test_info_of_an_unknown_dataset(cli: Callable[..., Any]) -> None:
    done = cli("data", "info", "coca")
    assert (done.code, done.err.strip()) == (
        2,
        "hashbench: error: unknown dataset 'coca'; did you mean 'coco'?",
    )


# verify


def test_verify_shows_its_findings(cli: Callable[..., Any], coco: Path) -> None:
    done = cli("data", "verify", "coco", "--data-root", coco, "--decode")
    assert done.code == 0, done.err
    for text in ("coco@117k", "classes       80", "decoded       all", "fingerprint   ", "problems      0"):
        assert text in done.out
    assert load_dataset("coco", None, coco).fingerprint in done.out


def test_verify_finds_problems(cli: Callable[..., Any], coco: Path) -> None:
    images = sorted((coco / "coco/train2014").iterdir())
    images[0].write_bytes(b"")
    done = cli("data", "verify", "coco", "--data-root", coco, "--decode")
    assert done.code == 1
    assert f"problem: {images[0]} is empty" in done.err
    assert "problems      1" in done.out

    images[1].unlink()
    command = ("data", "verify", "coco", "--data-root", coco)
    done = cli(*command)
    assert done.code == 1
    assert "error: 1 of 60 listed images are not below" in done.err
    assert images[1].name in done.err
    done = cli(*command, "--json")
    assert done.code == 1
    assert images[1].name in json.loads(done.out)["problems"][0]

    done = cli(*command, "--missing", "skip", "--json")
    assert done.code == 1  # the counts differ from the protocol
    empty, gone = json.loads(done.out)["problems"][::-1]
    assert (f"{images[0]} is empty" in empty, gone) == (True, "database has 49 images, not 50")


def test_verify_of_lists(cli: Callable[..., Any], lists: Path) -> None:
    command = ("data", "verify", "folder", "--data-root", lists, "--lists", lists, "--json")
    done = cli(*command)
    found = json.loads(done.out)
    assert done.code == 0
    assert found["protocol"] == "lists"
    assert found["unlabelled"] == {"train": 0, "query": 1, "database": 0}
    assert found["warnings"] == ["1 of 4 queries have no label, so no database image is relevant to them"]

    done = cli(*command, "--data", "unlabelled=error")
    assert done.code == 1
    assert json.loads(done.out)["problems"] == [
        "folder: 1 of 4 queries have no label; remove them or pass --data unlabelled=drop"
    ]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_every_damaged_image_is_named_by_every_command(cli: Callable[..., Any], lists: Path) -> None:
    names = ["no_image_item.avif", "not_implemented.avif"]
    for row, name in enumerate(names):  # queries, with the suffix of the other files
        shutil.copy(Path(__file__).parents[1] / "damaged" / name, lists / f"{row}.png")
    Image.new("1", (20_000, 1)).save(lists / "4.png")
    options = ("folder", "--data-root", lists, "--lists", lists)
    verified = cli("data", "verify", *options, "--decode")
    assert verified.code == 1
    for number, reason in (("0", "Failed to decode"), ("1", "Failed to decode"), ("4", "expected an aspect")):
        assert f"problem: {lists / number}.png cannot be decoded ({reason}" in verified.err
    assert "problems      3" in verified.out

    (lists / "4.png").write_bytes((lists / "5.png").read_bytes())
    for command in (
        ("data", "prepare", *options, "--pack", "16"),
        (*RUN, "--dataset", *options),
    ):
        done = cli(*command)
        last = done.err.splitlines()[-1]
        assert done.code == 1
        assert last.startswith(f"hashbench: error: {lists / '0.png'} cannot be decoded (Failed to decode")
        assert "Traceback" not in done.err


# prepare


def test_prepare_writes_lists(cli: Callable[..., Any], coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(COCO, "downloads", ())
    done = cli("data", "prepare", "coco", "--data-root", coco)
    assert done.code == 0, done.err
    assert "coco@117k: 10 queries, 20 training images, a database of 50" in done.out
    (folder,) = (coco / "lists").iterdir()
    assert folder.name == f"coco@117k-{load_dataset('coco', '117k', coco).fingerprint[:8]}"
    back = load_dataset("coco", "lists", coco, lists=folder)
    assert back.fingerprint == load_dataset("coco", "117k", coco).fingerprint
    assert back.fingerprint in done.out


def test_prepare_describes_manual_steps(cli: Callable[..., Any], tmp_path: Path) -> None:
    for name, words in (("nuswide", "agreement form"), ("imagenet100", "you agree to its terms")):
        done = cli("data", "prepare", name, "--data-root", tmp_path)
        assert done.code == 1
        assert words in done.err
        last = done.err.splitlines()[-1]
        assert last == f"then check it: hashbench data verify {name} --data-root {tmp_path}"


def test_a_renamed_collection_keeps_its_runs(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TREES["folder"](tmp_path / "pets", monkeypatch)
    command = ("run", "--method", "lsh", "--dataset", "folder", "--bits", "16", *FAST[:3])
    assert cli(*command, "--data-root", tmp_path / "pets").code == 0
    (path,) = (tmp_path / "results").rglob("record.json")
    record = read_record(path.parent)
    assert record.config["data"]["name"] == "pets"

    (tmp_path / "pets").rename(tmp_path / "animals")
    for more in ((), ("--data", "name=My pets")):
        done = cli(*command, "--data-root", tmp_path / "animals", *more)
        assert done.code == 0
        assert "a record exists" in done.err
    assert read_record(path.parent) == record

    # Records of older versions have no name, but the same run id.
    content = json.loads(path.read_text())
    del content["config"]["data"]["name"]
    content["sha256"] = checksum(content)
    path.write_text(json.dumps(content))
    assert "name" not in read_record(path.parent).config["data"]
    assert "a record exists" in cli(*command, "--data-root", tmp_path / "animals").err
    assert cli("results", "verify", path.parent.name).code == 0


def test_a_run_on_a_packed_copy_is_a_separate_run(
    cli: Callable[..., Any], coco: Path, tmp_path: Path
) -> None:
    command = (*RUN, "--dataset", "coco", "--data-root", coco)
    assert cli("data", "prepare", "coco", "--data-root", coco, "--pack", "30").code == 0
    done = cli(*command)
    assert done.code == 1
    assert "has images of 30 pixels, but the run needs 32; prepare it again with --pack 32" in done.err

    assert cli("data", "prepare", "coco", "--data-root", coco, "--pack", "32").code == 0
    assert cli(*command).code == 0
    assert cli(*command, "--data", "packed=false").code == 0
    one, other = (read_record(p.parent) for p in sorted((tmp_path / "results").rglob("record.json")))
    assert one.split.sha256 == other.split.sha256
    assert {"packed" in record.config["data"] for record in (one, other)} == {True, False}


def test_a_packed_copy_is_checked_once_for_all_runs_of_a_command(
    cli: Callable[..., Any], coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("data", "prepare", "coco", "--data-root", coco, "--pack", "32").code == 0
    checks = tmp_path / "checks"
    digests = packing._piece_digests

    def digests_noted(path: Path) -> list[str]:
        with checks.open("a") as file:  # which worker processes would also write to
            file.write(f"{path.suffix}\n")
        return digests(path)

    monkeypatch.setattr(packing, "_piece_digests", digests_noted)
    fast = [setting for setting in FAST if "epochs" not in setting and "batch" not in setting]
    command = ("run", "--method", "lsh", "--bits", "4,8", *fast, "--dataset", "coco", "--data-root", coco)
    done = cli(*command, "--workers", "1", "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)) == 2
    assert checks.read_text().split() == [".bin"]

    (file,) = (coco / "packed").rglob("*.bin")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    message = f"{file.name} has changed since it was written); prepare it again with --pack"
    done = cli(*command)
    assert (done.code, message in done.err) == (1, True)
    done = cli("data", "verify", "coco", "--data-root", coco)
    assert (done.code, message in done.err) == (1, True)


# options of datasets


def test_options_reach_the_dataset_and_the_record(
    cli: Callable[..., Any], lists: Path, tmp_path: Path
) -> None:
    command = (*RUN, "--dataset", "folder", "--data-root", lists, "--lists", lists)
    assert cli(*command, "--data", "unlabelled=drop", "--data", "exif=true").code == 0
    (path,) = (tmp_path / "results").rglob("record.json")
    record = read_record(path.parent)
    assert record.protocol == "lists"
    assert (record.config["data"]["unlabelled"], record.config["data"]["exif"]) == ("drop", True)
    assert record.split.query == 3
    assert record.split.warnings == ("1 queries without a label are left out",)
    assert record.queries_without_relevant == 0


def test_both_means_are_shown_if_queries_have_no_relevant_items(
    cli: Callable[..., Any], lists: Path, tmp_path: Path
) -> None:
    done = cli(*RUN, "--dataset", "folder", "--data-root", lists, "--lists", lists)
    assert done.code == 0, done.err
    (path,) = (tmp_path / "results").rglob("record.json")
    record = read_record(path.parent)
    assert record.queries_without_relevant == 1
    expected = record.metrics["mAP@all"].expected
    skipped = cli("evaluate", path.with_name("codes.npz"), "--no-relevant", "skip", "--json")
    answerable = json.loads(skipped.out)["metrics"]["mAP@all"]["expected"]
    np.testing.assert_allclose(answerable, expected * 4 / 3)
    assert f"{answerable:.4f}" in done.out
    assert "answerable only" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "sede=1"), "unknown option of digits 'sede'; did you mean 'seed'?"),
        (("--data", "seed"), "--data: expected KEY=VALUE, got 'seed'"),
        (("--data", "seed=-1"), "option of digits seed=-1: input should be greater than or equal to 0"),
        (("--data", "leaks=maybe"), "option of digits leaks='maybe': input should be 'keep' or 'drop'"),
        (
            ("--missing", "skip"),
            "unknown option of digits 'missing'; known: fraction, leaks, packed, seed, unlabelled",
        ),
        (("--lists", "x"), "unknown option of digits 'lists'"),
        (("--set", "data.seed=1"), "--set data.seed: use the flag --data"),
    ],
)
def test_invalid_options_are_usage_errors(
    cli: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    done = cli(*RUN, "--dataset", "digits", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_list_files_select_the_protocol_lists(cli: Callable[..., Any], lists: Path) -> None:
    for arguments in (("--lists", lists), ("--data", f"lists={lists}")):
        done = cli("data", "verify", "folder", "--data-root", lists, *arguments, "--json")
        assert json.loads(done.out)["protocol"] == "lists"
    done = cli("data", "verify", "folder", "--data-root", lists, "--lists", lists, "--protocol", "split")
    assert (done.code, "list files need the protocol lists, got split" in done.err) == (2, True)
    done = cli("data", "verify", "folder", "--data-root", lists, "--lists", lists / "none")
    assert (done.code, "the folder does not exist" in done.err) == (2, True)


def test_options_that_change_neither_split_nor_pixels_make_no_new_run(
    cli: Callable[..., Any], lists: Path
) -> None:
    command = (*RUN, "--dataset", "folder", "--data-root", lists, "--lists", lists)
    assert cli(*command).code == 0
    assert "a record exists" in cli(*command, "--data", "seed=1").err
    assert "a record exists" not in cli(*command, "--data", "exif=true").err


def test_different_files_of_the_same_names_make_a_new_run(cli: Callable[..., Any], lists: Path) -> None:
    command = (*RUN, "--dataset", "folder", "--data-root", lists, "--lists", lists)
    assert cli(*command).code == 0
    photo(lists / "3.png", 1, 3, (80, 64))
    done = cli(*command)
    assert done.code == 0
    assert "a record exists" not in done.err


def test_verify_warns_of_queries_in_the_database_under_other_names(
    cli: Callable[..., Any], lists: Path
) -> None:
    (lists / "2.png").write_bytes((lists / "5.png").read_bytes())  # a query of another class
    done = cli("data", "verify", "folder", "--data-root", lists, "--lists", lists)
    assert "warning: 1 queries have the content of a database image" in done.err
    assert "warning: 1 images occur several times, with different labels" in done.err
    assert "unanswerable  1 queries" in done.out


def test_existing_lists_are_not_replaced(cli: Callable[..., Any], lists: Path, tmp_path: Path) -> None:
    before = (lists / "test.txt").read_text()
    command = ("data", "export-lists", "digits", "--output", lists)
    done = cli(*command)
    assert (done.code, "already contains lists; choose another folder, or pass --force" in done.err) == (
        2,
        True,
    )
    assert (lists / "test.txt").read_text() == before
    assert cli(*command, "--force").code == 0
    assert (lists / "test.txt").read_text() != before


def test_names_with_blanks_can_be_packed_if_not_listed(cli: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(8):
        photo(
            tmp_path / "own" / ("cat", "dog")[number % 2] / f"my photo {number} [x] é.jpg", number % 2, number
        )
    done = cli("data", "prepare", "folder", "--data-root", tmp_path / "own", "--pack", "16")
    assert done.code == 0, done.err
    assert "packed copy" in done.out
    assert "warning: no lists were written: " in done.err
    assert load_dataset("folder", None, tmp_path / "own").options["packed"]["size"] == 16


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_unwritable_output_is_a_one_line_error(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hashbench", "data", "info", "digits", *arguments],
            stdout=full,
            env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "hashbench: error: cannot write the output ([Errno 28] No space left on device)\n"


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (
            "class A(DatasetPlugin):\n    def load(self, root, protocol): ...",
            "has no protocols; add protocols =",
        ),
        (
            "class A(DatasetPlugin):\n    protocols = {'p': Protocol('any')}\n"
            "    def load(self, root, protocol): ...",
            "expected a Dataset from load(), got NoneType",
        ),
    ],
)
def test_an_incomplete_plugin(cli: Callable[..., Any], tmp_path: Path, plugin: str, message: str) -> None:
    file = tmp_path / "plugin_a.py"
    file.write_text(f"from hashbench import DatasetPlugin, Protocol\n\n{plugin}\n\nDATASETS = {{'a': A}}\n")
    done = cli("data", "verify", "a", "--plugin", file)
    assert done.code == 1
    assert message in done.err


@pytest.mark.usefixtures("small_digits")
def test_an_option_of_a_plugin_makes_a_new_run(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "invert.py").write_text(
        "from hashbench import DataOptions\n"
        "from hashbench_datasets.digits import Digits\n\n"
        "class Inverted(Digits):\n"
        "    class Options(DataOptions):\n"
        "        invert: bool = False\n\n"
        "    def load(self, root, protocol):\n"
        "        from dataclasses import replace\n"
        "        return replace(super().load(root, protocol), name='inverted')\n\n"
        "DATASETS = {'inverted': Inverted}\n"
    )
    command = (*RUN, "--plugin", tmp_path / "invert.py", "--dataset", "inverted", "--set", "batch_size=512")
    assert cli(*command).code == 0
    assert "a record exists" in cli(*command, "--data", "unlabelled=drop").err
    assert "a record exists" not in cli(*command, "--data", "invert=true").err
