"""Runs made up in a moment: random codes around the centres of classes, recorded like real ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.config import BackboneConfig, RunConfig, TrainingConfig
from hashbench.data.dataset import Dataset, Split
from hashbench.evaluation import VERSION, code_health, evaluate
from hashbench.experiment.artifacts import curves, save_codes, save_queries
from hashbench.images.image_sets import ArrayImages
from hashbench.results.record import (
    CODES,
    CURVES,
    LOG,
    QUERIES,
    Metric,
    Record,
    SplitRecord,
    Timing,
    read_record,
    run_folder,
    run_id_of,
    run_identity,
    write_record,
)
from hashbench.results.stored_run import StoredRun
from hashbench.runtime.files import sha256_of

CLASSES = ("circle", "square", "star", "moon")
WORDS = 16  # of each book of product codes


def make_dataset(name: str = "shapes", protocol: str = "default", seed: int = 0) -> Dataset:
    """20 queries and 120 images to search, 8 × 8 pixels, in four classes; another seed is another split."""
    random = np.random.default_rng([3, seed])
    labels = random.permutation(np.arange(140) % len(CLASSES))
    pixels = (60 * labels[:, None, None] + random.integers(0, 60, (140, 8, 8))).astype(np.uint8)
    images = Split(ArrayImages(pixels, [f"{name}/{index:03d}.png" for index in range(140)]), labels)
    query, rest = images.subset(np.arange(20)), images.subset(np.arange(20, 140))
    return Dataset.from_splits(name, protocol, CLASSES, train=rest, query=query, database=rest)


def make_run(
    results: Path,
    method: str = "wch",
    dataset: Dataset | None = None,
    *,
    bits: int = 16,
    seed: int = 0,
    noise: float = 0.2,
    collapsed: bool = False,
    product: bool = False,
    fitted: bool = False,
    changes: Mapping[str, Any] | None = None,
    components: Mapping[str, dict[str, Any]] | None = None,
    epochs: int = 3,
    evaluation: Mapping[str, Any] | None = None,
) -> StoredRun:
    """Write a run with record, codes, curves, AP of queries and log, but no model.

    Args:
        results: Folder of all records.
        method: Name of the method; there need be none.
        dataset: What it is run on, as from `make_dataset`, or a real one.
        bits: Code length; of product codes a multiple of 4.
        seed: Seed.
        noise: Share of bits, or of codewords, that are drawn at random: the more, the worse the codes.
        collapsed: Give every image the same code but for the first bit.
        product: Make product codes.
        fitted: Write the log of a method without epochs.
        changes: What it changed of its recipe, by dotted path.
        components: What the recipe declares for ablation.
        epochs: Epochs of three steps each in the log.
        evaluation: Settings of the evaluation, where they are not the usual ones.
    """
    dataset = dataset or make_dataset()
    config = _config(method, dataset, bits, seed, epochs, changes or {}, evaluation or {})
    changed = "".join(f"-{path}-{value}" for path, value in (changes or {}).items())
    drawn = f"{method}-{dataset.name}-{bits}bit-seed{seed}-{dataset.fingerprint[:6]}{changed}"
    random = np.random.default_rng([*drawn.encode()])
    run_id = run_id_of(run_identity(config, dataset.fingerprint, None, "0", {}))
    folder = run_folder(results, dataset.name, dataset.protocol, method, bits, run_id)
    folder.mkdir(parents=True)
    query, database = _codes(random, dataset, bits, noise, collapsed, product)
    evaluated = evaluate(
        query, database, dataset.query.labels, dataset.database.labels, **config["evaluation"]
    )
    save_codes(folder / CODES, query, database, dataset)
    curves(evaluated).to_csv(folder / CURVES, index=False)
    save_queries(folder / QUERIES, evaluated, dataset)
    _write_log(folder / LOG, random, 0 if fitted else epochs)
    record = Record(
        run_id=run_id,
        method=method,
        dataset=dataset.name,
        protocol=dataset.protocol,
        bits=bits,
        seed=seed,
        config=config,
        split=SplitRecord(
            query=len(dataset.query.images),
            train=len(dataset.train),
            database=len(dataset.database.images),
            sha256=dataset.fingerprint,
            overlaps=dataset.overlaps,
            warnings=dataset.warnings,
        ),
        metrics={name: Metric(**values) for name, values in evaluated.to_dict()["metrics"].items()},
        queries_without_relevant=evaluated.queries_without_relevant,
        health=code_health(database, evaluated),
        timing=Timing(train=0.5 if fitted else 100.0 + bits + seed, encode=1.5, evaluate=0.25),
        environment={"python": "3", "processor": "none", "source": "0"},
        created=datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=seed),
        evaluator=VERSION,
        changes=dict(changes or {}),
        components=dict(components or {}),
        files={file.name: sha256_of(file) for file in sorted(folder.iterdir())},
    )
    write_record(record, folder)
    return StoredRun(read_record(folder), folder)


def _config(
    method: str,
    dataset: Dataset,
    bits: int,
    seed: int,
    epochs: int,
    changes: Mapping[str, Any],
    evaluation: Mapping[str, Any],
) -> dict[str, Any]:
    config: dict[str, Any] = RunConfig(
        method=method,
        dataset=dataset.name,
        protocol=dataset.protocol,
        data=dict(dataset.options),
        bits=bits,
        seed=seed,
        device="cpu",
        backbone=BackboneConfig(name="efficientnet_lite0"),
        training=TrainingConfig(epochs=epochs),
    ).model_dump(mode="json")
    config["evaluation"] |= evaluation
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = config
        for name in sections:
            section = section[name]
        section[key] = value
    return config


def _codes(
    random: np.random.Generator, dataset: Dataset, bits: int, noise: float, collapsed: bool, product: bool
) -> tuple[Codes | NDArray[np.float32], Codes]:
    """Codes of queries and database; for product codes the queries' vectors instead."""
    labels = np.concatenate([dataset.query.labels, dataset.database.labels])
    size, values = (bits // 4, WORDS) if product else (bits, 2)
    centres = random.integers(0, values, (len(dataset.class_names), size))
    codes = centres[labels]
    drawn = random.random(codes.shape) < noise
    codes[drawn] = random.integers(0, values, drawn.sum())
    if collapsed:
        codes[:, 1:] = 0
    queries = len(dataset.query.labels)
    if product:
        books = random.normal(size=(size, WORDS, 2)).astype(np.float32)
        all_codes = ProductCodes(codes.astype(np.uint8), books)
        return all_codes[:queries].reconstruct() + np.float32(0.1), all_codes[queries:]
    binary = BinaryCodes.from_array(codes)
    return binary[:queries], binary[queries:]


def _write_log(path: Path, random: np.random.Generator, epochs: int) -> None:
    """The log of training for some epochs; of a fit, if there are none."""
    lines: list[dict[str, Any]] = []
    for step in range(3 * epochs):
        contrastive, balance = 4 / (1 + step) + random.random() / 10, -random.random()
        loss = {"loss": contrastive + balance, "contrastive": contrastive, "balance": balance}
        lines.append({"epoch": step // 3, "step": step, "seconds": step + 0.5, "lr": 0.001, **loss})
    lines = lines or [{"images": 120, "seconds": 0.5}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
