"""Tests of the commands, called as a user calls them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.forked import start, wait
from safetensors.torch import load_file

import hashbench
from hashbench.config import RunConfig
from hashbench.encoding import encode as encoding
from hashbench.evaluation.presets import published
from hashbench.runtime import progress

# Settings of a run that takes seconds: a tiny network, few pixels, one epoch.
FAST = [
    f"--set={setting}"
    for setting in ("backbone=test_resnet", "pretrained=false", "images.size=16", "epochs=1")
]


def records(folder: Path) -> list[Path]:
    """Find the records, without those in the hidden folders of unfinished runs."""
    return sorted(path for path in folder.rglob("record.json") if not path.parent.name.startswith("."))


def arrays(record: Path) -> dict[str, Any]:
    with np.load(record.with_name("codes.npz"), allow_pickle=False) as file:
        return dict(file)


@pytest.mark.usefixtures("small_digits")
def test_run_writes_a_complete_record_and_is_not_repeated(cli: Callable[..., Any], tmp_path: Path) -> None:
    command = ["run", "--method", "wch", "--dataset", "digits", "--bits", "16", *FAST]
    first = cli(*command)
    assert first.code == 0, first.err
    assert re.search(r"mAP@1000.*0\.\d{4}", first.out, re.DOTALL)
    (path,) = records(tmp_path)
    assert path.parent.parent == tmp_path / "results" / "runs" / "digits@default" / "wch" / "16bit"
    assert str(path.parent.relative_to(tmp_path)) in first.out
    assert {file.name for file in path.parent.iterdir()} == {
        "record.json", "codes.npz", "curves.csv", "log.jsonl", "model.safetensors", "queries.npz",
    }  # fmt: skip

    record = hashbench.read_record(path.parent)
    assert (record.split.query, record.split.train, record.split.database) == (200, 100, 100)
    assert record.split.overlaps.train_database == 100
    assert record.config["training"] == {
        "epochs": 1, "batch_size": 32, "drop_last": False, "freeze_backbone": False, "feature_dropout": False,
        "gradient_clip": None, "precision": "float32", "accumulate": 1, "compile": False,
        "frozen_layers": [], "max_images": None, "epoch_images": None,
    }  # fmt: skip
    metric = record.metrics["mAP@all"]
    assert metric.lowest <= metric.expected <= metric.highest
    assert record.environment["torch"]
    assert len(record.environment["source"]) == 12

    codes = arrays(path)
    stamp = path.stat().st_mtime_ns
    second = cli(*command)
    assert second.code == 0
    assert "a record exists, nothing was trained" in second.err
    assert path.stat().st_mtime_ns == stamp
    assert cli(*command, "--force").code == 0
    assert path.stat().st_mtime_ns != stamp
    assert hashbench.read_record(path.parent).metrics == record.metrics
    for name, array in codes.items():
        np.testing.assert_array_equal(arrays(path)[name], array, err_msg=name)


@pytest.mark.usefixtures("small_digits")
def test_stored_codes_reproduce_the_metrics(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("run", "--method", "wch", "--dataset", "digits", "--bits", "12", "--json", *FAST)
    (shown,) = json.loads(done.out)
    folder = Path(shown["folder"])
    evaluated = cli("evaluate", folder / "codes.npz", "--json")
    assert json.loads(evaluated.out)["metrics"] == shown["metrics"]

    method = hashbench.load(folder)
    data = hashbench.load_dataset("digits")
    config = RunConfig(**shown["config"])
    codes = encoding.encode(method, data.query.images, config, workers=0, task="t")
    with np.load(folder / "codes.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(codes.packed, stored["query_codes"])
        assert stored["query_ids"][0] == data.query.images.ids[0]


@pytest.mark.usefixtures("small_digits")
def test_a_frozen_backbone_is_not_stored_but_restored(cli: Callable[..., Any]) -> None:
    small = ["--bits", "16", "--set", "images.size=32", "--set", "epochs=1", "--json"]
    done = cli("run", "--method", "bihalf,itq", "--dataset", "digits", *small)
    assert done.code == 0, done.err
    data = hashbench.load_dataset("digits")
    for shown in json.loads(done.out):
        folder = Path(shown["folder"])
        assert shown["config"]["backbone"]["pretrained"]
        assert not [name for name in load_file(folder / "model.safetensors") if name.startswith("backbone.")]
        config = RunConfig(**shown["config"])
        method = hashbench.load(folder)
        codes = encoding.encode(method, data.query.images, config, workers=0, task="t")
        assert isinstance(codes, hashbench.BinaryCodes)
        np.testing.assert_array_equal(codes.packed, arrays(folder / "record.json")["query_codes"])


@pytest.mark.usefixtures("small_digits")
def test_product_codes_have_a_record(cli: Callable[..., Any]) -> None:
    done = cli("run", "--method", "spq", "--dataset", "digits", "--bits", "16", "--json", *FAST)
    assert done.code == 0, done.err
    (shown,) = json.loads(done.out)
    folder = Path(shown["folder"])
    assert "P@H<=2" not in shown["metrics"]
    assert json.loads(cli("evaluate", folder / "codes.npz", "--json").out)["metrics"] == shown["metrics"]
    assert {line.split(",")[0] for line in (folder / "curves.csv").read_text().splitlines()[1:]} == {"rank"}
    stored = arrays(folder / "record.json")
    assert stored["database_codes"].shape == (100, 4)
    method = hashbench.load(folder)
    data, config = hashbench.load_dataset("digits"), RunConfig(**shown["config"])
    queries = encoding.encode_queries(method, data.query.images, config, workers=0, task="t")
    np.testing.assert_array_equal(queries, stored["query_codes"])
    assert cli("run", "--method", "spq", "--dataset", "digits", "--bits", "18", *FAST).code == 2


@pytest.mark.usefixtures("small_digits")
def test_commas_make_a_grid(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli(
        "run", "--method", "wch", "--dataset", "digits", "--bits", "12,16", "--seed", "0,1", "--json", *FAST
    )
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert [(run["bits"], run["seed"]) for run in shown] == [(12, 0), (12, 1), (16, 0), (16, 1)]
    assert len({run["run_id"] for run in shown}) == len(records(tmp_path)) == 4


@pytest.mark.usefixtures("small_digits")
def test_each_setting_has_a_separate_record(cli: Callable[..., Any], tmp_path: Path) -> None:
    command = ["run", "--method", "wch", "--dataset", "digits", "--bits", "12", *FAST]
    cli(*command)
    cli(*command, "--set", "patch_weighting=false")
    one, other = (hashbench.read_record(path.parent) for path in records(tmp_path))
    assert one.run_id != other.run_id
    assert {
        one.config["hyperparameters"]["patch_weighting"],
        other.config["hyperparameters"]["patch_weighting"],
    } == {
        True,
        False,
    }


def test_nuswide_in_its_original_layout(
    cli: Callable[..., Any], tmp_path: Path, nuswide_tree: Callable[..., Path]
) -> None:
    root = nuswide_tree()
    done = cli(
        "run", "--method", "wch", "--dataset", "nuswide", "--protocol", "lists", "--data-root", root,
        "--bits", "16", "--json", *FAST,
    )  # fmt: skip
    assert done.code == 0, done.err
    (shown,) = json.loads(done.out)
    assert (shown["dataset"], shown["protocol"]) == ("nuswide", "lists")
    assert (shown["split"]["query"], shown["split"]["train"], shown["split"]["database"]) == (21, 42, 84)
    assert "mAP@5000" in shown["metrics"]
    assert shown["config"]["data"]["columns"] is None


def remove_lists(root: Path) -> None:
    for file in root.rglob("*.txt"):
        file.unlink()


def damage_list(root: Path) -> None:
    (root / "nuswide" / "train.txt").unlink()


def damage_row(root: Path) -> None:
    path = root / "nuswide" / "test.txt"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].rsplit(" ", 2)[0]
    path.write_text("\n".join(lines))


def damage_image(root: Path) -> None:
    sorted(root.rglob("*.jpg"))[3].unlink()


def damage_content(root: Path) -> None:
    sorted(root.rglob("*.jpg"))[30].write_bytes(b"<html>404</html>")


def damage_split(root: Path) -> None:
    queries = (root / "nuswide" / "test.txt").read_text()
    with (root / "nuswide" / "database.txt").open("a") as file:
        file.write(queries)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_lists, r"nuswide: no lists in .*, nor up to two levels deeper"),
        (
            damage_list,
            r"nuswide has lists for query and database, but none for train; to draw .*--data train=N",
        ),
        (damage_row, r"test\.txt, line 3: expected 21 labels, got 19 labels"),
        (damage_image, r"1 of 147 listed images are not below .*0003_1544502943\.jpg.*test\.txt, line 4"),
        (damage_content, r"0030_1544502970\.jpg is a web page, not an image; download it again"),
        (damage_split, r"21 of 21 queries are also in the database, such as .*--allow-overlap"),
    ],
)
def test_damaged_data_gives_one_line_and_no_record(
    cli: Callable[..., Any],
    tmp_path: Path,
    nuswide_tree: Callable[..., Path],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    root = nuswide_tree()
    damage(root)
    done = cli(
        "run", "--method", "wch", "--dataset", "nuswide", "--protocol", "lists", "--data-root", root, *FAST
    )
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("hashbench: error: ")]
    assert re.search(message, line), line
    assert "Traceback" not in done.err
    assert records(tmp_path) == []


def test_worker_processes_name_a_damaged_image(
    cli: Callable[..., Any], nuswide_tree: Callable[..., Path]
) -> None:
    root = nuswide_tree()
    damage_content(root)
    command = ["run", "--method", "wch", "--dataset", "nuswide", "--protocol", "lists", "--data-root", root]
    done = cli(*command, "--workers", "2", *FAST)
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("hashbench: error: ")]
    assert re.fullmatch(r"hashbench: error: \S*0030_1544502970\.jpg is a web page, not an image; .*", line)
    assert "Traceback" not in done.err


def test_an_overlap_can_be_allowed_and_is_recorded(
    cli: Callable[..., Any], nuswide_tree: Callable[..., Path]
) -> None:
    root = nuswide_tree()
    damage_split(root)
    command = ["run", "--method", "wch", "--dataset", "nuswide", "--protocol", "lists", "--data-root", root]
    done = cli(*command, "--json", *FAST, "--allow-overlap")
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["split"]["overlaps"]["query_database"] == 21

    done = cli(
        "data",
        "verify",
        "nuswide",
        "--protocol",
        "lists",
        "--data-root",
        root,
        "--json",
        "--data",
        "leaks=drop",
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["counts"]["database"], found["overlaps"]["query_database"]) == (84, 0)
    assert "21 database images that are also queries are left out" in found["warnings"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "whc", "--dataset", "digits"], "unknown method 'whc'; did you mean 'wch'?"),
        (["--method", "wch", "--dataset", "digit"], "unknown dataset 'digit'; did you mean 'digits'?"),
        (["--method", "wch", "--dataset", "digits", "--bits", "16,x"], "--bits: expected integers from 1"),
        (["--method", "wch", "--dataset", "digits", "--bits", "0"], "--bits: expected integers from 1"),
        (["--method", "wch", "--dataset", "digits", "--seed", ","], "--seed is empty"),
        (
            ["--method", "wch", "--dataset", "digits", "--set", "epoch=1"],
            "unknown key 'epoch'; did you mean 'epochs'?",
        ),
        (["--method", "wch", "--dataset", "digits", "--protocol", "x"], "unknown protocol of digits 'x'"),
        (["--method", "wch", "--dataset", "digits", "--plugin", "no.py"], "no.py cannot be read"),
        (["--method", "wch"], "missing option '--dataset'"),
    ],
)
def test_usage_errors_have_exit_code_2(cli: Callable[..., Any], arguments: list[str], message: str) -> None:
    done = cli("run", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def write_plugin(path: Path, loss: str, encode: str = "self.backbone.pooled(images)[:, : self.bits]") -> None:
    """Write a plugin file with one method, whose name is that of the file."""
    path.write_text(
        "from hashbench import HashMethod\n"
        "class Mine(HashMethod):\n"
        "    def training_losses(self, *views):\n"
        f"        return {{'loss': {loss}}}\n"
        "    def encode(self, images):\n"
        f"        return {encode}\n"
        f"METHODS = {{'{path.stem}': Mine}}\n"
    )


@pytest.mark.usefixtures("small_digits")
def test_a_plugin_file_runs(cli: Callable[..., Any], tmp_path: Path) -> None:
    write_plugin(tmp_path / "mean.py", loss="(self.encode(views[0]) - self.encode(views[1])).square().mean()")
    done = cli("run", "--plugin", "mean.py", "--method", "mean,wch", "--dataset", "digits", "--json", *FAST)
    assert done.code == 0, done.err
    assert [run["method"] for run in json.loads(done.out)] == ["mean", "wch"]


@pytest.mark.usefixtures("small_digits")
def test_collapsed_codes_are_reported(cli: Callable[..., Any], tmp_path: Path) -> None:
    write_plugin(
        tmp_path / "flat.py",
        loss="self.encode(views[0]).mean()",
        encode="self.backbone.pooled(images)[:, : self.bits] * 0 + 1",
    )
    done = cli("run", "--plugin", "flat.py", "--method", "flat", "--dataset", "digits", *FAST)
    assert done.code == 0, done.err
    assert "COLLAPSED" in done.out
    assert "COLLAPSED: on average 100% of the database lies at one distance" in done.err
    (path,) = records(tmp_path)
    record = hashbench.read_record(path.parent)
    assert record.health.collapsed
    assert record.metrics["mAP@all"].expected == pytest.approx(record.health.chance_map["mAP@all"])


@pytest.mark.usefixtures("small_digits")
def test_a_diverged_run_has_no_record(cli: Callable[..., Any], tmp_path: Path) -> None:
    """The runs before it are shown."""
    write_plugin(tmp_path / "diverges.py", loss="self.encode(views[0]).mean() / 0")
    done = cli("run", "--plugin", "diverges.py", "--method", "wch,diverges", "--dataset", "digits", *FAST)
    assert done.code == 1
    assert "the loss is not finite at step 0 (epoch 0): loss" in done.err
    (path,) = records(tmp_path)
    assert str(path.parent.relative_to(tmp_path)) in done.out


def test_listings(cli: Callable[..., Any]) -> None:
    assert "wch" in cli("methods").out
    listed = {row["dataset"] for row in json.loads(cli("datasets", "--json").out)}
    assert {"digits", "fashionmnist", "nuswide"} <= listed


def test_evaluate_codes_of_other_programs(cli: Callable[..., Any], tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    arrays: dict[str, Any] = {
        "query_codes": random.choice([-1, 1], (5, 20)),
        "database_codes": random.choice([-1, 1], (30, 20)),
        "query_labels": random.randint(0, 3, 5),
        "database_labels": random.randint(0, 3, 30),
    }
    np.savez("codes.npz", **arrays)
    done = cli("evaluate", "codes.npz", "--k", "10,all", "--json")
    expected = hashbench.evaluate(**arrays, k=(10, "all"))
    assert json.loads(done.out) == expected.to_dict()
    assert f"{expected.mean_average_precision(10):.4f}" in cli("evaluate", "codes.npz", "--k", "10").out

    script = cli("evaluate", "codes.npz", "--k", "10", "--preset", "paper:wch")
    figure = published(*arrays.values(), "paper:wch", k=10)
    assert script.out.endswith(
        f"paper:wch: the script of the paper reports mAP@10 {figure:.4f} (database in the given order)\n"
    )
    shown = json.loads(
        cli("evaluate", "codes.npz", "--preset", "paper:bihalf", "--dataset", "coco", "--json").out
    )
    assert list(shown["published"]) == ["mAP@5000"]
    assert shown["settings"]["k"] == [5000]
    wrong = cli("evaluate", "codes.npz", "--preset", "paper:wch", "--database", ".")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert cli("evaluate", "codes.npz", "--preset", "paper:wch", "--dataset", "nus-wide").code == 2
    assert cli("evaluate", "codes.npz", "--order", "shuffled").code == 2
    graded = json.loads(cli("evaluate", "codes.npz", "--graded", "--k", "10", "--json").out)["metrics"]
    assert graded["NDCG@10"]["expected"] == hashbench.evaluate(**arrays, k=(10,), graded=True).ndcg(10)

    np.savez("ids.npz", **{**arrays, "query_codes": (arrays["query_codes"] + 1) // 2})
    np.savez("three.npz", **{name: arrays[name] for name in list(arrays)[:3]})
    np.savez("pickled.npz", **{**arrays, "query_labels": np.array([{}] * 5)})
    Path("text.npz").write_text("no archive")
    for file, code, message in (
        ("ids.npz", 2, "query_codes contain {0, 1} and database_codes ±1"),
        ("three.npz", 2, "three.npz lacks database_labels"),
        ("pickled.npz", 2, "save plain arrays"),
        ("text.npz", 1, "text.npz is not an .npz file"),
        ("absent.npz", 1, "absent.npz cannot be read"),
    ):
        done = cli("evaluate", file)
        assert (done.code, message in done.err) == (code, True), done.err
        assert "Traceback" not in done.err
    assert cli("evaluate", "codes.npz", "--k", "0").code == 2


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['hashbench', '--help']\n"
        "from hashbench.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'numba', 'pandas', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert "evaluate" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked")
@pytest.mark.usefixtures("small_digits")
def test_a_killed_run_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0)  # a line for each step
    results, said = tmp_path / "results", tmp_path / "said.txt"
    command = ["run", "--method", "wch", "--dataset", "digits", *FAST, "--set=epochs=100"]

    def stopped_by(number: int) -> int:
        process = start([*command, "--results", str(results)], said)
        waited = time.monotonic() + 60
        while not (said.exists() and "train: " in said.read_text()) and time.monotonic() < waited:
            time.sleep(0.01)
        os.kill(process, number)
        return wait(process)

    assert stopped_by(signal.SIGKILL) == -signal.SIGKILL, said.read_text()
    assert records(tmp_path) == []
    (partial,) = (results / "digits@default/wch/32bit").iterdir()
    assert partial.name.startswith(".")

    said.unlink()
    assert stopped_by(signal.SIGINT) == 130
    assert "train: " in said.read_text()
    assert "Traceback" not in said.read_text()
    assert records(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError("Could not find/load shared object file 'libllvmlite.so' from resource location: 'llvmlite'"),
    ],
)
def test_running_out_of_memory_is_a_one_line_error(
    error: Exception, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries that cannot be mapped under `ulimit -v` raise these errors when they are imported."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("hashbench.registry.entries", fail)
    done = cli("methods")
    assert done.code == 1
    assert done.err.startswith("hashbench: error: out of memory, or a library cannot be loaded (")
    assert done.err.endswith("; free memory, raise its limit (`ulimit -v`), or reinstall the library\n")
    assert done.err.count("\n") == 1
