"""`hashbench results …`: listing, looking, checking, sharing; records of older versions."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import make_run

from hashbench import read_record
from hashbench.report.runs import StoredRun
from hashbench.report.verifying import Checked, verify
from hashbench.results import file_sha256

OLD = Path(__file__).parent / "records"
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
    """Four runs, in the folder where commands look for them."""
    monkeypatch.setenv("COLUMNS", "200")
    return Path(shutil.copytree(made, tmp_path / "results" / "runs"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a record says."""
    path = folder / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def flip(path: Path) -> None:
    """Change a byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def check(folder: Path) -> Checked:
    return verify(StoredRun(read_record(folder), folder))


def tree(folder: Path) -> dict[str, bytes]:
    """All that is below a folder."""
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
    misspelt = cli("results", "lst")
    assert (misspelt.code, "Did you mean 'list'" in misspelt.err) == (2, True)


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
    mean, lsh = first.record.metrics["mAP@all"].expected, second.record.metrics["mAP@7"].expected
    hashes = [run.record.run_id.rpartition("-")[2] for run in (first, second)]
    data = ["shapes@default", "16", "0"]
    created = ["2026-01-01", "00:00"]
    assert rows[0] == ["method", "dataset", "bits", "seed", "mAP@all", "created", "run"]
    assert rows[1] == ["itq", *data, f"{mean:.4f}", "COLLAPSED", *created, hashes[0]]
    assert rows[2] == ["itq", *data, f"{mean:.4f}", "COLLAPSED", "2026-01-02", "00:00", "other"]
    assert rows[3] == ["lsh", *data, f"{lsh:.4f}", "(mAP@7)", *created, hashes[1]]
    assert [row[0] for row in rows[4:8]] == ["spq", "wch", "wch", "wch"]
    assert rows[7][1] == "(drop_last=true)"
    hidden = "results/runs/shapes@default/itq/16bit/.itq-shapes-16bit-seed3-0.1"
    assert rows[8:] == [["unfinished:", hidden]]

    told = json.loads(cli("results", "--json").out)
    assert len(told["runs"]) == 7
    assert told["unfinished"] == [hidden]
    assert told["runs"][0]["metrics"]["mAP@all"]["expected"] == mean
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
def test_list_takes_those_that_are_asked_for(cli: Cli, results: Path, options: list[str], count: int) -> None:
    assert len(json.loads(cli("results", *options, "--json").out)["runs"]) == count


def test_nothing_to_list_is_said_in_one_line(cli: Cli, results: Path, tmp_path: Path) -> None:
    none = cli("results", "--dataset", "digits")
    assert (none.code, none.out) == (0, "results/runs has no such run\n")
    (tmp_path / "empty").mkdir()
    assert cli("results", "--results", "empty").out == "empty has no such run\n"
    gone = cli("results", "--results", "gone")
    assert (gone.code, gone.err.count("\n")) == (1, 1)
    assert "gone is no folder" in gone.err
    unknown = cli("results", "--where", "drop_lost=true")
    assert (unknown.code, "did you mean" in unknown.err) == (2, True)


def test_list_names_a_record_that_cannot_be_read(cli: Cli, results: Path) -> None:
    record = next(results.glob("shapes@default/spq/*/*/record.json"))
    record.write_text("{")
    shown = cli("results")
    assert (shown.code, len(shown.out.splitlines())) == (0, 4)
    assert "warning: left out: " in shown.err
    assert f"{record.relative_to(results)} is not a record" in shown.err


# show


def test_show_tells_all_of_a_run(cli: Cli, results: Path) -> None:
    run = make_run(results, "itq", collapsed=True, components={"a part": {"hyperparameters.x": False}})
    (run.folder / "codes.npz").unlink()
    shown = cli("results", "show", "itq")
    assert shown.code == 0, shown.err
    metric, record = run.record.metrics["mAP@all"], run.record
    row = next(line for line in shown.out.splitlines() if "mAP@all" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    values = (metric.expected, metric.lowest, metric.highest)
    assert cells == ["mAP@all", *(f"{value:.4f}" for value in values)]
    for line in (
        record.run_id,
        f"codes      COLLAPSED: {'; '.join(record.health.reasons)}",
        "created    2026-01-01 00:00:00 UTC",
        f"  sha256    {record.split.sha256}",
        "  query     20 (0 with nothing relevant)",
        "  evaluate  0.25 s",
        "  processor  none",
        '  a part  {"hyperparameters.x": false}',
        f"  codes.npz    {record.files['codes.npz']}, not there",
        f"  curves.csv   {record.files['curves.csv']}",
    ):
        assert line in shown.out.splitlines()
    assert '  evaluation.k                    [1000, "all"]' in shown.out.splitlines()


def test_show_takes_any_name_of_a_run_and_prints_its_record(cli: Cli, results: Path) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    stored = json.loads((folder / "record.json").read_text())
    for name in (folder.name, "spq", folder, folder.relative_to(results.parents[1])):
        assert json.loads(cli("results", "show", name, "--json").out) == stored
    several = cli("results", "show", "wch")
    assert (several.code, "give more of it" in several.err) == (2, True)
    assert cli("results", "show", "nothing").code == 2


# verify


def test_sound_runs_pass(cli: Cli, results: Path) -> None:
    make_run(results, "itq", collapsed=True)
    make_run(results, "skip", evaluation={"k": [3, "all"], "no_relevant": "skip", "denominator": "relevant"})
    done = cli("results", "verify")
    assert (done.code, done.out.count("passed")) == (0, 7), done.out
    assert "6 passed, 0 failed" in done.out
    rows = json.loads(cli("results", "verify", "--json").out)
    assert {row["passed"] for row in rows} == {True}
    assert {tuple(row["notes"]) for row in rows} == {()}


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
        (lambda r: r["metrics"]["mAP@all"].update(expected=2), "metrics.mAP@all.expected is recorded as 2"),
        (lambda r: r["metrics"].pop("P@all"), "metrics.P@all.expected is recorded as None"),
        (lambda r: r["health"].update(dead_bits=3), "health.dead_bits is recorded as 3; the codes give 0"),
        (lambda r: r["health"].update(collapsed=True), "health.collapsed is recorded as True"),
        (lambda r: r["split"].update(database=1), "database is recorded as 1; the codes give 120"),
        (lambda r: r.update(queries_without_relevant=1), "queries_without_relevant is recorded as 1"),
        (lambda r: r.update(seed=5), "seed is 5 in the record and 7 in its config"),
        (lambda r: r.update(method="itq"), "it is in shapes@default/wch/16bit/"),
        (lambda r: r["config"].pop("evaluation"), "its config.evaluation cannot be read"),
        (lambda r: r["files"].update({"../x": "0"}), "'../x' is no file of a run"),
        (lambda r: r["files"].pop("log.jsonl"), "log.jsonl is there, but not in the record"),
    ],
)  # fmt: skip
def test_a_changed_record_is_found(
    results: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    folder = make_run(results, seed=7).folder
    edit(folder, change)
    problems = check(folder).problems
    assert any(found.startswith(problem) for found in problems), problems


def test_rounding_is_no_change(results: Path) -> None:
    folder = make_run(results, seed=7).folder
    for difference, problems in ((1e-13, 0), (1e-9, 1)):

        def change(record: dict[str, Any], difference: float = difference) -> None:
            record["metrics"]["mAP@all"]["expected"] += difference

        edit(folder, change)
        assert len(check(folder).problems) == problems


def test_figures_are_compared_even_if_the_hashes_were_changed_with_the_files(results: Path) -> None:
    folder = make_run(results, seed=7).folder
    with np.load(folder / "queries.npz") as file:
        arrays = dict(file)
    arrays["AP@all"][3] += 1e-6
    np.savez_compressed(folder / "queries.npz", **arrays)
    edit(folder, lambda r: r["files"].update({"queries.npz": file_sha256(folder / "queries.npz")}))
    assert check(folder).problems == ["queries.npz has another AP@all than the codes give"]
    with np.load(folder / "codes.npz") as file:
        arrays = dict(file)
    arrays["database_codes"][0] ^= np.uint64(1)
    np.savez_compressed(folder / "codes.npz", **arrays)
    edit(folder, lambda r: r["files"].update({"codes.npz": file_sha256(folder / "codes.npz")}))
    assert any(problem.startswith("metrics.mAP@all.expected") for problem in check(folder).problems)


def test_a_moved_folder_is_found(cli: Cli, results: Path) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    folder.rename(folder.with_name("spq-mine"))
    done = cli("results", "verify", "spq-mine")
    assert done.code == 1
    belongs = folder.relative_to(results)
    assert f"it is in {belongs.with_name('spq-mine')}; by its record it belongs in {belongs}" in done.out


def test_another_evaluator_may_differ(results: Path) -> None:
    folder = make_run(results, seed=7).folder
    edit(folder, lambda r: r.update(evaluator=0))
    edit(folder, lambda r: r["metrics"]["mAP@all"].update(lowest=0.5))
    checked = check(folder)
    assert checked.problems == []
    assert checked.notes[0] == "measured by evaluator 0; installed is evaluator 1"
    assert checked.notes[1].startswith("metrics.mAP@all.lowest is recorded as 0.5; the codes give ")


def test_what_is_missing_is_named(cli: Cli, results: Path) -> None:
    folder = next(results.glob("shapes@default/spq/*/*"))
    for name in ("codes.npz", "log.jsonl"):
        (folder / name).unlink()
    notes = ["not there: codes.npz, log.jsonl", "its figures are not checked, since there are no codes"]
    assert (check(folder).problems, check(folder).notes) == ([], notes)
    (folder / "curves.csv").unlink()
    assert check(folder).problems == ["curves.csv is missing"]
    (folder / "record.json").unlink()
    done = cli("results", "verify", "--json")
    assert done.code == 1
    (row,) = [row for row in json.loads(done.out) if not row["passed"]]
    assert "record.json cannot be read" in row["problems"][0]


def test_verify_is_asked_for_what_is_there(cli: Cli, results: Path) -> None:
    none = cli("results", "verify", "--dataset", "digits")
    assert (none.code, none.err.count("\n")) == (2, 1)
    both = cli("results", "verify", "spq", "--method", "spq")
    assert (both.code, "not both" in both.err) == (2, True)


# export and import


def test_an_archive_brings_equal_bytes_to_another_place(cli: Cli, results: Path, tmp_path: Path) -> None:
    made = cli("results", "export", "out/a.tar.gz")
    assert (made.code, made.out) == (0, "out/a.tar.gz: 4 new, 0 there before\n"), made.err
    assert cli("results", "export", "out/b.tar.gz").code == 0
    assert (tmp_path / "out/a.tar.gz").read_bytes() == (tmp_path / "out/b.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "out/a.tar.gz") as tar:
        members = tar.getmembers()
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert {member.mtime for member in members} == {1767225600, 1767225660}  # when the runs ended

    taken = cli("results", "import", "out/a.tar.gz", "--results", "new")
    assert (taken.code, taken.out) == (0, "new: 4 new, 0 there before\n"), taken.err
    assert tree(tmp_path / "new") == tree(results)
    assert cli("results", "verify", "--results", "new").code == 0
    taken = cli("results", "import", "out/a.tar.gz", "--results", "new")
    assert (taken.code, taken.out) == (0, "new: 0 new, 4 there before\n")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["shapes@default"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tar.gz", "b.tar.gz"]


def test_a_folder_is_exported_and_imported(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("results", "export", "out", "--method", "spq").out == "out: 1 new, 0 there before\n"
    assert cli("results", "export", "out").out == "out: 3 new, 1 there before\n"
    assert tree(tmp_path / "out") == tree(results)
    (tmp_path / "out/shapes@default/spq/16bit/.spq-shapes-16bit-seed1-0.1").mkdir()
    assert cli("results", "import", "out", "--results", "new").out == "new: 4 new, 0 there before\n"
    assert tree(tmp_path / "new") == tree(results)


def test_parts_are_left_out(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("results", "export", "out.tar.gz", "--without", "codes,log").code == 0
    assert cli("results", "import", "out.tar.gz", "--results", "new").code == 0
    names = {path.name for path in (tmp_path / "new").rglob("*.*") if path.is_file()}
    assert names == {"record.json", "curves.csv", "queries.npz"}
    done = cli("results", "verify", "--results", "new")
    assert (done.code, done.out.count("not there: codes.npz, log.jsonl")) == (0, 4)
    assert done.out.count("its figures are not checked, since there are no codes") == 4
    wrong = cli("results", "export", "other", "--without", "code")
    assert (wrong.code, "did you mean 'codes'?" in wrong.err) == (2, True)


def test_what_is_there_is_never_replaced(cli: Cli, results: Path, tmp_path: Path) -> None:
    assert cli("results", "export", "out.tar.gz").code == 0
    assert cli("results", "export", "out").code == 0
    again = cli("results", "export", "out.tar.gz")
    assert (again.code, "out.tar.gz is there already" in again.err) == (2, True)
    folder = next((tmp_path / "out").glob("shapes@default/wch/*/*seed1*"))
    edit(folder, lambda record: record["timing"].update(train=1))
    shutil.rmtree(tmp_path / "out/shapes@default/spq")
    before = tree(tmp_path / "out")
    for command in (["export", "out"], ["import", "out.tar.gz", "--results", "out"]):
        refused = cli("results", *command)
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert f"{folder.relative_to(tmp_path)} is another run of the same id" in refused.err
        assert tree(tmp_path / "out") == before  # not even the run that is missing there


def test_other_kinds_of_archives_are_refused(cli: Cli, results: Path, tmp_path: Path) -> None:
    for name in ("out.zip", "out.tgz"):
        assert "ends in .tar.gz" in cli("results", "export", name).err
    (tmp_path / "notes.txt").write_text("no archive")
    for name in ("notes.txt", "gone.tar.gz"):
        refused = cli("results", "import", name, "--results", "new")
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert f"{name} cannot be unpacked" in refused.err
    assert cli("results", "export", "notes.txt").code == 1


def test_a_run_that_is_not_sound_is_not_exported(cli: Cli, results: Path, tmp_path: Path) -> None:
    flip(next(results.glob("shapes@default/spq/*/*/curves.csv")))
    for name in ("out", "out.tar.gz"):
        refused = cli("results", "export", name)
        assert (refused.code, "curves.csv has changed since" in refused.err) == (1, True)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_archive_is_refused(cli: Cli, results: Path, tmp_path: Path, keep: float) -> None:
    archive = tmp_path / "a.tar.gz"
    assert cli("results", "export", archive).code == 0
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content))])
    refused = cli("results", "import", archive, "--results", "new")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "if it is damaged, get it again" in refused.err
    assert [*(tmp_path / "new").iterdir()] == []


def test_a_tar_that_ends_early_is_refused(cli: Cli, results: Path, tmp_path: Path) -> None:
    """Packed again after it lost its end, so that gzip notices nothing."""
    archive = tmp_path / "a.tar.gz"
    assert cli("results", "export", archive).code == 0
    content = gzip.decompress(archive.read_bytes())
    for length in (len(content) // 2, len(content) // 2 // 512 * 512, 100, 0):
        archive.write_bytes(gzip.compress(content[:length]))
        refused = cli("results", "import", archive, "--results", "new")
        assert (refused.code, refused.err.count("\n")) == (1, 1), length
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
def test_an_archive_that_holds_anything_else_is_refused(
    cli: Cli, results: Path, tmp_path: Path, name: str, member: bytes | tarfile.TarInfo
) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", {**tree(results), name: member})
    before = tree(tmp_path)
    refused = cli("results", "import", archive, "--results", "new")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"{name!r}, which is no file of a run" in refused.err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: flip(folder / "codes.npz"), "codes.npz has changed since it was recorded"),
        (lambda folder: (folder / "record.json").write_text("{"), "record.json is not a record"),
        (lambda folder: (folder / "record.json").unlink(), "record.json cannot be read"),
        (lambda folder: (folder / "queries.npz").unlink(), "queries.npz is missing"),
        (lambda folder: edit(folder, lambda r: r.update(run_id="../../../x")), "by its record it belongs in"),
    ],
)
def test_nothing_is_imported_if_one_run_is_not_sound(
    cli: Cli, results: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    change(next(results.glob("shapes@default/wch/*/*seed1*")))
    for source in (results, write_archive(tmp_path / "a.tar.gz", tree(results))):
        refused = cli("results", "import", source, "--results", "new")
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert refused.err.startswith(f"hashbench: error: {source}: nothing is imported")
        assert message in refused.err
        assert ".import." not in refused.err
        assert tree(tmp_path / "new") == {}


def test_nothing_to_import_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", write_archive(tmp_path / "a.tar.gz", {})):
        refused = cli("results", "import", source, "--results", "new")
        assert (refused.code, "holds no runs" in refused.err) == (1, True)


def test_a_full_disk_leaves_whole_runs_only(
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
    assert (failed.code, "No space left on device" in failed.err) == (1, True)
    assert len(tree(tmp_path / "out")) == 5
    assert cli("results", "--results", "out").out.count("shapes") == 1
    monkeypatch.undo()
    assert cli("results", "import", results, "--results", tmp_path / "out").code == 0
    assert tree(tmp_path / "out") == tree(results)


# records of older versions


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_records_of_every_version_are_read(cli: Cli, version: str) -> None:
    (path,) = (OLD / version).glob("*/*/*/*/record.json")
    stored = json.loads(path.read_text())
    assert f"v{stored['schema_version']}" == version
    record = read_record(path.parent)
    assert record.model_dump(mode="json")["metrics"] == stored["metrics"]
    assert record.created.isoformat()[:26] == stored["created"][:26]

    listed = cli("results", "--results", OLD / version)
    metric = f"{stored['metrics']['mAP@all']['expected']:.4f}"
    for text in (stored["method"], metric, stored["run_id"].rpartition("-")[2]):
        assert text in listed.out.splitlines()[1]
    shown = cli("results", "show", stored["run_id"], "--results", OLD / version)
    assert metric in shown.out
    assert f"  sha256    {stored['split']['sha256']}" in shown.out
    done = cli("results", "verify", "--results", OLD / version, "--json")
    assert done.code == 0, done.out
    (row,) = json.loads(done.out)
    notes = {
        "v1": "the hashes of its files are not recorded",
        "v2": "not there: log.jsonl, model.safetensors",
    }
    assert row["notes"] == [notes[version]]


def test_codes_of_the_first_version_are_checked_by_the_metrics(tmp_path: Path) -> None:
    shutil.copytree(OLD / "v1", tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("*/*/*/*/codes.npz")
    with np.load(path) as file:
        arrays = dict(file)
    arrays["query_labels"][0] += 1
    np.savez_compressed(path, **arrays)
    problems = check(path.parent).problems
    assert problems[0].startswith("metrics.mAP@1000.expected is recorded as 0.7690421749686902; the codes ")
