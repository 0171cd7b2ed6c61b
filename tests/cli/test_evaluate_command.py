"""Tests of `hashbench evaluate` on the files of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

import hashbench
from hashbench.evaluation.files import load_arguments
from hashbench.evaluation.presets import published

Cli = Callable[..., Any]

RANDOM = np.random.RandomState(0)
CODES = RANDOM.choice(np.array([-1, 1], np.int8), (30, 16))
IDS = RANDOM.randint(0, 3, 30)
ARRAYS: dict[str, Any] = {
    "query_codes": CODES[:5],
    "database_codes": CODES,
    "query_labels": IDS[:5],
    "database_labels": IDS,
}
KEYS = ("qB", "rB", "qL", "rL")


def figures(out: str) -> Any:
    return json.loads(out)


def test_files_of_other_programs(cli: Cli) -> None:
    scipy.io.savemat("codes.mat", dict(zip(KEYS, ARRAYS.values(), strict=True)))
    expected = hashbench.evaluate(**ARRAYS).to_dict()
    assert figures(cli("evaluate", "codes.mat", "--json").out) == expected
    tensors = {"B_test": torch.as_tensor(CODES[:5]), "qL": torch.as_tensor(IDS[:5])}
    torch.save(tensors, "queries.pt")
    np.savetxt("labels.csv", IDS, "%d")
    np.save("codes.npy", CODES)
    files = "--array", "database_labels=labels.csv", "--array", "database_codes=codes.npy"
    done = cli("evaluate", "queries.pt", "--key", "query_codes=B_test", *files, "--json")
    assert figures(done.out) == expected
    refused = cli("evaluate", "queries.pt", *files)
    assert (refused.code, refused.err.count("\n"), ".npz" in refused.err) == (2, 1, False)
    assert "queries.pt lacks query_codes; it contains B_test, qL; name an array by --key" in refused.err
    np.save("q.npy", CODES[:5])
    np.save("ql.npy", IDS[:5])
    files += "--array", "query_labels=ql.npy", "--array", "query_codes=q.npy"
    assert figures(cli("evaluate", *files, "--json").out) == expected


def test_several_files_make_one_table(cli: Cli) -> None:
    np.savez("a.npz", **ARRAYS)
    np.savez("b.npz", **ARRAYS | {"query_codes": -CODES[:5], "database_codes": CODES[:20],
                                  "database_labels": IDS[:20]})  # fmt: skip
    a, b = (hashbench.evaluate(**load_arguments(path)) for path in ("a.npz", "b.npz"))
    shown = figures(cli("evaluate", "a.npz", "b.npz", "--json").out)
    assert shown == [{"file": "a.npz", **a.to_dict()}, {"file": "b.npz", **b.to_dict()}]
    heads, _, *rows = cli("evaluate", "a.npz", "b.npz", "--k", "10", "--preset", "paper:wch").out.splitlines()
    assert heads.split()[:3] == ["file", "bits", "queries"]
    for row, path, evaluated, database in zip(rows, ("a.npz", "b.npz"), (a, b), ("30", "20"), strict=False):
        assert row.split()[:6] == [
            path, "16", "5", "0", database, f"{evaluated.mean_average_precision(10):.4f}"
        ]  # fmt: skip
    assert rows[2].startswith("expectations over all orders")
    figure = published(*ARRAYS.values(), "paper:wch", k=10)
    assert rows[3].startswith(f"a.npz: paper:wch: the script of the paper reports mAP@10 {figure:.4f}")
    np.savez("b.npz", **ARRAYS | {"query_codes": CODES[:5] * 0.5})
    refused = cli("evaluate", "a.npz", "b.npz")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "b.npz: query_codes: expected values of ±1" in refused.err


def test_folders_of_four_files(cli: Cli) -> None:
    for name in ("first", "second"):
        Path(name).mkdir()
        endings = ("tst_binary", "trn_binary", "tst_label", "trn_label")
        for ending, array in zip(endings, ARRAYS.values(), strict=True):
            np.save(f"{name}/cifar-{ending}.npy", array)
    expected = hashbench.evaluate(**ARRAYS).to_dict()
    shown = figures(cli("evaluate", "first", "second/cifar-tst_binary.npy", "--json").out)
    assert shown == [{"file": file, **expected} for file in ("first", "second/cifar-tst_binary.npy")]


def test_queries_of_another_program_with_shards(cli: Cli) -> None:
    Path("shards").mkdir()
    np.save("shards/a.codes.npy", CODES)
    np.save("shards/a.labels.npy", IDS)
    scipy.io.savemat("queries.mat", {"qB": CODES[:5], "qL": IDS[:5]})
    shown = figures(cli("evaluate", "queries.mat", "--database", "shards", "--json").out)
    assert shown == hashbench.evaluate(**ARRAYS).to_dict()


def test_metrics_of_neighbouring_fields(cli: Cli) -> None:
    ids = {"query_ids": np.arange(5).astype(str), "database_ids": np.arange(30).astype(str)}
    neighbours = np.array([RANDOM.permutation(30)[:4] for _ in range(5)])
    np.savez("run.npz", **ARRAYS, **ids, near=neighbours)
    options = "--k", "R,10", "--denominator", "all_relevant", "--exclude-self"
    done = cli("evaluate", "run.npz", *options, "--per-class", "--json")
    expected = hashbench.evaluate(**ARRAYS, **ids, exclude_self=True, k=("R", 10), denominator="all_relevant")
    shown = figures(done.out)
    table = expected.per_class("R").rename(index=str).to_dict(orient="index")
    assert shown.pop("per_class") == {"mAP@R": table}
    assert shown["settings"].pop("exclude_self") is True
    assert shown == expected.to_dict()
    text = cli("evaluate", "run.npz", *options, "--per-class").out
    assert "each query is left out of the database" in text
    assert f"{table['macro']['expected']:.4f}" in text[text.index("macro") :]
    done = cli("evaluate", "run.npz", "--neighbours", "--key", "neighbours=near", "--json")
    codes = ARRAYS["query_codes"], ARRAYS["database_codes"]
    shown = figures(done.out)
    assert shown["settings"].pop("relevance") == "neighbours"
    assert shown == hashbench.evaluate(*codes, neighbours=neighbours).to_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.npz", "--exclude-self"), "a.npz lacks query_ids, database_ids; it contains query_codes, "),
        (("a.npz", "--neighbours"), "a.npz lacks neighbours; it contains query_codes, "),
        (("a.npz", "--neighbours", "--database", "."), "leave out --database"),
        (("a.npz", "--exclude-self", "--preset", "paper:wch"), "leave out --database, "),
        ((), "expected files of codes, got none; pass CODES, or --array NAME=FILE for each array"),
        (("a.npy",), "a.npy contains a single array; pass it with --array query_codes=a.npy"),
        (("a.npz", "--key", "codes"), "--key: expected KEY=VALUE, got 'codes'"),
        (("a.npz", "--key", "query=a"), "unknown array 'query'; did you mean 'query_"),
        (("a.npz", "--key", "query_ids=a"), "unknown array 'query_ids'"),
        (("a.npz", "--array", "query_codes=absent.npy"), "absent.npy cannot be read"),
    ],
)
def test_wrong_use_is_one_line(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    np.save("a.npy", CODES)
    np.savez("a.npz", **ARRAYS)
    refused = cli("evaluate", *arguments)
    assert refused.code in (1, 2)
    assert message in refused.err
    assert (refused.err.count("\n"), "Traceback" in refused.err) == (1, False)
