"""The command `hashbench evaluate`, for codes of any program, in files or in shards."""

# Annotations must be objects here, since `with_options` passes them to typer from another module.

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from hashbench.cli.options import AsJson, integers, names, pairs, with_options
from hashbench.cli.output import print_json, show, show_evaluation, show_evaluations, show_per_class
from hashbench.cli.results.foreign import Recording, recording
from hashbench.errors import UsageError

if TYPE_CHECKING:
    from hashbench.evaluation import Evaluation
    from hashbench.evaluation.presets import PresetRun

CodesFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="CODES",
        # The backslash keeps rich from reading brackets as markup.
        help="Files .npz, .mat, .h5 or .pt with query_codes and database_codes \\[n, bits], query_labels and "
        "database_labels \\[n, classes] or \\[n]; the codes.npz of a run; or a folder of *-tst_binary.npy, "
        "*-trn_binary.npy, *-tst_label.npy and *-trn_label.npy, or the first of these. Product codes: real "
        "query_codes, database_codes \\[n, books], codebooks \\[books, words, dim].",
    ),
]
Keys = Annotated[
    list[str],
    typer.Option(
        "--key",
        metavar="NAME=KEY",
        help="Key of an array in CODES, e.g. query_codes=B_test; repeatable. Common ones are known.",
    ),
]
ArrayFiles = Annotated[
    list[str],
    typer.Option(
        "--array",
        metavar="NAME=FILE",
        help="File of a single array, e.g. query_codes=q.npy or query_labels=l.csv; repeatable.",
    ),
]
Shards = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of a database in shards, read block by block.")
]
Cutoffs = Annotated[
    str | None,
    typer.Option(
        help="Cutoffs, separated by commas (default: 1000,all, or the preset's). R is the number of relevant "
        "items of each query: mAP@R, and P@R, which is R-precision."
    ),
]
Denominator = Annotated[
    Literal["hits", "relevant", "all_relevant"] | None,
    typer.Option(help="What AP@K divides by (default: hits)."),
]
NoRelevant = Annotated[
    Literal["zero", "skip"] | None,
    typer.Option(help="How to score queries without relevant items; skip leaves them out (default: zero)."),
]
Graded = Annotated[
    bool, typer.Option("--graded", help="Also report NDCG and ACG, by the number of shared labels.")
]
PerClass = Annotated[
    bool,
    typer.Option(
        "--per-class", help="Also report mAP at the first cutoff per class, with macro and micro mean."
    ),
]
Neighbours = Annotated[
    bool,
    typer.Option(
        "--neighbours",
        help="The array neighbours \\[queries, n], rows of the database, says which items are relevant, not "
        "labels.",
    ),
]
ExcludeSelf = Annotated[
    bool,
    typer.Option(
        "--exclude-self",
        help="Leave each query out of a database that holds the queries, by query_ids and database_ids.",
    ),
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
    typer.Option(
        help="Dataset of the codes, which sets the K and order of --preset (default: cifar10); for --record, "
        "DATASET@PROTOCOL."
    ),
]
DatabaseOrder = Annotated[
    Literal["database", "shuffled"] | None,
    typer.Option(help="Order of the database for --preset (default: the script's)."),
]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seed of the shuffled order for --preset, or of the training for --record (default: 0)."
    ),
]


CountingDevice = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:N for GPU number N, or auto, which uses a GPU from 10 billion pairs on.",
    ),
]


class _Inputs(NamedTuple):
    """The files to evaluate; a path of None means that there are only files of single arrays."""

    paths: list[Path | None]
    keys: dict[str, str]
    files: dict[str, Path]
    database: Path | None
    neighbours: bool
    exclude_self: bool

    def evaluate(
        self, path: Path | None, settings: dict[str, Any], script: "PresetRun | None"
    ) -> "_Evaluated":
        from hashbench.evaluation import evaluate as evaluate_codes
        from hashbench.evaluation.files import NAMES, load_arguments
        from hashbench.evaluation.shards import evaluate_shards

        names = [*NAMES[:2], "neighbours"] if self.neighbours else [*NAMES[:: 2 if self.database else 1]]
        names += ["query_ids", "database_ids"] if self.exclude_self else []
        loaded = load_arguments(path, names, self.keys, self.files)
        try:
            if self.database:
                return _Evaluated(path, evaluate_shards(database=self.database, **loaded, **settings), loaded)
            evaluation = evaluate_codes(**loaded, exclude_self=self.exclude_self, **settings)
            return _Evaluated(path, evaluation, loaded, script.compute(**loaded) if script else None)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") if len(self.paths) > 1 else error from None


def inputs(
    codes: CodesFiles = [],  # noqa: B006 (typer copies it)
    key: Keys = [],  # noqa: B006
    array: ArrayFiles = [],  # noqa: B006
    database: Shards = None,
    neighbours: Neighbours = False,
    exclude_self: ExcludeSelf = False,
) -> _Inputs:
    """Return the files that these options name."""
    if database and (neighbours or exclude_self):
        raise UsageError("--neighbours and --exclude-self need a database in memory; leave out --database")
    files = {name: Path(file) for name, file in pairs("--array", array).items()}
    if not codes and not files:
        raise UsageError("expected files of codes, got none; pass CODES, or --array NAME=FILE for each array")
    return _Inputs([*codes] or [None], pairs("--key", key), files, database, neighbours, exclude_self)


