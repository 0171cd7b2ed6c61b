"""One run: data -> train -> encode -> evaluate -> record."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import set_seed
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hashbench import environment, registry
from hashbench.backbones import create_backbone
from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.config import RunConfig, flatten
from hashbench.data_options import SPLIT_OPTIONS
from hashbench.dataset import Dataset
from hashbench.download import file_digest
from hashbench.encoding import check_encoder, encode, encode_queries
from hashbench.errors import HashbenchError, UsageError
from hashbench.evaluation import VERSION, Counts, Evaluation, code_health, evaluate
from hashbench.method import HashMethod
from hashbench.packing import require_size
from hashbench.recipe import FLAGS, load_components, load_recipe, resolve
from hashbench.results import (
    CODES,
    CURVES,
    LOG,
    MODEL,
    QUERIES,
    STARTED,
    Metric,
    Record,
    SplitRecord,
    Timing,
    new_run_folder,
    read_record,
    run_folder,
    write_record,
)
from hashbench.training import resolve_precision, train

BACKBONE = "backbone."


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
    flags: dict[str, Any] = {"method": method, "bits": bits, "seed": seed, "device": device}
    flags |= {"dataset": dataset.name, "protocol": dataset.protocol, "data": dict(dataset.options)}
    config = _configure(flags, settings)
    require_size(dataset, config.images.resize or config.images.size)
    return config


def changes(config: RunConfig) -> dict[str, Any]:
    """What of a configuration is not as the method's recipe has it, by dotted path.

    Empty, too, if the recipe alone makes no run, as when there is none.
    """
    try:
        recipe = _configure({key: getattr(config, key) for key in FLAGS}, ())
    except UsageError:
        return {}
    for section in ("backbone", "schedule"):  # another one has settings of its own
        usual_one, chosen_one = getattr(recipe, section), getattr(config, section)
        if usual_one.name != chosen_one.name:
            recipe = recipe.model_copy(update={section: type(usual_one)(name=usual_one.name)})
    usual, chosen = (flatten(c.model_dump(mode="json", exclude=FLAGS)) for c in (recipe, config))
    return {path: chosen.get(path) for path in {**usual, **chosen} if usual.get(path) != chosen.get(path)}


def components(method: str) -> dict[str, dict[str, Any]]:
    """What the recipe of a method declares for ablation: by name, the settings that take it away, by path.

    Raises:
        HashbenchError: The recipe cannot be read, or what it says of components cannot be.
    """
    entry = registry.find("method", method)
    path = entry.recipe()
    return load_components(path, entry.load().Hyperparameters) if path else {}


def run_id(config: RunConfig, dataset: Dataset, source: str) -> str:
    """A readable stem and a hash of all that can change the numbers.

    Args:
        config: The run.
        dataset: Whose split counts.
        source: Hash of the code, from `registry.source_digest`.
    """
    data = {key: value for key, value in config.data.items() if key not in SPLIT_OPTIONS}
    parts = {
        "config": {**config.model_dump(mode="json"), "data": data},
        "split": dataset.fingerprint,
        "code": source,
        "libraries": environment.library_versions(),
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]
    return f"{config.method}-{config.dataset}-{config.bits}bit-seed{config.seed}-{digest}"


def run(config: RunConfig, dataset: Dataset, results: Path, *, force: bool = False, workers: int = 0) -> Run:
    """Train, encode, evaluate and leave a record; do nothing if the record is there.

    Args:
        config: From `configure`.
        dataset: The dataset that the configuration names.
        results: Folder of all records.
        force: Run even if the record is there, and replace it.
        workers: Processes that load images; changes no number.

    Raises:
        UsageError: The backbone does not exist or fit.
        HashbenchError: Training diverged, the method breaks its contract, an image cannot be read, or the
            record cannot be written.
    """
    # Once, at the start: a file that is edited during the training had no part in it.
    source = _source(config)
    identifier = run_id(config, dataset, source)
    folder = run_folder(results, config.dataset, config.protocol, config.method, config.bits, identifier)
    if folder.exists() and not force:
        return Run(read_record(folder), folder, existed=True)
    method = build_method(config)
    check_encoder(method, dataset.train, config)  # a fault should not wait for the end of the training
    changed, declared = changes(config), components(config.method)  # faults of a recipe should not wait, too
    with new_run_folder(folder) as partial:
        (partial / STARTED).write_text(json.dumps(changed), encoding="utf-8")
        started = time.monotonic()
        train(method, dataset.train, config, workers=workers, log=partial / LOG)
        trained = time.monotonic()
        query = encode_queries(method, dataset.query.images, config, workers=workers, task="queries")
        database = encode(method, dataset.database.images, config, workers=workers, task="database")
        encoded = time.monotonic()
        evaluation = evaluate(
            query, database, dataset.query.labels, dataset.database.labels, **config.evaluation.model_dump()
        )
        metrics = evaluation.to_dict()["metrics"]
        evaluated = time.monotonic()
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
                train=len(dataset.train),
                database=len(dataset.database.images),
                sha256=dataset.fingerprint,
                overlaps=dataset.overlaps,
                warnings=dataset.warnings,
            ),
            metrics={name: Metric(**values) for name, values in metrics.items()},
            queries_without_relevant=evaluation.queries_without_relevant,
            health=code_health(database, evaluation),
            timing=Timing(
                train=round(trained - started, 2),
                encode=round(encoded - trained, 2),
                evaluate=round(evaluated - encoded, 2),
            ),
            environment={**environment.describe(config.device), "source": source},
            created=datetime.now(timezone.utc),
            evaluator=VERSION,
            changes=changed,
            components=declared,
            files={file.name: file_digest(file, "sha256") for file in sorted(partial.iterdir())},
        )
        write_record(record, partial)
    return Run(record, folder, existed=False)


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


def save_weights(path: Path, method: HashMethod, config: RunConfig) -> None:
    """Save the method; of a frozen backbone only weights that cannot be had again.

    Raises:
        OSError: The file cannot be written.
    """
    known = method.backbone.frozen and config.backbone.pretrained
    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)  # tied weights, too
        for name, tensor in method.state_dict().items()
        if not (known and name.startswith(BACKBONE))
    }
    try:
        save_file(weights, path)
    except SafetensorError as error:  # as when the disk is full
        raise OSError(str(error)) from error


def restore(method: HashMethod, weights: Mapping[str, Tensor]) -> None:
    """Give a method what `save_weights` saved; a backbone that was left out stays as it was built.

    Raises:
        RuntimeError: The weights do not fit.
    """
    if not any(name.startswith(BACKBONE) for name in weights):
        built = {name: tensor for name, tensor in method.state_dict().items() if name.startswith(BACKBONE)}
        weights = {**weights, **built}
    method.load_state_dict(weights)


def curves(evaluation: Evaluation) -> pd.DataFrame:
    """All precision–recall curves of an evaluation, one below the other; by radius, if there are radii.

    Returns:
        Columns curve ("rank", "radius-macro", "radius-micro"), at (the rank or radius), precision, recall.
    """
    tables = {"rank": evaluation.curve_by_rank()}
    if isinstance(evaluation.rankings, Counts):
        tables["radius-macro"] = evaluation.curve_by_radius("macro")
        tables["radius-micro"] = evaluation.curve_by_radius("micro")
    columns = {"rank": "at", "radius": "at"}
    return pd.concat([table.rename(columns=columns).assign(curve=name) for name, table in tables.items()])[
        ["curve", "at", "precision", "recall"]
    ]


def _configure(flags: dict[str, Any], settings: Sequence[str]) -> RunConfig:
    entry = registry.find("method", flags["method"])
    cls: type[HashMethod] = entry.load()
    path = entry.recipe()
    recipe = load_recipe(path, flags["dataset"], flags["bits"]) if path else {}
    config = resolve(recipe, settings, cls.Hyperparameters, **flags)
    precision = resolve_precision(config.training.precision, config.device)
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def _source(config: RunConfig) -> str:
    plugins = registry.find("method", config.method), registry.find("dataset", config.dataset)
    return registry.source_digest(*plugins)


def save_queries(path: Path, evaluation: Evaluation, dataset: Dataset) -> None:
    """Save ids and expected AP of the queries; NaN for a query that the means leave out."""
    values: dict[str, Any] = {
        f"AP@{k}": np.where(evaluation.counted, evaluation.average_precision(k), np.nan) for k in evaluation.k
    }
    np.savez_compressed(path, query_ids=np.array(dataset.query.images.ids), **values)


def save_codes(path: Path, query: Codes | NDArray[np.float32], database: Codes, dataset: Dataset) -> None:
    """Save what the evaluator needs, and the ids of the images, in plain arrays."""
    arrays: dict[str, Any] = {
        "query_labels": dataset.query.labels,
        "database_labels": dataset.database.labels,
        "query_ids": np.array(dataset.query.images.ids),
        "database_ids": np.array(dataset.database.images.ids),
    }
    if isinstance(database, ProductCodes):
        arrays |= {"codebooks": database.codebooks, "database_codes": database.indices}
        arrays["query_codes"] = query.indices if isinstance(query, ProductCodes) else query
    else:
        assert isinstance(query, BinaryCodes)
        arrays |= {"bits": np.int64(database.bits), "database_codes": database.packed}
        arrays["query_codes"] = query.packed
    np.savez_compressed(path, **arrays)
