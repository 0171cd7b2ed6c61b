"""The command `hashbench evaluate`: codes of any program, from one file or from shards."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hashbench.cli.options import AsJson, integers, names
from hashbench.cli.output import print_json, show
from hashbench.errors import UsageError


def evaluate(
    codes: Annotated[
        Path,
        typer.Argument(
            metavar="CODES.npz",
            # The backslash keeps rich from reading brackets as markup.
            help="Arrays query_codes and database_codes \\[n, bits], query_labels and database_labels "
            "\\[n, classes] or \\[n]; or the codes.npz of a run. Product codes: real query_codes, "
            "database_codes \\[n, books], codebooks \\[books, words, dim].",
        ),
    ],
    database: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the database in shards, which is read block by block."),
    ] = None,
    k: Annotated[
        str | None, typer.Option(help="Ranks, as in 1000,all (default: these, or the preset's).")
    ] = None,
    radius: Annotated[int, typer.Option(min=0, help="Hamming radius.")] = 2,
    denominator: Annotated[
        Literal["hits", "relevant"] | None, typer.Option(help="What AP@K divides by (default: hits).")
    ] = None,
    no_relevant: Annotated[
        Literal["zero", "skip"] | None,
        typer.Option(help="Queries with nothing relevant in the database (default: zero)."),
    ] = None,
    graded: Annotated[
        bool, typer.Option("--graded", help="Also NDCG and ACG, by the number of shared labels.")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="paper:METHOD",
            help="Also what the script of a paper says of these codes (wch, cibhash, …).",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Of the preset: its K and order depend on the dataset (default: cifar10)."),
    ] = None,
    order: Annotated[
        Literal["database", "shuffled"] | None,
        typer.Option(help="Of the preset: another order of the database than the script's."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the preset: seed of the shuffled order (default: 0).")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU if there is one.")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Evaluate the codes of any program, exactly.

    Codes have a value for each bit: ±1, {0, 1} or bool. Beside a number
    `bits` in CODES.npz, their length, they may be packed, eight bits in a
    uint8 or 64 in a uint64: bit i of a code is bit i % 8 of byte i // 8, as
    faiss packs them, and numpy.packbits with bitorder="little".

    A database larger than memory lies in the folder --database: for each
    shard NAME.codes.npy and NAME.labels.npy, all in one form, as numpy.save
    writes them. CODES.npz then needs query_codes and query_labels only.
    """
    if preset and (database or denominator or no_relevant):
        raise UsageError(
            "--preset ranks a database in memory, as its script does; leave out --database, --denominator "
            "and --no-relevant"
        )
    if not preset and (dataset, order, seed) != (None, None, None):
        raise UsageError("--dataset, --order and --seed are of a preset; add --preset paper:METHOD")
    settings: dict[str, Any] = {
        "k": _ranks(k or "1000,all"),
        "radius": radius,
        "denominator": denominator or "hits",
        "no_relevant": no_relevant or "zero",
        "graded": graded,
    }
    of = dataset or "cifar10"
    if preset:
        from hashbench import registry
        from hashbench.evaluation.presets import find_preset

        if dataset:
            registry.find("dataset", dataset)
        script = find_preset(preset)
        settings |= {**script.settings(of), "k": _ranks(k)} if k else script.settings(of)
        order = order or script.rules(of)[1]
        if seed is not None and order == "database":
            raise UsageError("--seed is of a shuffled database; add --order shuffled")
    settings["device"] = _resolve(device)

    from hashbench.evaluation import evaluate as evaluate_codes
    from hashbench.evaluation.files import load_codes, load_queries
    from hashbench.evaluation.presets import published
    from hashbench.evaluation.shards import evaluate_shards

    said: dict[str, float] = {}
    if database is None:
        loaded = load_codes(codes)
        evaluation = evaluate_codes(*loaded, **settings)
        for rank in settings["k"] if preset else ():
            figure = published(*loaded, str(preset), dataset=of, k=rank, order=order, seed=seed or 0)
            said[f"mAP@{rank}"] = figure
    else:
        query_codes, query_labels = load_queries(codes)
        evaluation = evaluate_shards(query_codes, database, query_labels, **settings)
    if as_json:
        print_json({**evaluation.to_dict(), "published": said} if preset else evaluation.to_dict())
        return
    from rich.table import Table

    table = Table("metric", "expected", "lowest", "highest")
    for name, metric in evaluation.to_dict()["metrics"].items():
        table.add_row(name, *(f"{metric[part]:.4f}" for part in ("expected", "lowest", "highest")))
    show(table)
    if unanswerable := evaluation.queries_without_relevant:
        counted = (
            "are left out"
            if settings["no_relevant"] == "skip"
            else "count 0; --no-relevant skip leaves them out"
        )
        show(f"{unanswerable:,} queries, to which nothing in the database is relevant, {counted}")
    for name, figure in said.items():
        place = f"shuffled, seed {seed or 0}" if order == "shuffled" else "in its order"
        show(f"{preset}: its script would say {name} {figure:.4f} (database {place})")


def _ranks(text: str) -> list[int | Literal["all"]]:
    return ["all" if name == "all" else integers("--k", name, least=1)[0] for name in names("--k", text)]


def _resolve(device: str) -> str:
    """The device that was asked for; torch, which takes seconds to import, is only asked about GPUs."""
    if device == "cpu" or (device == "auto" and not _nvidia_driver()):
        return "cpu"
    from hashbench.runtime.device import resolve_device

    return resolve_device(device)


def _nvidia_driver() -> bool:
    """Whether the library is there that comes with the driver of NVIDIA's GPUs."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
