"""Tests of `hashbench results …` and of records of older versions."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.fake_runs import make_run

from hashbench import read_record
from hashbench.experiment.verify import verify_all
from hashbench.results.record import CODES, CURVES, LOG, QUERIES, checksum
from hashbench.results.stored_run import StoredRun
from hashbench.results.verify import Checked
from hashbench.runtime import array_files
from hashbench.runtime.console import printable_lines
from hashbench.runtime.files import sha256_of

OLD = Path(__file__).parents[1] / "records"
Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_run(folder, seed=0)
    make_run(folder, seed=1)
    make_run(folder, changes={"training.drop_last": True})
    make_run(folder, "spq", product=True)
    return folder


@pytest.fixture
def results(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create four runs in the default folder of the commands."""
    monkeypatch.setenv("COLUMNS", "200")
    return Path(shutil.copytree(made, tmp_path / "results" / "runs"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a record, and its checksum accordingly."""
    path = folder / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps({**record, "sha256": checksum(record)}))


def forge(folder: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the arrays in a file, and the hash of the file in the record."""
    with np.load(folder / name) as file:
        arrays = dict(file)
    change(arrays)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    replace(folder / name, content.getvalue())


def replace(path: Path, content: bytes) -> None:
    """Write a file of a run, and the hash of the file into the record."""
    path.write_bytes(content)
    edit(path.parent, lambda record: record["files"].update({path.name: sha256_of(path)}))


def flip(path: Path) -> None:
    """Change a byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def error(ended: Any) -> str:
    """Return the line of an error, without the lines of progress before it."""
    *others, line = ended.err.splitlines()
    for other in others:
        assert re.fullmatch(r"(check|copy|pack|verify): \d+/\d+, \d+ s, \d+ s left", other), ended.err
    assert line.startswith("hashbench: error: "), ended.err
    return str(line.removeprefix("hashbench: error: "))


def check(folder: Path) -> Checked:
    return next(verify_all([StoredRun(read_record(folder), folder)]))


EITHER = "pass either runs or options that select runs, not both"
NOT_REGISTERED = "changes and components are not recomputed: unknown dataset 'shapes'; known: cifar10, coco, "
NOT_REGISTERED += (
    "digits, fashionmnist, flickr25k, folder, imagenet100, mnist, nuswide, torchvision:CIFAR10, "
)
NOT_REGISTERED += "torchvision:CIFAR100, torchvision:Caltech101, …"


def tree(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_archive(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


# list


def test_options_without_a_command_are_those_of_list(cli: Cli, results: Path) -> None:
    assert cli("results").out == cli("results", "list").out
    narrow = cli("results", "--method", "spq")
    assert narrow.out == cli("results", "list", "--method", "spq").out
    assert "wch" not in narrow.out
    assert "Commands" in cli("results", "--help").out


def test_list_shows_every_run(cli: Cli, results: Path) -> None:
    first = make_run(results, "itq", collapsed=True)
    second = make_run(results, "lsh", evaluation={"k": [7]})
    again = first.folder.with_name("itq-shapes-16bit-seed0-other")  # as after a change of the code
    shutil.copytree(first.folder, again)
    edit(again, lambda record: record.update(run_id=again.name, created="2026-01-02T00:00:00Z"))
    (first.folder.parent / ".itq-shapes-16bit-seed3-0.1").mkdir()
    shown = cli("results")
    assert shown.code == 0, shown.err
    rows = [line.split() for line in shown.out.splitlines()]
    mean, lsh = first.record.metrics["mAP@1000"].expected, second.record.metrics["mAP@7"].expected
    hashes = [run.record.run_id.rpartition("-")[2] for run in (first, second)]
    data = ["shapes@default", "16", "0"]
    assert rows[0] == ["method", "dataset", "bits", "seed", "metric", "value", "created", "run"]
    assert rows[1] == ["itq", *data, "mAP@1000", f"{mean:.4f}", "COLLAPSED", "2026-01-01", hashes[0]]
    assert rows[2] == ["itq", *data, "mAP@1000", f"{mean:.4f}", "COLLAPSED", "2026-01-02", "other"]
    assert rows[3] == ["lsh", *data, "mAP@7", f"{lsh:.4f}", "2026-01-01", hashes[1]]
    assert [row[0] for row in rows[4:8]] == ["spq", "wch", "wch", "wch"]
    assert rows[7][1] == "(drop_last=true)"
    hidden = "results/runs/shapes@default/itq/16bit/.itq-shapes-16bit-seed3-0.1"
    assert rows[8:] == [["unfinished:", hidden]]

    told = json.loads(cli("results", "--json").out)
    assert len(told["runs"]) == 7
    assert told["unfinished"] == [hidden]
    assert told["runs"][0]["metrics"]["mAP@1000"]["expected"] == mean
    assert told["runs"][0]["folder"] == str(first.folder.relative_to(results.parents[1]))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--method", "wch"], 3),
        (["--method", "wch", "--unchanged"], 2),
        (["--seed", "1"], 1),
        (["--bits", "16,32"], 4),
        (["--where", "drop_last=true"], 1),
        (["--dataset", "digits"], 0),
    ],
)
def test_list_filters_runs(cli: Cli, results: Path, options: list[str], count: int) -> None:
    assert len(json.loads(cli("results", *options, "--json").out)["runs"]) == count


def test_an_empty_list_is_one_line(cli: Cli, results: Path, tmp_path: Path) -> None:
    none = cli("results", "--dataset", "digits")
    assert (none.code, none.out) == (0, "results/runs has no such run\n")
    (tmp_path / "empty").mkdir()
    assert cli("results", "--results", "empty").out == "empty has no such run\n"
    unknown = cli("results", "--where", "drop_lost=true")
    assert (unknown.code, "did you mean" in unknown.err) == (2, True)


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["verify"], ["export", "out"]])
def test_a_missing_folder_is_named(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    gone = cli("results", *command, "--results", "gone")
    assert (gone.code, gone.out) == (2, "")
    assert error(gone) == "gone is not a folder; `hashbench run` creates it, or choose --results DIR"
    assert [*tmp_path.iterdir()] == []


def test_list_names_unreadable_records(cli: Cli, results: Path) -> None:
    record = next(results.glob("shapes@default/spq/*/*/record.json"))
    record.write_text("{")
    shown = cli("results")
    assert (shown.code, len(shown.out.splitlines())) == (0, 4)
    (warning,) = shown.err.splitlines()
    place = record.relative_to(results.parents[1])
    assert warning.startswith(f"hashbench: warning: {place} is not a record (the file: ")


def deep(levels: int) -> Any:
    return {"x": deep(levels - 1)} if levels else 1


BAD: list[Callable[[dict[str, Any]], object]] = [
    lambda r: r["environment"].update(source={"a": 1}),
    lambda r: r["environment"].update(gpu=[{}]),
    lambda r: r["environment"].update(processor=[1]),
    lambda r: r["config"].pop("data"),
    lambda r: r["config"].update(data=[1]),
    lambda r: r.update(config=1),
    lambda r: r["config"]["evaluation"].update(k=5),
    lambda r: r["metrics"].update({"mAP@x": r["metrics"]["mAP@all"]}),
    lambda r: r["metrics"]["mAP@all"].update(expected=math.nan),
    lambda r: r["timing"].update(train=math.inf),
    lambda r: r.update(method="\x1b[2J", seed="\x1b[2J"),
    lambda r: r.update(changes={"\x1b[2J": deep(90)}),
    lambda r: r.update({"key " * 9999: 1}),
    lambda r: r.update(run_id="\ud800"),
    lambda r: r["split"].update(query=10**4000),
    lambda r: r["split"].update(database=0),
    lambda r: r.update(created="2026-01-01"),
]


def test_every_command_leaves_out_bad_records(cli: Cli, results: Path) -> None:
    (sound,) = results.glob("shapes@default/spq/*/*")
    for number, change in enumerate(BAD):
        bad = sound.with_name(f"bad{number}")
        shutil.copytree(sound, bad)
        edit(bad, change)
    wch = sorted(folder.name for folder in results.glob("shapes@default/wch/*/*"))
    for command, code in (
        (["results"], 0), (["table"], 0), (["plot", "speed", "--output", "a.svg"], 0),
        (["compare", *wch[:2]], 0), (["results", "verify"], 1),
    ):  # fmt: skip
        done = cli(*command)
        assert done.code == code, done.err
        message = [line for line in (done.out + done.err).splitlines() if "is not a record" in line]
        assert len(message) == len(BAD) * (command[0] != "compare"), message
        assert all(line.isprintable() and len(line) < 600 for line in message)
        assert printable_lines(done.out + done.err) == done.out + done.err
    refused = cli("results", "import", results, "--results", "new")
    assert (refused.code, f"({len(BAD)} problems in all)" in error(refused)) == (1, True)


# show


def test_show_prints_the_whole_record(cli: Cli, results: Path) -> None:
    run = make_run(results, "itq", collapsed=True, components={"a part": {"hyperparameters.x": False}})
    (run.folder / "codes.npz").unlink()
    shown = cli("results", "show", "itq")
    assert shown.code == 0, shown.err
    metric, record, files = run.record.metrics["mAP@all"], run.record, run.record.files or {}
    row = next(line for line in shown.out.splitlines() if "mAP@all" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    values = (metric.expected, metric.lowest, metric.highest)
    assert cells == ["mAP@all", *(f"{value:.4f}" for value in values)]
    for line in (
        record.run_id,
        f"codes      COLLAPSED: {'; '.join(record.health.reasons)}",
        "created    2026-01-01 00:00:00 UTC",
        f"  sha256    {record.split.sha256}",
        "  query     20 (0 without relevant items)",
        "  evaluate  0.25 s",
        "  processor  none",
        '  a part  {"hyperparameters.x": false}',
        f"  codes.npz    {files['codes.npz']}, missing",
        f"  curves.csv   {files['curves.csv']}",
    ):
        assert line in shown.out.splitlines()
    assert '  evaluation.k                    [1000, "all"]' in shown.out.splitlines()


def test_show_accepts_any_name_of_a_run(cli: Cli, results: Path) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    stored = json.loads((folder / "record.json").read_text())
    for name in (folder.name, "spq", folder, folder.relative_to(results.parents[1])):
        assert json.loads(cli("results", "show", name, "--json").out) == stored
    several = cli("results", "show", "wch")
    assert (several.code, "enter more of it" in several.err) == (2, True)
    for place in ("results/runs", "gone"):
        nothing = cli("results", "show", "nothing", "--results", place)
        message = f"{place} has no run 'nothing'; `hashbench results --results {place}` lists all"
        assert (nothing.code, error(nothing)) == (2, message)


# verify


def test_intact_runs_pass(cli: Cli, results: Path) -> None:
    make_run(results, "itq", collapsed=True)
    make_run(results, "skip", evaluation={"k": [3, "all"], "no_relevant": "skip", "denominator": "relevant"})
    done = cli("results", "verify")
    assert (done.code, done.out.count("passed")) == (0, 7), done.out
    assert "6 passed, 0 failed" in done.out
    rows = json.loads(cli("results", "verify", "--json").out)
    assert {row["passed"] for row in rows} == {True}
    assert {row["status"] for row in rows} == {"passed"}
    unknown = "changes and components are not recomputed: unknown method 'skip'; did you mean 'spq'?"
    assert {note for row in rows for note in row["notes"]} == {NOT_REGISTERED, unknown}


@pytest.mark.parametrize("name", ["codes.npz", "queries.npz", "curves.csv", "log.jsonl"])
def test_a_changed_byte_is_found(cli: Cli, results: Path, name: str) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    flip(folder / name)
    done = cli("results", "verify")
    assert done.code == 1
    (line,) = [line for line in done.out.splitlines() if "FAILED" in line]
    assert f"{name} has changed since it was recorded" in line
    assert folder.name in line
    assert "3 passed, 1 failed" in done.out
    assert cli("results", "verify", "--method", "wch").code == 0
    assert cli("results", "verify", "spq").code == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r["metrics"]["mAP@all"].update(expected=2),
         "metrics.mAP@all.expected is recorded as 2.0; queries.npz gives 0."),
        (lambda r: r["metrics"]["mAP@all"].update(expected=2),
         "metrics.mAP@all.expected is recorded as 2.0; the codes give 0."),
        (lambda r: r["metrics"]["P@all"].update(lowest=2),
         "metrics.P@all.lowest is recorded as 2.0; the codes give 0."),
        (lambda r: r["metrics"].pop("P@all"), "metrics.P@all.expected is recorded as None"),
        (lambda r: r["health"].update(dead_bits=3), "health.dead_bits is recorded as 3; the codes give 0"),
        (lambda r: r["health"].update(collapsed=True), "health.collapsed is recorded as True"),
        (lambda r: r["split"].update(database=1), "database is recorded as 1; the codes give 120"),
        (lambda r: r.update(queries_without_relevant=1), "queries_without_relevant is recorded as 1"),
        (lambda r: r.update(seed=5), "seed is 5 in the record and 7 in its config"),
        (lambda r: r.update(method="itq"), "it is in shapes@default/wch/16bit/"),
        (lambda r: r["config"]["evaluation"].update(k=["7"]), "metrics.mAP@7.expected is recorded as None"),
        (lambda r: r["files"].update({"../x": "0"}), "'../x' is not a file of a run"),
        (lambda r: r["files"].pop("log.jsonl"), "log.jsonl is not in the record"),
        (lambda r: r["files"].clear(), "codes.npz is not in the record"),
    ],
)  # fmt: skip
def test_a_changed_record_is_found(
    results: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    folder = make_run(results, seed=7).folder
    edit(folder, change)
    problems = check(folder).problems
    assert any(found.startswith(problem) for found in problems), problems


def test_rounding_differences_pass(results: Path) -> None:
    folder = make_run(results, seed=7).folder
    for difference, sources in ((1e-13, []), (1e-9, ["queries.npz gives", "the codes give"])):

        def change(record: dict[str, Any], difference: float = difference) -> None:
            record["metrics"]["mAP@all"]["expected"] += difference

        edit(folder, change)
        problems = check(folder).problems
        assert [problem.partition("; ")[2].rpartition(" ")[0] for problem in problems] == sources
        assert all(problem.startswith("metrics.mAP@all.expected is recorded as ") for problem in problems)


def test_metrics_are_compared_even_if_files_and_hashes_change_together(results: Path) -> None:
    folder = make_run(results, seed=7).folder
    forge(folder, QUERIES, lambda arrays: arrays.update({"AP@all": arrays["AP@all"][::-1]}))  # keeps the mean
    assert check(folder).problems == ["AP@all in queries.npz differs from that of the codes"]
    forge(folder, QUERIES, lambda arrays: arrays.update({"AP@all": np.full(20, 0.25)}))
    mean, values = check(folder).problems
    assert mean.startswith("metrics.mAP@all.expected is recorded as 0.")
    assert mean.endswith("; queries.npz gives 0.25")
    assert values == "AP@all in queries.npz differs from that of the codes"
    forge(folder, CODES, lambda a: a.update(database_codes=a["database_codes"] ^ np.uint64(1)))
    changed = re.compile(r"metrics\.mAP@all\.expected is recorded as [\d.]+; the codes give [\d.]+")
    assert any(changed.fullmatch(problem) for problem in check(folder).problems)


def test_without_codes_map_is_checked_by_ap_of_the_queries(results: Path) -> None:
    folder = make_run(results, seed=7).folder
    (folder / CODES).unlink()
    less = "its codes are missing, so only mAP is checked, with the AP of the queries"
    notes = [less, "left out: codes.npz", NOT_REGISTERED]
    assert (check(folder).problems, check(folder).notes) == ([], notes)
    assert check(folder).status == "not verified"
    values = np.repeat([0.5, 0.75, np.nan], [4, 4, 12])  # NaN: a query that the mean leaves out
    forge(folder, QUERIES, lambda arrays: arrays.update({"AP@all": values}))
    edit(folder, lambda r: r["metrics"]["mAP@all"].update(expected=0.75, lowest=0.5))
    problem = "metrics.mAP@all.expected is recorded as 0.75; queries.npz gives 0.625"
    assert (check(folder).problems, check(folder).notes) == ([problem], notes)
    edit(folder, lambda r: r.update(evaluator=0))
    other = "measured by evaluator 0; evaluator 1 is installed"
    assert (check(folder).problems, check(folder).notes) == ([], [other, problem, *notes])
    edit(folder, lambda r: (r.update(evaluator=1), r["metrics"]["mAP@all"].update(expected=0.625)))
    assert check(folder).problems == []
    edit(folder, lambda r: r["metrics"].update({"mAP@7": r["metrics"]["mAP@all"]}))
    (problem,) = check(folder).problems
    assert f"{folder / QUERIES} lacks AP@7" in problem


@pytest.mark.parametrize(
    ("name", "problems", "notes"),
    [
        (CODES, [], ["its codes are missing, so only mAP is checked, with the AP of the queries"]),
        (LOG, [], []),
        (CURVES, ["curves.csv is not in the record"], []),
        (QUERIES, ["queries.npz is not in the record"], []),
    ],
)
def test_a_record_lists_the_files_that_every_export_keeps(
    results: Path, name: str, problems: list[str], notes: list[str]
) -> None:
    folder = make_run(results, seed=7).folder
    edit(folder, lambda record: record["files"].pop(name))
    (folder / name).unlink()
    assert (check(folder).problems, check(folder).notes) == (problems, [*notes, NOT_REGISTERED])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["config"]["evaluation"].pop("radius"), "(config: Value error, evaluation lacks radius)"),
        (
            lambda r: r.update(files=None),
            "(the file: Value error, only records of version 1 have no changes and files)",
        ),
        (
            lambda r: r.update(changes=None),
            "(the file: Value error, only records of version 1 have no changes and files)",
        ),
    ],
)
def test_an_incomplete_record_is_rejected(
    cli: Cli, results: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    edit(folder, change)
    message = f"record.json is not a record {message}"
    done = cli("results", "verify", "--json")
    assert done.code == 1
    (row,) = [row for row in json.loads(done.out) if not row["passed"]]
    assert (row["run_id"], row["folder"], row["notes"]) == (None, None, [])
    (problem,) = row["problems"]
    assert problem.startswith(f"{folder.relative_to(results.parents[1])}/{message}")
    for command in (["verify", folder.name], ["show", folder.name], ["export", "out"]):
        refused = cli("results", *command)
        assert (refused.code, message in error(refused)) == (1, True)


@pytest.mark.parametrize(
    ("name", "array", "value", "problem"),
    [
        (
            QUERIES,
            "AP@all",
            np.full(20, "a"),
            "queries.npz cannot be read: AP@all is <U1 [20]",
        ),
        (
            CODES,
            "bits",
            np.array([16, 16]),
            "codes.npz: bits: expected a whole number, 1 or more, got int64 [2]",
        ),
        (CODES, "bits", np.array("x"), "codes.npz: bits: expected a whole number, 1 or more, got x"),
    ],
)
def test_arrays_of_a_wrong_kind_are_found(
    results: Path, name: str, array: str, value: Any, problem: str
) -> None:
    folder = make_run(results, seed=7).folder
    forge(folder, name, lambda arrays: arrays.update({array: value}))
    (found,) = check(folder).problems
    assert problem in found


def test_a_moved_folder_is_found(cli: Cli, results: Path) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    folder.rename(folder.with_name("spq-mine"))
    done = cli("results", "verify", "spq-mine")
    assert done.code == 1
    belongs = folder.relative_to(results)
    assert (
        f"it is in {belongs.with_name('spq-mine')}; according to its record, it belongs in {belongs}"
        in done.out
    )


def test_an_older_evaluator_may_differ(results: Path) -> None:
    folder = make_run(results, seed=7).folder
    edit(folder, lambda r: r.update(evaluator=0))
    edit(folder, lambda r: r["metrics"]["mAP@all"].update(lowest=0.5))
    checked = check(folder)
    assert checked.problems == []
    assert checked.notes[0] == "measured by evaluator 0; evaluator 1 is installed"
    assert checked.notes[1].startswith("metrics.mAP@all.lowest is recorded as 0.5; the codes give ")


def test_missing_files_are_named(cli: Cli, results: Path) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    for name in ("codes.npz", "log.jsonl"):
        (folder / name).unlink()
    assert (check(folder).problems, check(folder).notes[1]) == ([], "left out: codes.npz, log.jsonl")
    (folder / "curves.csv").unlink()
    assert check(folder).problems == ["curves.csv is missing"]
    (folder / "record.json").unlink()
    done = cli("results", "verify", "--json")
    assert done.code == 1
    (row,) = [row for row in json.loads(done.out) if not row["passed"]]
    assert "record.json cannot be read" in row["problems"][0]


def test_verify_requires_existing_runs(cli: Cli, results: Path) -> None:
    none = cli("results", "verify", "--dataset", "digits")
    assert (none.code, none.err.count("\n")) == (2, 1)
    both = cli("results", "verify", "spq", "--method", "spq")
    assert (both.code, "not both" in both.err) == (2, True)


# export and import


def test_an_archive_reproduces_all_bytes(cli: Cli, results: Path, tmp_path: Path) -> None:
    made = cli("results", "export", "out/a.tar.gz")
    assert (made.code, made.out) == (0, "out/a.tar.gz: 4 new, 0 already there\n"), made.err
    assert cli("results", "export", "out/b.tar.gz").code == 0
    assert (tmp_path / "out/a.tar.gz").read_bytes() == (tmp_path / "out/b.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "out/a.tar.gz") as tar:
        members = tar.getmembers()
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert {member.mtime for member in members} == {1767225600, 1767225660}  # when the runs ended

    taken = cli("results", "import", "out/a.tar.gz", "--results", "new")
    assert (taken.code, taken.out) == (0, "new: 4 new, 0 already there\n"), taken.err
    assert tree(tmp_path / "new") == tree(results)
    assert cli("results", "verify", "--results", "new").code == 0
    taken = cli("results", "import", "out/a.tar.gz", "--results", "new")
    assert (taken.code, taken.out) == (0, "new: 0 new, 4 already there\n")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["shapes@default"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tar.gz", "b.tar.gz"]


def test_runs_are_exported_by_name(cli: Cli, results: Path, tmp_path: Path) -> None:
    first, second = (f"wch-shapes-16bit-seed{seed}" for seed in (0, 1))
    ids = sorted(path.name for path in results.glob("*/wch/16bit/*") if path.name.startswith(second))
    done = cli("results", "export", "out", ids[0], ids[0].rpartition("-")[2])
    assert done.out == "out: 1 new, 0 already there\n"
    assert [path.name for path in (tmp_path / "out").glob("*/*/*/*")] == ids
    both = cli("results", "export", "out", ids[0], "--method", "spq")
    assert (both.code, both.err) == (2, f"hashbench: error: {EITHER}\n")
    assert "may be" in error(cli("results", "export", "out", first))


def test_a_folder_is_exported_and_imported(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("results", "export", "out", "--method", "spq").out == "out: 1 new, 0 already there\n"
    assert cli("results", "export", "out").out == "out: 3 new, 1 already there\n"
    assert tree(tmp_path / "out") == tree(results)
    (tmp_path / "out/shapes@default/spq/16bit/.spq-shapes-16bit-seed1-0.1").mkdir()
    assert cli("results", "import", "out", "--results", "new").out == "new: 4 new, 0 already there\n"
    assert tree(tmp_path / "new") == tree(tmp_path / "out") == tree(results)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shapes@default"]


def test_parts_are_left_out(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("results", "export", "out.tar.gz", "--without", "codes,log").code == 0
    assert cli("results", "import", "out.tar.gz", "--results", "new").code == 0
    names = {path.name for path in (tmp_path / "new").rglob("*.*") if path.is_file()}
    assert names == {"record.json", "curves.csv", "queries.npz"}
    done = cli("results", "verify", "--results", "new")
    assert (done.code, done.out.count("left out: codes.npz, log.jsonl")) == (0, 4)
    assert done.out.count("only mAP is checked, with the AP of the queries") == 4
    wrong = cli("results", "export", "other", "--without", "code")
    assert (wrong.code, "did you mean 'codes'?" in wrong.err) == (2, True)


def test_omitted_parts_can_be_imported_later(cli: Cli, results: Path, tmp_path: Path) -> None:
    whole = tree(results)
    small = {path: content for path, content in whole.items() if not path.endswith((CODES, LOG))}
    assert cli("results", "export", "small.tar.gz", "--without", "codes,log").code == 0
    assert cli("results", "export", "whole.tar.gz").code == 0
    for place, source in (("a", results), ("b", "whole.tar.gz")):
        assert cli("results", "import", "small.tar.gz", "--results", place).code == 0
        assert tree(tmp_path / place) == small
        for again in (source, "small.tar.gz"):  # has fewer files, and removes none
            done = cli("results", "import", again, "--results", place)
            assert (done.code, done.out) == (0, f"{place}: 0 new, 4 already there\n"), done.err
            assert tree(tmp_path / place) == whole
    assert cli("results", "export", "c", "--without", "codes,log").code == 0
    assert cli("results", "export", "c", "--without", "log").out == "c: 0 new, 4 already there\n"
    assert tree(tmp_path / "c") == small | {p: content for p, content in whole.items() if p.endswith(CODES)}


def test_existing_runs_are_never_replaced(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("results", "export", "out.tar.gz").code == 0
    assert cli("results", "export", "out").code == 0
    again = cli("results", "export", "out.tar.gz")
    assert (again.code, "out.tar.gz already exists" in again.err) == (2, True)
    folder = next((tmp_path / "out").glob("shapes@default/wch/*/*seed1*"))
    edit(folder, lambda record: record["timing"].update(train=1))
    shutil.rmtree(tmp_path / "out/shapes@default/spq")
    for path in tmp_path.glob("out/*/*/*/*/codes.npz"):
        path.unlink()
    before = tree(tmp_path / "out")
    for command in (["export", "out"], ["import", "out.tar.gz", "--results", "out"]):
        refused = cli("results", *command)
        assert refused.code == 1
        assert error(refused) == (
            f"{folder.relative_to(tmp_path)} is another run with the same id; "
            "move it away, or choose another folder"
        )
        assert tree(tmp_path / "out") == before  # also without the missing run and codes
    flip(folder / CURVES)
    shutil.copy(results / folder.relative_to(tmp_path / "out") / "record.json", folder)
    damaged = (folder / CURVES).read_bytes()
    assert cli("results", "import", "out.tar.gz", "--results", "out").code == 0
    assert (folder / CURVES).read_bytes() == damaged


def test_unknown_kinds_of_archives_are_rejected(cli: Cli, results: Path, tmp_path: Path) -> None:
    for name in ("out.zip", "out.tgz"):
        refused = cli("results", "export", name)
        assert (refused.code, "ends in .tar.gz" in error(refused)) == (2, True)
    (tmp_path / "notes.txt").write_text("no archive")
    refused = cli("results", "import", "notes.txt", "--results", "new")
    assert (refused.code, error(refused).startswith("notes.txt cannot be unpacked (")) == (1, True)
    assert cli("results", "export", "notes.txt").code == 1
    for name in ("gone.tar.gz", "gone"):
        refused = cli("results", "import", name, "--results", "other")
        assert (refused.code, error(refused)) == (2, f"{name} does not exist")
    assert not (tmp_path / "other").exists()


def test_a_damaged_run_is_not_exported(cli: Cli, results: Path, tmp_path: Path) -> None:
    flip(next(results.glob("shapes@default/spq/*/*/curves.csv")))
    for name in ("out", "out.tar.gz"):
        refused = cli("results", "export", name)
        assert (refused.code, "curves.csv has changed since" in refused.err) == (1, True)
        assert not (tmp_path / name).exists()


def test_a_truncated_archive_is_rejected(cli: Cli, results: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    assert cli("results", "export", archive).code == 0
    packed = archive.read_bytes()
    content = gzip.decompress(packed)
    cut = [(packed[: int(keep * len(packed))], "cannot be unpacked") for keep in (0.3, 0.6, 0.9, 0.999)]
    for length, message in (
        (len(content) // 2, "if it is damaged, download it again"),
        (len(content) // 2 // 512 * 512, "if it is damaged, download it again"),
        (100, "cannot be unpacked (truncated header); if it is damaged, download it again"),
        (0, "cannot be unpacked (empty header); if it is damaged, download it again"),
    ):
        cut.append((gzip.compress(content[:length]), message))  # so that gzip notices nothing
    for part, message in cut:
        archive.write_bytes(part)
        refused = cli("results", "import", archive, "--results", "new")
        assert (refused.code, message in error(refused)) == (1, True), refused.err
        assert error(refused).startswith(str(archive))
        assert [*(tmp_path / "new").iterdir()] == []


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


RUN = "a@b/wch/16bit/x"


@pytest.mark.parametrize(
    ("name", "member"),
    [
        (f"../{RUN}/record.json", b"{}"),
        ("a@b/../16bit/x/record.json", b"{}"),
        (f"/{RUN}/record.json", b"{}"),
        (f"{RUN}/other.sh", b"rm"),
        (f"{RUN}/deep/record.json", b"{}"),
        ("a@b/wch/16bit/.x/record.json", b"{}"),
        ("ab/wch/16bit/x/record.json", b"{}"),
        (r"a@b/wch/16bit/..\..\x/record.json", b"{}"),
        (f"{RUN}/record.json", link(f"{RUN}/record.json", "/etc/passwd")),
        (f"{RUN}/codes.npz", link(f"{RUN}/codes.npz", "/etc/passwd", tarfile.LNKTYPE)),
        ("a@b/wch", link("a@b/wch", "/tmp")),
        (f"{RUN}/log.jsonl", link(f"{RUN}/log.jsonl", "", tarfile.FIFOTYPE)),
    ],
)
def test_an_archive_with_unknown_members_is_rejected(
    cli: Cli, results: Path, tmp_path: Path, name: str, member: bytes | tarfile.TarInfo
) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", {**tree(results), name: member})
    before = tree(tmp_path)
    refused = cli("results", "import", archive, "--results", "new")
    assert refused.code == 1
    assert error(refused) == f"{archive} contains {name!r}, which is not a file of a run; nothing is imported"
    assert tree(tmp_path) == before


def long_names(count: int) -> bytes:
    """Return headers that each contain the name of the next."""
    header = link("././@LongLink", "", tarfile.GNUTYPE_LONGNAME)
    header.size = 1
    return (header.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * count


def sparse(size: int) -> bytes:
    """Return a member of 512 bytes that represents a file of `size` bytes."""
    member = tarfile.TarInfo(f"{RUN}/codes.npz")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (size - 512, 512)
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(512)


def pax(headers: dict[str, str], content: bytes = b"") -> bytes:
    member = tarfile.TarInfo(f"{RUN}/codes.npz")
    member.pax_headers, member.size = headers, len(content)
    return member.tobuf(tarfile.PAX_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (long_names(3000), "it has too many headers for one file"),
        (sparse(2_100_000_000), "a member is sparse"),
        (pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9999999999"}, b"0\n"),
         "a member is sparse"),
        (pax({"GNU.sparse.map": "0,1,2,1", "GNU.sparse.size": "9999999999"}, b"00"),
         "a member is sparse"),
        (pax({"comment": "x" * 70_000}), "it has a header of 70,"),
        (pax({"size": "-512"}), "cannot be unpacked"),
        (pax({"size": "9" * 5000}), "nothing is imported"),
        (pax({}, bytes(3_000_000)), "it contains more than 2,0"),
        (bytes(3_000_000), "it contains more than 2,0"),
        (pax({})[:300] + b"?" + pax({})[301:], "bad checksum"),
    ],
)  # fmt: skip
def test_an_archive_that_exhausts_memory_or_disk_is_rejected(
    cli: Cli, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.setattr(array_files, "MAX_UNPACKED", 1_000_000)
    sound = gzip.decompress(write_archive(tmp_path / "a.tar.gz", tree(results)).read_bytes())
    whole = sound.rstrip(b"\0")
    whole = whole.ljust(-(-len(whole) // 512) * 512, b"\0")
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole + content + bytes(1024)))
    before = tree(tmp_path)
    refused = cli("results", "import", "a.tar.gz", "--results", "new")
    assert (refused.code, message in error(refused)) == (1, True), refused.err
    assert len(error(refused)) < 300
    assert tree(tmp_path) == before


def claim_more_without_codes(folder: Path) -> None:
    (folder / CODES).unlink()
    edit(folder, lambda record: record["metrics"]["mAP@all"].update(expected=0.99))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: flip(folder / "codes.npz"), "codes.npz has changed since it was recorded"),
        (lambda folder: replace(folder / CODES, b"no codes"), "codes.npz is not an .npz file"),
        (lambda folder: replace(folder / QUERIES, b"no AP"), "queries.npz is not an .npz file"),
        (lambda folder: forge(folder, CODES, lambda a: a["query_labels"].sort()), "; the codes give 0."),
        (lambda folder: edit(folder, lambda r: r["metrics"]["P@all"].update(highest=1)),
         "metrics.P@all.highest is recorded as 1.0; the codes give 0."),
        (claim_more_without_codes, "metrics.mAP@all.expected is 0.99, not between 0."),
        (lambda folder: edit(folder, lambda r: r["config"].pop("evaluation")),
         "record.json is not a record (config: Value error, config lacks evaluation); run it again with"),
        (lambda folder: (folder / "record.json").write_text("{"), "record.json is not a record"),
        (lambda folder: (folder / "record.json").unlink(), "record.json cannot be read"),
        (lambda folder: (folder / "queries.npz").unlink(), "queries.npz is missing"),
        (lambda folder: edit(folder, lambda r: r.update(run_id="../../../x")), "record, it belongs in"),
    ],
)  # fmt: skip
def test_nothing_is_imported_if_one_run_is_damaged(
    cli: Cli, results: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    change(next(results.glob("shapes@default/wch/*/*seed1*")))
    for source in (results, write_archive(tmp_path / "a.tar.gz", tree(results))):
        refused = cli("results", "import", source, "--results", "new")
        assert refused.code == 1
        assert error(refused).startswith(f"{source}: nothing is imported: ")
        assert message in error(refused)
        assert ".import." not in refused.err
        assert [*(tmp_path / "new").iterdir()] == []


def test_an_import_without_runs_is_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", write_archive(tmp_path / "a.tar.gz", {})):
        refused = cli("results", "import", source, "--results", "new")
        assert (refused.code, error(refused).startswith(f"{source} contains no runs; ")) == (1, True)


def test_a_full_disk_leaves_only_complete_runs(
    cli: Cli, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Path] = []

    def copy(source: Path, target: Path) -> None:
        if len(copied) == 8:
            raise OSError(28, "No space left on device")
        copied.append(target)
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", copy)
    failed = cli("results", "export", "out")
    assert (failed.code, "No space left on device" in error(failed)) == (1, True)
    assert len(tree(tmp_path / "out")) == 5
    assert cli("results", "--results", "out").out.count("shapes") == 1
    copied.clear()
    failed = cli("results", "import", results, "--results", "new")
    assert (failed.code, "No space left on device" in error(failed)) == (1, True)
    assert [*(tmp_path / "new").iterdir()] == []  # all or none
    (lacking,) = tmp_path.glob("out/*/*/*/*/codes.npz")
    lacking.unlink()
    before = tree(tmp_path / "out")
    failed = cli("results", "export", "out", "--method", lacking.parts[-4])
    assert (failed.code, "out/shapes@default/" in error(failed)) == (1, True)
    assert tree(tmp_path / "out") == before
    monkeypatch.undo()
    assert cli("results", "import", results, "--results", tmp_path / "out").code == 0
    assert tree(tmp_path / "out") == tree(results)


# records of older versions


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_records_of_every_version_are_read(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (path,) = (OLD / version).glob("*/*/*/*/record.json")
    stored = json.loads(path.read_text())
    assert f"v{stored['schema_version']}" == version
    record = read_record(path.parent)
    assert record.model_dump(mode="json")["metrics"] == stored["metrics"]
    assert record.created.isoformat()[:26] == stored["created"][:26]

    listed = cli("results", "--results", OLD / version)
    metric = f"{stored['metrics']['mAP@1000']['expected']:.4f}"
    label = {"v1": "wch (settings not recorded)", "v2": "bihalf ", "v3": "itq "}[version]
    row = listed.out.splitlines()[1]
    for text in (metric, stored["run_id"].rpartition("-")[2]):
        assert text in row
    assert row.startswith(label)
    told = json.loads(cli("results", "--results", OLD / version, "--unchanged", "--json").out)
    assert [run["changes"] for run in told["runs"]] == {"v1": [], "v2": [{}], "v3": []}[version]
    shown = cli("results", "show", stored["run_id"], "--results", OLD / version)
    assert metric in shown.out
    assert f"  sha256    {stored['split']['sha256']}" in shown.out
    assert ("  SHA-256  not recorded" in shown.out.splitlines()) == (version == "v1")
    done = cli("results", "verify", "--results", OLD / version, "--json")
    assert done.code == 0, done.out
    (row,) = json.loads(done.out)
    notes = {
        "v1": "the hashes of its files are not recorded",
        "v2": "left out: log.jsonl, model.safetensors",
        "v3": "left out: log.jsonl, model.safetensors",
    }
    no_checksum = (
        f"records of version {version[1]} have no checksum, so changes that affect neither the files nor the "
        "run id cannot be detected"
    )
    assert (row["status"], row["passed"]) == ("not verified", False)
    assert row["notes"] == [no_checksum, notes[version]]
    taken = cli("results", "import", OLD / version, "--results", "new")
    assert (taken.code, taken.out) == (0, "new: 1 new, 0 already there\n")
    assert tree(tmp_path / "new") == tree(OLD / version)


def test_codes_of_the_first_version_are_checked_by_the_metrics(cli: Cli, tmp_path: Path) -> None:
    shutil.copytree(OLD / "v1", tmp_path / "v1")
    (path,) = tmp_path.glob("v1/*/*/*/*/codes.npz")
    with np.load(path) as file:
        arrays = dict(file)
    arrays["query_labels"][0] += 1
    np.savez_compressed(path, **arrays)
    message = "metrics.mAP@1000.expected is recorded as 0.7690421749686902; the codes give "
    assert check(path.parent).problems[0].startswith(message)
    refused = cli("results", "import", "v1", "--results", "new")
    assert (refused.code, message in error(refused)) == (1, True)
    path.unlink()
    notes = [
        "records of version 1 have no checksum, so changes that affect neither the files nor the run id "
        "cannot be detected",
        "the hashes of its files are not recorded",
        "its codes are missing, so no figure is checked",
    ]
    assert (check(path.parent).problems, check(path.parent).notes) == ([], notes)
