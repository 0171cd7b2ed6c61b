"""Valid YAML of users is read, and no YAML exhausts the parser."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_runs import make_run

from hashbench.results.query import RunFilter, matching
from hashbench.runtime.yaml_values import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0x10", 16),
        ("-1.5e-3", -0.0015),
        ("[10, all]", [10, "all"]),
        ("{a: &a {b: no}, c: *a, d: {<<: *a, e: ~}}", {"a": {"b": False}, "c": {"b": False},
                                                      "d": {"b": False, "e": None}}),
        ("2001-01-01", "2001-01-01"),
        ("2001-99-99", "2001-99-99"),
        ("=", "="),
        ("!!float 1", 1.0),
        ("", None),
    ],
)  # fmt: skip
def test_values(text: str, value: object) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


LAUGHS = "a: &l0 [1, 1]\n" + "".join(f"k{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 9))
MERGES = "a: &m0 {x: 1}\n" + "".join(f"k{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9" * 5000, "expected a number of at most 20 digits, got 5,000"),
        ("0x" + "f" * 4000, "expected a number of at most 20 digits, got 4,002"),
        ("1:" * 3000 + "1", "expected a number of at most 20 digits"),
        ("!!int x", "invalid literal for int"),
        ("!!int ''", "a value does not fit its tag"),
        ("!!bool x", "a value does not fit its tag"),
        ("!!timestamp x", "could not determine a constructor"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (".inf", "expected a finite number"),
        (".nan", "expected a finite number"),
        ("[" * 2000, "expected at most 40 levels"),
        ("{" * 2000, "expected at most 40 levels"),
        ("- " * 2000, "expected at most 40 levels"),
        ("&a [*a]", "expected at most 40 levels"),
        (LAUGHS, "expected at most 100,000 values"),
        (MERGES, "expected at most"),
        ("a" * 100_001, "expected at most 100,000 characters"),
        ("{a: 1, b: 2, a: 3}", "the key 'a' is given twice"),
        ("a: 1\nb: {c: 1, c: 1}", "the key 'c' is given twice"),
        ("\x1b", "it contains a control character"),
        ("\udc80", "it contains a control character"),
        ("[1", "expected ',' or ']', but got '<stream end>' in line 1, column 3"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match="^" + message.replace("]", r"\]")) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("option", ["--set", "--data"])
@pytest.mark.parametrize("value", ["9" * 5000, "!!int x", "&a [*a]", "[" * 2000, "\x1b[2J"])
def test_a_value_of_an_option_is_refused_in_one_line(
    cli: Callable[..., Any], option: str, value: str
) -> None:
    done = cli("run", "--method", "wch", "--dataset", "digits", option, f"seed={value}")
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith(f"hashbench: error: {option} seed: ")
    assert len(line) < 400
    assert line.isprintable()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", "9" * 5000], "--bits: expected integers from 1"),
        (["--seed", "9" * 5000], "--seed: expected integers from 0"),
        (["--bits", "100000000000"], "bits=100000000000: input should be less than or equal to 65536"),
        (["--set", "lr=1e999"], "optimizer.lr='1e999': input should be a finite number"),
        (["--set", "lr=2001-99-99"], "optimizer.lr='2001-99-99': input should be a valid number"),
        (
            ["--data", "name=cifar10"],
            "unknown option of digits 'name'; known: fraction, leaks, packed",
        ),
        (["--data", "root=data"], "--data root: use the flag --data-root"),
    ],
)
def test_numbers_out_of_range_and_keys_with_flags(
    cli: Callable[..., Any], arguments: list[str], message: str
) -> None:
    done = cli("run", "--method", "wch", "--dataset", "digits", *arguments)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith(f"hashbench: error: {message}")


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        ("wch", "lr=1e300"),
        ("wch", "images.resize=100000000000"),
        ("wch", "views.affine.degrees=1e300"),
        ("spq", f"dim={2**63 - 1}"),
    ],
)
def test_numbers_too_large_for_the_network_or_the_images(
    cli: Callable[..., Any], method: str, setting: str
) -> None:
    small = ["--set=backbone=test_resnet", "--set=pretrained=false", "--set=images.size=16", "--set=epochs=1"]
    done = cli("run", "--method", method, "--dataset", "digits", *small, "--set", setting, "--workers", "0")
    assert done.code == 1
    assert "a setting is too large" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 2000, "2001-99-99", "&a [*a]"])
def test_a_text_that_is_no_yaml_can_be_looked_for(tmp_path: Path, value: str) -> None:
    run = make_run(tmp_path)
    assert matching([run], RunFilter(where={"created": value})) == []
