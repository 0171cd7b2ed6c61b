"""One run: data -> train -> encode -> evaluate -> record."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from hashbench import environment, processes, registry
from hashbench.backbones import create_backbone
from hashbench.config import RunConfig, flatten
from hashbench.data_options import SPLIT_OPTIONS
from hashbench.dataset import Dataset
from hashbench.device import resolve_precision
from hashbench.device_views import DeviceViews
from hashbench.download import file_digest
from hashbench.encoding import check_encoder, encode, encode_queries
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation import VERSION, code_health
from hashbench.failures import ENCODE_LESS, explained
from hashbench.features import BATCH_SIZE
from hashbench.method import HashMethod, ShallowMethod
from hashbench.packing import require_size
from hashbench.recipe import FLAGS, load_components, load_recipe, resolve
from hashbench.results import (
    CODES,
    CURVES,
    FILES,
    IDENTITY,
    MODEL,
    QUERIES,
    STARTED,
    STATES,
    Metric,
    Record,
    SplitRecord,
    Timing,
    new_run_folder,
    read_record,
    run_folder,
    write_record,
)
from hashbench.run_files import curves, restore, save_codes, save_queries, save_weights
from hashbench.selection import BACKBONE
from hashbench.training import DEFAULT, Execution, train
from hashbench.validation import evaluate_together, hold_out, scorer


@dataclass(frozen=True)
class Run:
    """A run that is done: its record, where it is, and whether it was there before."""

    record: Record
    folder: Path
    existed: bool


def configure(
    method: str,
    dataset: Dataset,
    *,
    bits: int,
    seed: int,
    device: str,
    settings: Sequence[str] = (),
) -> RunConfig:
    """Resolve the configuration of a run from the method's recipe and what the user set.

    Args:
        method: A registered method.
        dataset: The loaded dataset.
        bits: Length of the codes.
        seed: Of everything random.
        device: "cpu" or "cuda".
        settings: `KEY=VALUE` texts.
    """
    flags: dict[str, Any] = {"method": method, "bits": bits, "seed": seed}
    flags |= {"device": device, "processes": processes.count()}
    flags |= {"dataset": dataset.name, "protocol": dataset.protocol, "data": dict(dataset.options)}
    config = _configure(flags, settings)
    # What cannot be done is said now, and not when other runs of a grid have taken hours.
    if config.views.on_device:
        DeviceViews(config.images, config.views)
    if config.selection.name != "last" and issubclass(registry.find("method", method).load(), ShallowMethod):
        raise UsageError(
            f"{method} is fitted at once and has no epochs to choose from; leave out "
            f"selection={config.selection.name}"
        )
    hold_out(dataset, config)
    require_size(dataset, config.images.resize or config.images.size)
    return config


def changes(config: RunConfig) -> dict[str, Any]:
    """What of a configuration is not as the method's recipe has it, by dotted path.

    Empty, too, if the recipe alone makes no run, as when there is none.
    """
    # Named wherever it counts, if the recipe has it, too.
    named = {"selection.name": "best-on-query"} if config.selection.name == "best-on-query" else {}
    try:
        recipe = _configure({key: getattr(config, key) for key in FLAGS}, ())
    except UsageError:
        return named
    for section in ("backbone", "schedule"):  # another one has settings of its own
        usual_one, chosen_one = getattr(recipe, section), getattr(config, section)
        if usual_one.name != chosen_one.name:
            recipe = recipe.model_copy(update={section: type(usual_one)(name=usual_one.name)})
    usual, chosen = (flatten(c.model_dump(mode="json", exclude=FLAGS)) for c in (recipe, config))
    changed = {path: chosen.get(path) for path in {**usual, **chosen} if usual.get(path) != chosen.get(path)}
    return changed | named


def components(method: str) -> dict[str, dict[str, Any]]:
    """What the recipe of a method declares for ablation: by name, the settings that take it away, by path.

    Raises:
        HashbenchError: The recipe cannot be read, or what it says of components cannot be.
    """
    entry = registry.find("method", method)
    path = entry.recipe()
    return load_components(path, entry.load().Hyperparameters) if path else {}


def identity(config: RunConfig, dataset: Dataset, source: str) -> dict[str, Any]:
    """All that can change the numbers of a run.

    Args:
        config: The run.
        dataset: Whose split counts.
        source: Hash of the code, from `registry.source_digest`.
    """
    data = {key: value for key, value in config.data.items() if key not in SPLIT_OPTIONS}
    split = {"split": dataset.fingerprint}
    if config.selection.name == "best-val" and dataset.validation is not None:
        split["validation"] = dataset.validation.fingerprint()
    return {
        "config": {**config.model_dump(mode="json"), "data": data},
        **split,
        "code": source,
        "libraries": environment.library_versions(*_further_libraries(config)),
    }


def run_id(config: RunConfig, dataset: Dataset, source: str) -> str:
    """A readable stem and a hash of `identity`."""
    parts = json.dumps(identity(config, dataset, source), sort_keys=True)
    digest = hashlib.sha256(parts.encode()).hexdigest()[:10]
    return f"{config.method}-{config.dataset}-{config.bits}bit-seed{config.seed}-{digest}"


def run(
    config: RunConfig,
    dataset: Dataset,
    results: Path,
    *,
    force: bool = False,
    execution: Execution = DEFAULT,
) -> Run:
    """Train, encode, evaluate and leave a record; do nothing if the record is there.

    Where several processes run this together, each does its share, and the first writes.

    Args:
        config: From `configure`.
        dataset: The dataset that the configuration names.
        results: Folder of all records.
        force: Run even if the record is there, and replace it.
        execution: How; changes no number.

    Raises:
        UsageError: The backbone does not exist or fit.
        HashbenchError: Training diverged, the method breaks its contract, an image cannot be read, the record
            cannot be written, or the machine failed.
        PreemptionError: SIGTERM came.
    """
    # Once, at the start: a file that is edited during the training had no part in it.
    source = source_of(config)
    identifier = run_id(config, dataset, source)
    folder = run_folder(results, config.dataset, config.protocol, config.method, config.bits, identifier)
    if processes.firsts(folder.exists()) and not force:
        return Run(read_record(folder), folder, existed=True)
    method = build_method(config)
    with explained(config, "a first look at the network", ENCODE_LESS):
        check_encoder(method, dataset.train, config)  # a fault should not wait for the end of the training
    changed, declared = changes(config), components(config.method)  # faults of a recipe should not wait, too
    images, looked_for, searched = hold_out(dataset, config)
    workers = execution.workers
    score = scorer(looked_for, searched, config, workers) if looked_for and searched else None
    with _shared_folder(folder, execution.resume) as partial:
        if processes.is_first():
            (partial / STARTED).write_text(json.dumps(changed), encoding="utf-8")
            (partial / STATES).mkdir(exist_ok=True)
            which = json.dumps(identity(config, dataset, source))
            (partial / STATES / IDENTITY).write_text(which, encoding="utf-8")
        training = train(method, images, config, partial, execution, score)
        trained = time.monotonic()
        with explained(config, f"encoding {BATCH_SIZE} images at once", ENCODE_LESS):
            query = encode_queries(method, dataset.query.images, config, workers=workers, task="queries")
            database = encode(method, dataset.database.images, config, workers=workers, task="database")
        encoded = time.monotonic()
        with explained(config, "evaluation", "stop what else takes memory; --resume goes on here"):
            evaluation = evaluate_together(
                query, database, dataset.query.labels, dataset.database.labels, config
            )
        metrics = evaluation.to_dict()["metrics"]
        evaluated = time.monotonic()
        if processes.is_first():
            save_weights(partial / MODEL, method, config)
            save_codes(partial / CODES, query, database, dataset)
            curves(evaluation).to_csv(partial / CURVES, index=False)
            save_queries(partial / QUERIES, evaluation, dataset)
            (partial / STARTED).unlink()
            record = Record(
                run_id=identifier,
                method=config.method,
                dataset=config.dataset,
                protocol=config.protocol,
                bits=config.bits,
                seed=config.seed,
                config=config.model_dump(mode="json"),
                split=SplitRecord(
                    query=len(dataset.query.images),
                    train=len(images),
                    database=len(dataset.database.images),
                    sha256=dataset.fingerprint,
                    overlaps=dataset.overlaps,
                    warnings=dataset.warnings,
                ),
                metrics={name: Metric(**values) for name, values in metrics.items()},
                queries_without_relevant=evaluation.queries_without_relevant,
                health=code_health(database, evaluation),
                timing=Timing(
                    train=round(training.seconds, 2),
                    encode=round(encoded - trained, 2),
                    evaluate=round(evaluated - encoded, 2),
                    peak_memory=training.peak_memory,
                    images_per_second=training.images_per_second,
                    waiting=training.waiting,
                ),
                environment={
                    **environment.describe(config.device, *_further_libraries(config)),
                    "source": source,
                },
                created=datetime.now(timezone.utc),
                evaluator=VERSION,
                changes=changed,
                components=declared,
                files={name: file_digest(partial / name, "sha256") for name in FILES},
                resumed=training.resumed,
                selected=training.selected,
            )
            write_record(record, partial)
    return Run(read_record(folder), folder, existed=False)


@contextmanager
def _shared_folder(final: Path, resume: bool) -> Iterator[Path]:
    """The folder that the first process opens by `new_run_folder`, for all; they leave it together."""
    if processes.is_first():
        with new_run_folder(final, resume=resume) as partial:
            processes.firsts(partial)
            yield partial
        processes.wait()
    else:
        yield processes.firsts(final)
        processes.wait()


def build_method(config: RunConfig) -> HashMethod:
    """Build the untrained method of a run; the seed fixes its weights."""
    set_seed(config.seed)
    chosen = config.backbone.model_dump()
    options = chosen.pop("options")
    backbone = create_backbone(**chosen, image_size=config.images.size, **options)
    if config.training.freeze_backbone:
        backbone.freeze(dropout=config.training.feature_dropout)
    return registry.create_method(config.method, backbone, config.bits, **config.hyperparameters)


def load_trained(folder: Path | str) -> HashMethod:
    """The trained method of a run, in evaluation mode on the CPU, from the run's folder.

    Raises:
        HashbenchError: The folder is not that of a run, or its method has changed since.
    """
    folder = Path(folder)
    record = read_record(folder)
    try:
        config = RunConfig(**record.config)
        weights = load_file(folder / MODEL)
        if any(name.startswith(BACKBONE) for name in weights):  # nothing to download
            unloaded = config.backbone.model_copy(update={"pretrained": False})
            config = config.model_copy(update={"backbone": unloaded})
        method = build_method(config)
        restore(method, weights)
    except (ValidationError, RuntimeError, OSError, SafetensorError) as error:
        raise HashbenchError(
            f"{folder / MODEL} does not fit the {record.method} that is installed ({error}); run it again"
        ) from error
    return method.eval()


def _configure(flags: dict[str, Any], settings: Sequence[str]) -> RunConfig:
    entry = registry.find("method", flags["method"])
    cls: type[HashMethod] = entry.load()
    path = entry.recipe()
    recipe = load_recipe(path, flags["dataset"], flags["bits"]) if path else {}
    config = resolve(recipe, settings, cls.Hyperparameters, **flags)
    precision = resolve_precision(config.training.precision, config.device)
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def _further_libraries(config: RunConfig) -> tuple[str, ...]:
    return ("kornia",) if config.views.on_device else ()


def source_of(config: RunConfig) -> str:
    """Hash of the code that a run depends on."""
    plugins = registry.find("method", config.method), registry.find("dataset", config.dataset)
    return registry.source_digest(*plugins)
