"""Synthetic runs: random codes around the centres of classes, stored like those of real runs."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from helpers.records import START, make_config, make_folder, make_record
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.config import EvaluationConfig
from hashbench.data.dataset import Dataset, Split
from hashbench.evaluation import code_health, evaluate
from hashbench.experiment.artifacts import curves, save_codes, save_queries
from hashbench.images.image_sets import ArrayImages
from hashbench.results.record import (
    CODES,
    CURVES,
    LOG,
    QUERIES,
    Metric,
    SplitRecord,
    Timing,
    run_id_of,
    run_identity,
)
from hashbench.results.stored_run import StoredRun
from hashbench.runtime.files import sha256_of

CLASSES = ("circle", "square", "star", "moon")
WORDS = 16  # codewords in each codebook of product codes


def make_dataset(name: str = "shapes", protocol: str = "default", seed: int = 0) -> Dataset:
    """Return a dataset of 20 queries and 120 database images of 8 × 8 pixels in four classes.

    Every seed gives another split.
    """
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
    """Write a run with a record, codes, curves, the AP of its queries and a log, but without weights.

    Args:
        results: The results folder.
        method: Name of the method, which need not exist.
        dataset: A dataset, for example from `make_dataset`.
        bits: Code length; a multiple of 4 for product codes.
        seed: Seed.
        noise: Share of the bits, or codewords, that are drawn at random; more noise gives worse codes.
        collapsed: Give all images the same code, except for the first bit.
        product: Make product codes.
        fitted: Write the log of a method without epochs.
        changes: Settings that differ from the recipe, by dotted path.
        components: Components that the recipe declares for ablation.
        epochs: Number of epochs in the log, of three steps each.
        evaluation: Settings of the evaluation that differ from the defaults.
    """
    dataset = dataset or make_dataset()
    changes = dict(changes or {})
    config = make_config(
        method=method,
        dataset=dataset.name,
        protocol=dataset.protocol,
        data=dict(dataset.options),
        bits=bits,
        seed=seed,
        backbone={"name": "efficientnet_lite0"},
        training={"epochs": epochs},
        evaluation=dict(evaluation or {}),
    )
    for path, value in changes.items():
        *sections, key = path.split(".")
        functools.reduce(operator.getitem, sections, config)[key] = value
    changed = "".join(f"-{path}-{value}" for path, value in changes.items())
    name = f"{method}-{dataset.name}-{bits}bit-seed{seed}-{dataset.fingerprint[:6]}{changed}"
    random = np.random.default_rng([*name.encode()])
    folder = make_folder(results, config, run_id_of(run_identity(config, dataset.fingerprint, None, "0", {})))
    query, database = _codes(random, dataset, bits, noise, collapsed, product)
    settings = EvaluationConfig(**config["evaluation"]).arguments
    evaluated = evaluate(query, database, dataset.query.labels, dataset.database.labels, **settings)
    parts = {name: (part.images.ids, part.labels) for name, part in dataset.parts().items()}
    save_codes(folder / CODES, query, database, parts)
    curves(evaluated).to_csv(folder / CURVES, index=False)
    save_queries(folder / QUERIES, evaluated, dataset.query.images.ids)
    _write_log(folder / LOG, random, 0 if fitted else epochs)
    return make_record(
        folder,
        config,
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
        created=START + timedelta(minutes=seed),
        changes=changes,
        components=dict(components or {}),
        files={file.name: sha256_of(file) for file in sorted(folder.iterdir())},
    )


def _codes(
    random: np.random.Generator, dataset: Dataset, bits: int, noise: float, collapsed: bool, product: bool
) -> tuple[Codes | NDArray[np.float32], Codes]:
    """Return the codes of the queries and the database; for product codes, the vectors of the queries."""
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
    """Write the log of a training, or that of a fit if there are no epochs."""
    lines: list[dict[str, Any]] = []
    for step in range(3 * epochs):
        contrastive, balance = 4 / (1 + step) + random.random() / 10, -random.random()
        loss = {"loss": contrastive + balance, "contrastive": contrastive, "balance": balance}
        lines.append({"epoch": step // 3, "step": step, "seconds": step + 0.5, "lr": 0.001, **loss})
    lines = lines or [{"images": 120, "seconds": 0.5}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
