"""The command `hashbench evaluate`, for codes of any program, in one file or in shards."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hashbench.cli.options import AsJson, Device, integers, names
from hashbench.cli.output import print_json, show
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.evaluation import Evaluation
    from hashbench.evaluation.presets import PresetRun

CodesFile = Annotated[
    Path,
    typer.Argument(
        metavar="CODES.npz",
        # The backslash keeps rich from reading brackets as markup.
        help="Arrays query_codes and database_codes \\[n, bits], query_labels and database_labels "
        "\\[n, classes] or \\[n]; or the codes.npz of a run. Product codes: real query_codes, "
        "database_codes \\[n, books], codebooks \\[books, words, dim].",
    ),
]
Shards = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of a database in shards, read block by block.")
]
Cutoffs = Annotated[
    str | None, typer.Option(help="Cutoffs, separated by commas (default: 1000,all, or the preset's).")
]
Denominator = Annotated[
    Literal["hits", "relevant"] | None, typer.Option(help="What AP@K divides by (default: hits).")
]
NoRelevant = Annotated[
    Literal["zero", "skip"] | None,
    typer.Option(help="How to score queries without relevant items; skip leaves them out (default: zero)."),
]
Graded = Annotated[
    bool, typer.Option("--graded", help="Also report NDCG and ACG, by the number of shared labels.")
]
PresetName = Annotated[
    str | None,
    typer.Option(
        metavar="paper:METHOD",
        help="Also report what the script of a paper computes from these codes, e.g. paper:wch.",
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(help="Dataset of the codes; sets the K and order of --preset (default: cifar10)."),
]
DatabaseOrder = Annotated[
    Literal["database", "shuffled"] | None,
    typer.Option(help="Order of the database for --preset (default: the script's)."),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Seed of the shuffled order for --preset (default: 0).")
]


def evaluate(
    codes: CodesFile,
    database: Shards = None,
    k: Cutoffs = None,
    radius: Annotated[int, typer.Option(min=0, help="Hamming radius.")] = 2,
    denominator: Denominator = None,
    no_relevant: NoRelevant = None,
    graded: Graded = False,
    preset: PresetName = None,
    dataset: DatasetName = None,
    order: DatabaseOrder = None,
    seed: Seed = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Evaluate the codes of any program, exactly.

    Codes have a value for each bit: ±1, {0, 1} or bool. They may also be
    packed, eight bits in a uint8 or 64 in a uint64, if CODES.npz has their
    length as the number `bits`: bit i of a code is bit i % 8 of byte i // 8,
    as in faiss and in numpy.packbits with bitorder="little".

    A database larger than memory is read from the folder --database, which
    has NAME.codes.npy and NAME.labels.npy for each shard, as numpy.save
    writes them, all in the same form. CODES.npz then needs query_codes and
    query_labels only.
    """
    if preset and (database or denominator or no_relevant):
        raise UsageError(
            "--preset ranks a database in memory by the rules of a script; leave out --database, "
            "--denominator and --no-relevant"
        )
    if not preset and (dataset, order, seed) != (None, None, None):
        raise UsageError("--dataset, --order and --seed need --preset; add --preset paper:METHOD")
    cutoffs = _cutoffs(k) if k else None
    settings: dict[str, Any] = {
        "k": cutoffs or [1000, "all"],
        "radius": radius,
        "denominator": denominator or "hits",
        "no_relevant": no_relevant or "zero",
        "graded": graded,
    }
    script = _preset_run(preset, dataset, cutoffs, order, seed) if preset else None
    if script:
        settings |= script.settings()
    settings["device"] = _resolve(device)

    from hashbench.evaluation import evaluate as evaluate_codes
    from hashbench.evaluation.files import load_codes, load_queries
    from hashbench.evaluation.shards import evaluate_shards

    published: dict[str, float] = {}
    if database is None:
        loaded = load_codes(codes)
        evaluation = evaluate_codes(*loaded, **settings)
        published = script.compute(*loaded) if script else {}
    else:
        query_codes, query_labels = load_queries(codes)
        evaluation = evaluate_shards(query_codes, database, query_labels, **settings)
    if as_json:
        print_json(evaluation.to_dict() | ({"published": published} if script else {}))
        return
    _show(evaluation, settings["no_relevant"])
    if script:
        order_text = f"shuffled, seed {script.seed}" if script.order == "shuffled" else "in the given order"
        for name, value in published.items():
            show(f"{preset}: the script of the paper reports {name} {value:.4f} (database {order_text})")


def _show(evaluation: Evaluation, no_relevant: str) -> None:
    from rich.table import Table

    table = Table("metric", "expected", "lowest", "highest")
    for name, metric in evaluation.to_dict()["metrics"].items():
        table.add_row(name, *(f"{metric[part]:.4f}" for part in ("expected", "lowest", "highest")))
    show(table)
    if count := evaluation.queries_without_relevant:
        scored = "are left out" if no_relevant == "skip" else "score 0; --no-relevant skip leaves them out"
        show(f"{count:,} queries without relevant items in the database {scored}")


def _preset_run(
    preset: str, dataset: str | None, k: list[int | Literal["all"]] | None, order: Any, seed: int | None
) -> PresetRun:
    from hashbench import registry
    from hashbench.evaluation.presets import resolve_preset

    if dataset:
        registry.find("dataset", dataset)
    return resolve_preset(preset, dataset or "cifar10", k, order, seed)


def _cutoffs(text: str) -> list[int | Literal["all"]]:
    return ["all" if name == "all" else integers("--k", name, least=1)[0] for name in names("--k", text)]


def _resolve(device: str) -> str:
    """Return the device to use; import torch, which takes seconds, only if there may be a GPU."""
    if device == "cpu" or (device == "auto" and not _has_nvidia_driver()):
        return "cpu"
    from hashbench.runtime.device import resolve_device

    return resolve_device(device)


def _has_nvidia_driver() -> bool:
    """Return True if the library that comes with the driver of NVIDIA's GPUs is installed."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
