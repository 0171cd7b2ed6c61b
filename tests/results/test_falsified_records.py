"""Falsified records: which changes verification detects, with and without codes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.toy_plugin import run_toy, toy_plugin

from hashbench import HashbenchError, read_record, registry
from hashbench.experiment.verify import verify_all
from hashbench.results.record import CODES, checksum, run_id_of, run_identity
from hashbench.results.stored_run import StoredRun
from hashbench.results.verify import Checked
from hashbench.runtime.environment import describe, library_versions, recorded_versions

REFERENCE = Path(__file__).parents[1] / "golden" / "records_v2"
Leaf = tuple[Any, ...]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a real run on an unpublished split, whose epoch was selected on validation images."""
    folder = tmp_path_factory.mktemp("falsified")
    with toy_plugin(folder):
        yield run_toy(folder / "runs", "short", "epochs=2", "selection=best-val", "lr=0.01").folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of that run."""
    return Path(shutil.copytree(finished, tmp_path / Path(*finished.parts[-4:])))


def content_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return content


def leaves(value: Any, path: Leaf = ()) -> Iterator[Leaf]:
    """Yield the path of every value that is not a list or an object."""
    if not isinstance(value, dict | list) or not value:
        yield path
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(part, (*path, key))


def altered(value: Any) -> Any:
    """Return another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + (1 if isinstance(value, int) else 0.25)
        case str() if re.fullmatch(r"\d{4}-.*Z", value):
            return "2020-01-01T00:00:00Z"
        case str():
            return f"{value}x"
        case None:
            return 1
        case dict():
            return {"x": 1}
        case _:
            return ["x"]


def with_altered(content: Any, path: Leaf) -> Any:
    """Return a copy of a record with one altered leaf."""
    if not path:
        return altered(content)
    part = content.copy()
    part[path[0]] = with_altered(part[path[0]], path[1:])
    return part


def alterations(folder: Path, *, sealed: bool) -> Iterator[tuple[str, StoredRun | None]]:
    """Alter each leaf of a record in turn, and its checksum accordingly if it is to be sealed.

    Yields:
        The path of the leaf and the run, or None if the altered record cannot be read.
    """
    original = content_of(folder)
    for path in leaves(original):
        content = with_altered(original, path)
        if sealed and path != ("sha256",):
            content["sha256"] = checksum(content)
        (folder / "record.json").write_text(json.dumps(content))
        name = ".".join(map(str, path))
        try:
            yield name, StoredRun(read_record(folder), folder)
        except HashbenchError:
            yield name, None


def statuses(folder: Path, *, sealed: bool) -> dict[str, str]:
    """Return the status for each altered leaf, which is "failed" if the record is invalid."""
    found = dict.fromkeys((".".join(map(str, path)) for path in leaves(content_of(folder))), "failed")
    names: list[str] = []

    def readable() -> Iterator[StoredRun]:
        for name, run in alterations(folder, sealed=sealed):
            if run is not None:
                names.append(name)
                yield run

    for check in verify_all(readable()):
        found[names[-1]] = check.status
    return found


def check(folder: Path) -> Checked:
    return next(verify_all([StoredRun(read_record(folder), folder)]))


