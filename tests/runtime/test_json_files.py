"""Valid JSON is read, and everything else is a ValueError of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hashbench.runtime.json_files import MAX_DIGITS, parse_json, read_json


def test_values_are_read_as_they_are(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, 1e308, True, None, "é\U0001f600"], "b": {"c": 10**18}, "d": [[]]}
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        for content in (text.encode(), b"\xef\xbb\xbf" + text.encode()):
            (tmp_path / "a.json").write_bytes(content)
            assert parse_json(content) == read_json(tmp_path / "a.json") == value


def test_objects_are_exchanged_from_the_innermost() -> None:
    assert parse_json('{"a": {"b": 1}}', object_hook=lambda found: sorted(found)) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 41 + "1" + "]" * 41, "expected at most 40 levels of lists and objects, got more"),
        ('{"a":' * 41 + "1" + "}" * 41, "expected at most 40 levels of lists and objects, got more"),
        ("[" * 100_000, "expected at most 40 levels of lists and objects, got more"),
        ("9" * 5000, f"expected a number of at most {MAX_DIGITS} digits, got 5,000"),
        ('{"a": [-' + "9" * 20 + "]}", "got 21"),
        ("[NaN]", "expected finite numbers, got NaN"),
        ('{"a": -Infinity}', "expected finite numbers, got -Infinity"),
        ('{"a": [1e999]}', "expected finite numbers, got a number too large"),
        ("-1e999", "expected finite numbers, got a number too large"),
        (b'["\xff"]', "invalid start byte"),
        (r'{"a": "\ud800"}', "surrogates not allowed"),
        (r'{"\udfff": 1}', "surrogates not allowed"),
        ("", "Expecting value: line 1 column 1"),
        ('{"a": 1', "Expecting ',' delimiter"),
        ('"a\nb"', "Invalid control character"),
    ],
)
def test_other_content_is_a_value_error(content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(content)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_depth_counts_where_it_is_allowed() -> None:
    assert str(parse_json("[" * 40 + "]" * 40)) == "[" * 40 + "]" * 40


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1, 2]")
    assert read_json(tmp_path / "a.json", max_bytes=6) == [1, 2]
    with pytest.raises(ValueError, match="expected at most 5 bytes, got more"):
        read_json(tmp_path / "a.json", max_bytes=5)
