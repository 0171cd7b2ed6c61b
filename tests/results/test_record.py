"""Records are validated when they are read."""

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from helpers.configs import run_config

from hashbench import HashbenchError, Record, UsageError, read_record
from hashbench.data.protocol import Overlaps
from hashbench.evaluation import CodeHealth
from hashbench.results.record import Metric, SplitRecord, Timing, checksum, run_folder, write_record

RECORD = Record(
    run_id="wch-x",
    method="wch",
    dataset="digits",
    protocol="default",
    bits=16,
    seed=0,
    config=run_config(dataset="digits", protocol="default", bits=16).model_dump(mode="json"),
    split=SplitRecord(
        query=1, train=2, database=3, sha256="00", warnings=("one",),
        overlaps=Overlaps(query_database=0, query_train=0, train_database=2),
    ),
    metrics={"mAP@all": Metric(expected=0.5, lowest=0.4, highest=0.6)},
    queries_without_relevant=0,
    health=CodeHealth(
        unique_code_ratio=1, dead_bits=0, bit_balance=0, mean_bit_correlation=0, largest_tie_block_mean=0.1,
        largest_tie_block_max=0.1, chance_map={"mAP@all": 0.1}, collapsed=False, reasons=(),
    ),
    timing=Timing(train=1, encode=1, evaluate=1),
    environment={"torch": "2"},
    created=datetime(2026, 1, 1, tzinfo=timezone.utc),
    evaluator=1, changes={}, components={}, files={},
)  # fmt: skip


def test_a_record_reads_back_as_written(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path)
    content = json.loads((tmp_path / "record.json").read_text())
    assert read_record(tmp_path) == RECORD.model_copy(update={"sha256": checksum(content)})
    assert read_record(str(tmp_path)) == read_record(tmp_path)
    for path in (None, 5, b"folder", "a\0b", "a" * 5000):
        with pytest.raises(UsageError, match="folder: expected a"):
            read_record(path)  # type: ignore[arg-type]
    assert content["schema_version"] == 7
    assert list(content)[-1] == "sha256"


def test_a_checksum_is_that_of_the_other_keys() -> None:
    assert checksum({"b": [1, 0.5], "a": "é", "sha256": "old"}) == (
        hashlib.sha256(b'{"a":"\\u00e9","b":[1,0.5]}').hexdigest()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not a record"),
        ("{}", "is not a record .*Field required"),
        ("[]", "is not a record"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "record.json").write_text(text)
    with pytest.raises(HashbenchError, match=rf"record\.json {message}"):
        read_record(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path)
    changed = json.loads((tmp_path / "record.json").read_text()) | {"schema_version": 8}
    (tmp_path / "record.json").write_text(json.dumps(changed))
    with pytest.raises(HashbenchError, match="schema_version"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("version", "without", "message"),
    [
        (4, ["sha256", "foreign"], "records of version 4 have sha256, which is missing"),
        (5, ["foreign"], "records of version 5 have foreign, which is missing"),
        (4, [], "records of version 4 have no foreign"),
        (3, [], "records of version 3 have no recipe"),
        (2, ["recipe", "published_protocol", "sha256"], "records of version 2 have no resumed"),
        (1, ["recipe", "published_protocol", "sha256", "resumed", "selected"],
         "records of version 1 have no evaluator"),
        (3, ["recipe", "published_protocol", "sha256", "selected"],
         "records of version 3 have selected, which is missing"),
    ],
)  # fmt: skip
def test_a_record_has_the_keys_of_its_version(
    tmp_path: Path, version: int, without: list[str], message: str
) -> None:
    write_record(RECORD, tmp_path)
    content = json.loads((tmp_path / "record.json").read_text()) | {"schema_version": version}
    content = {key: value for key, value in content.items() if key not in without}
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(HashbenchError, match=message):
        read_record(tmp_path)


def test_a_record_of_version_5_names_no_part_of_the_recipe(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path)
    content = json.loads((tmp_path / "record.json").read_text()) | {"schema_version": 5}
    del content["config"]["recipe"]
    (tmp_path / "record.json").write_text(json.dumps(content))
    assert read_record(tmp_path).config["recipe"] is None


def test_a_record_of_version_6_encodes_in_float32(tmp_path: Path) -> None:
    write_record(RECORD, tmp_path)
    content = json.loads((tmp_path / "record.json").read_text()) | {"schema_version": 6}
    del content["config"]["evaluation"]["precision_encode"]
    del content["config"]["training"]["max_images"]
    (tmp_path / "record.json").write_text(json.dumps(content))
    config = read_record(tmp_path).config
    assert (config["evaluation"]["precision_encode"], config["training"]["max_images"]) == ("float32", None)


def test_the_place_of_a_record(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "digits", "default", "wch", 16, "id")
    assert folder == tmp_path / "digits@default" / "wch" / "16bit" / "id"