class _Evaluated(NamedTuple):
    path: Path | None
    evaluation: "Evaluation"
    loaded: dict[str, Any]
    published: dict[str, float] | None = None  # what the script of a paper reports

    def to_dict(self, files: _Inputs, per_class: bool) -> dict[str, Any]:
        shown = self.evaluation.to_dict()
        shown["settings"] |= {"relevance": "neighbours"} if files.neighbours else {}
        shown["settings"] |= {"exclude_self": True} if files.exclude_self else {}
        if self.published is not None:
            shown["published"] = self.published
        if per_class:
            k = self.evaluation.k[0]
            rows = self.evaluation.per_class(k).to_dict(orient="index")
            shown["per_class"] = {f"mAP@{k}": {str(name): row for name, row in rows.items()}}
        return shown


@with_options("recorded", recording)
@with_options("files", inputs)
def evaluate(
    files: _Inputs,
    recorded: Recording | None,
    k: Cutoffs = None,
    radius: Annotated[int, typer.Option(min=0, help="Hamming radius.")] = 2,
    denominator: Denominator = None,
    no_relevant: NoRelevant = None,
    graded: Graded = False,
    per_class: PerClass = False,
    preset: PresetName = None,
    dataset: DatasetName = None,
    order: DatabaseOrder = None,
    seed: Seed = None,
    device: CountingDevice = "auto",
    as_json: AsJson = False,
) -> None:
    """Evaluate the codes of any program, exactly; several files make one table.

    Codes have a value for each bit: ±1, {0, 1} or bool. They may also be
    packed, eight bits in a uint8 or 64 in a uint64, if CODES has their
    length as the number `bits`: bit i of a code is bit i % 8 of byte i // 8,
    as in faiss and in numpy.packbits with bitorder="little".

    A database larger than memory is read from the folder --database, which
    has NAME.codes.npy and NAME.labels.npy for each shard, as numpy.save
    writes them, all in the same form. CODES then needs query_codes and
    query_labels only.
    """
    _check_options(files, recorded, preset, (denominator, no_relevant), (dataset, order, seed))
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
        settings["k"] = script.k
    if device not in ("cpu", "auto"):
        from hashbench.runtime.device import resolve_device  # torch takes a second to import

        device = resolve_device(device)
    settings["device"] = device
    done = [files.evaluate(path, settings, script) for path in files.paths]
    if recorded:
        for one in done:
            recorded.write(one.path, one.loaded, one.evaluation, settings, dataset, seed)
    _show_all(done, files, script, settings["no_relevant"], per_class, as_json)


def _check_options(
    files: _Inputs,
    recorded: Recording | None,
    preset: str | None,
    definitions: tuple[str | None, ...],
    of_preset: tuple[Any, ...],
) -> None:
    """Raise UsageError if options exclude each other or need another one."""
    others = (files.database, files.neighbours, files.exclude_self)
    if preset and any((*others, *definitions)):
        raise UsageError(
            "--preset ranks a database in memory by the rules of a script; leave out --database, "
            "--denominator, --no-relevant, --neighbours and --exclude-self"
        )
    if not (preset or recorded) and any(value is not None for value in of_preset):
        raise UsageError("--dataset, --order and --seed need --preset or --record")
    if recorded and any((preset, *others)):
        raise UsageError(
            "--record needs codes and labels in one file; leave out --preset, --database, --neighbours and "
            "--exclude-self"
        )


def _show_all(
    done: list[_Evaluated],
    files: _Inputs,
    script: "PresetRun | None",
    no_relevant: str,
    per_class: bool,
    as_json: bool,
) -> None:
    if as_json:
        objects = [one.to_dict(files, per_class) for one in done]
        named = [{"file": str(path), **one} for path, one in zip(files.paths, objects, strict=True)]
        print_json(objects[0] if len(done) == 1 else named)
        return
    if len(done) == 1:
        show_evaluation(done[0].evaluation, no_relevant)
    else:
        show_evaluations([(one.path, one.evaluation) for one in done])
    if files.neighbours:
        show("relevant are the listed neighbours of each query, not items that share a label")
    if files.exclude_self:
        show("each query is left out of the database")
    if script:
        _show_published(done, script)
    for one in done if per_class else ():
        show_per_class(one.path, one.evaluation)


def _show_published(done: list[_Evaluated], script: "PresetRun") -> None:
    order = f"shuffled, seed {script.seed}" if script.order == "shuffled" else "in the given order"
    for path, *_, published in done:
        prefix = f"{path}: " if len(done) > 1 else ""
        for name, value in (published or {}).items():
            reports = f"the script of the paper reports {name} {value:.4f} (database {order})"
            show(f"{prefix}{script.preset}: {reports}")


def _preset_run(
    preset: str, dataset: str | None, k: list[Any] | None, order: Any, seed: int | None
) -> "PresetRun":
    from hashbench import registry
    from hashbench.evaluation.presets import resolve_preset

    if dataset:
        registry.find("dataset", dataset)
    return resolve_preset(preset, dataset or "cifar10", k, order, seed)


def _cutoffs(text: str) -> list[Any]:
    return [name if name in ("all", "R") else integers("--k", name, 1)[0] for name in names("--k", text)]