def falsify(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a record, its run id and its checksum; return its folder."""
    content = content_of(folder)
    change(content)
    environment, split = content["environment"], content["split"]
    identity = run_identity(
        content["config"],
        split["sha256"],
        split["validation"],
        environment["source"],
        recorded_versions(environment),
    )
    content["run_id"] = run_id_of(identity)
    (folder / "record.json").write_text(json.dumps({**content, "sha256": checksum(content)}))
    return folder.rename(folder.with_name(content["run_id"]))


def test_a_run_passes_as_it_was_written(run: Path) -> None:
    record = read_record(run)
    assert (record.changes or {}).keys() == {"training.epochs", "optimizer.lr", "selection.name"}
    assert None not in (record.published_protocol, record.selected, record.split.validation)
    found = check(run)
    assert (found.status, found.problems, found.notes) == ("passed", [], [])


def test_every_altered_leaf_is_found(run: Path) -> None:
    found = statuses(run, sealed=False)
    assert len(found) > 160
    assert {name for name, status in found.items() if status != "failed"} == set()


# What nothing but the checksum covers: time, machine, options of the draw (the split stands for them), and
# what is said of training beside its settings.
ONLY_SEALED = (
    "created", "recipe", "resumed", r"selected\.\w+", r"timing\.\w+", r"split\.warnings\.0",
    r"environment\.(python|platform|processor|threads|plugin_files)",
    r"config\.data\.(seed|unlabelled|leaks|fraction)",
)  # fmt: skip


def test_whoever_alters_the_checksum_too_is_found_by_what_is_computed_again(run: Path) -> None:
    found = statuses(run, sealed=True)
    passed = {name for name, status in found.items() if status != "failed"}
    assert passed == {name for name in found if any(re.fullmatch(kind, name) for kind in ONLY_SEALED)}


# What is not found in a record without checksum whose codes are not there, either.
NOT_IN_VERSION_2 = (
    "created", "evaluator", r"timing\.\w+", r"environment\.(python|platform|processor|threads)",
    r"config\.data\.(seed|unlabelled|leaks)", r"split\.(train|database|overlaps\.\w+|warnings)",
    "components.*", "queries_without_relevant", r"health\..*",
    r"metrics\.(P|R)@.*", r"metrics\.mAP@.*\.(lowest|highest)",
    r"files\.(codes\.npz|log\.jsonl|model\.safetensors)",
)  # fmt: skip


@pytest.mark.parametrize("method", ["wch", "spq"])
def test_what_is_found_in_records_of_version_2(tmp_path: Path, method: str) -> None:
    source = next(REFERENCE.glob(f"digits@default/{method}/32bit/*seed0*"))
    folder = Path(shutil.copytree(source, tmp_path / Path(*source.parts[-4:])))
    found = statuses(folder, sealed=False)
    passed = {name for name, status in found.items() if status != "failed"}
    assert passed <= {name for name in found if any(re.fullmatch(kind, name) for kind in NOT_IN_VERSION_2)}
    assert {found[name] for name in passed} == {"not verified"}


def claim(content: dict[str, Any]) -> None:
    for metric in content["metrics"].values():
        metric.update(expected=0.99, lowest=0.99, highest=0.99)
    content["evaluator"] = 99


def hide_a_setting(content: dict[str, Any]) -> None:
    del content["changes"]["training.epochs"]


def set_epochs(content: dict[str, Any]) -> None:
    content["config"]["training"]["epochs"] = 50
    content["changes"] = {}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (claim, "measured by evaluator 99; evaluator 1 is installed; update hashbench"),
        (claim, "metrics.mAP@all.expected is recorded as 0.99; the codes give "),
        (hide_a_setting, "changes is recorded as {'optimizer.lr': 0.01, 'selection.name': 'best-val'}; the "),
        (set_epochs, "changes is recorded as {}; the recipe gives {'optimizer.lr': 0.01, 'training.ep"),
        (lambda c: c["components"].clear(), "components is recorded as {}; the recipe gives {'small batch':"),
        (lambda c: c.update(published_protocol=None), "published_protocol is recorded as None; the recipe "),
        (lambda c: c["split"].update(sha256="0" * 64), f"split.sha256 is recorded as {'0' * 64}; codes.npz "),
        (lambda c: c["split"].update(train=23), "split.train is recorded as 23; codes.npz gives 24"),
        (lambda c: c["split"]["overlaps"].update(query_train=1), "split.overlaps is recorded as {'query_"),
        (lambda c: c["changes"].update({"images.size": 9}), "images.size is 9 in its changes and 16 in its"),
    ],
)  # fmt: skip
def test_a_falsified_record_is_found_though_run_id_and_checksum_fit(
    run: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    found = check(falsify(run, change))
    assert found.status == "failed"
    assert any(one.startswith(problem) for one in found.problems), found.problems


@pytest.mark.parametrize("edited", ["recipe", "source"])
def test_the_recipe_is_asked_only_if_it_is_that_of_the_run(
    run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    """An edited recipe does not determine the changes of a run, but the checksum is still checked."""
    path = finished.parents[4] / "toy.yaml"
    original = path.read_text()
    if edited == "recipe":
        path.write_text(original.replace("epochs: 4", "epochs: 5"))
    else:
        monkeypatch.setattr(registry, "source_digest", lambda *_: "another")
    try:
        found = check(run)
    finally:
        path.write_text(original)
    note = (
        "changes and components are not recomputed: the recipe or the source code has changed since the run"
    )
    assert (found.status, found.notes) == ("passed", [note])


def test_status_words_and_exit_codes(
    cli: Callable[..., Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    results = ["--results", tmp_path]
    done = cli("results", "verify", *results)
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 passed, 0 failed")
    codes = (run / CODES).read_bytes()
    (run / CODES).unlink()
    done = cli("results", "verify", *results)
    assert (done.code, done.out.splitlines()[-1]) == (0, "0 passed, 1 not verified, 0 failed")
    (row,) = json.loads(cli("results", "verify", *results, "--json").out)
    assert (row["status"], row["passed"], row["problems"]) == ("not verified", False, [])
    taken = cli("results", "import", tmp_path, "--results", "new")
    assert (taken.code, taken.out) == (0, "new: 1 new, 0 already there\n")
    said = "hashbench: 1 of them are not verified; `hashbench results verify` shows why"
    assert taken.err.splitlines()[-1] == said
    (run / CODES).write_bytes(codes)
    content = content_of(run)
    content["timing"]["train"] = 1.5
    (run / "record.json").write_text(json.dumps(content))
    done = cli("results", "verify", *results)
    assert (done.code, done.out.splitlines()[-1]) == (1, "0 passed, 1 failed")
    refused = cli("results", "import", tmp_path, "--results", "other")
    said = f"{run.name}: record.json has changed since it was written: its SHA-256 differs"
    assert (refused.code, said in refused.err) == (1, True)
    assert cli("results", "export", "out", *results).code == 1


def test_versions_and_machine_are_told_apart() -> None:
    """A new key of the machine that is mistaken for a library would change the run ids of records."""
    assert (
        recorded_versions({**describe("cpu"), "source": "0", "threads_before_stop": [1]})
        == library_versions()
    )


def test_a_run_id_without_validation_images_is_not_verified_in_version_3(run: Path) -> None:
    def older(content: Mapping[str, Any]) -> dict[str, Any]:
        later = {"recipe", "published_protocol", "sha256", "foreign", "name"}
        split = {key: value for key, value in content["split"].items() if key != "validation"}
        kept = {key: value for key, value in content.items() if key not in later}
        return {**kept, "schema_version": 3, "split": split}

    (run / "record.json").write_text(json.dumps(older(content_of(run))))
    found = check(run)
    assert (found.status, found.problems) == ("not verified", [])
    assert found.notes == [
        "records of version 3 have no checksum, so changes that affect neither the files nor the run id "
        "cannot be detected",
        "its run id is not verified: records of version 3 do not contain the fingerprint of the "
        "validation images",
    ]
