"""Records of codes that another program made, which reports treat like runs and mark as foreign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.codes import ProductCodes, as_array
from hashbench.config import BackboneConfig, EvaluationConfig, RunConfig
from hashbench.data.dataset import Dataset
from hashbench.data.protocol import class_lists, fingerprint, overlaps
from hashbench.errors import UsageError
from hashbench.evaluation import Evaluation
from hashbench.evaluation.inputs import read_codes
from hashbench.experiment.artifacts import curves, save_codes, save_queries
from hashbench.experiment.run import Run, build_record
from hashbench.results.folders import new_run_folder
from hashbench.results.record import (
    CODES,
    CURVES,
    QUERIES,
    SplitRecord,
    Timing,
    read_record,
    run_folder,
    run_id_of,
    run_identity,
    write_record,
)
from hashbench.runtime import environment
from hashbench.runtime.files import sha256_of

Parts = dict[str, tuple[Sequence[str], NDArray[Any]]]
"""Ids and labels by part of the split."""

UNCHECKED = "the split is not compared with that of the dataset, which is not here"


def record_codes(
    loaded: Mapping[str, Any],
    evaluation: Evaluation,
    settings: Mapping[str, Any],
    results: Path,
    *,
    sha256: str,
    method: str,
    dataset: str,
    protocol: str,
    seed: int = 0,
    backbone: str = "unknown",
    data: Dataset | None = None,
) -> Run:
    """Write a record of codes of another program, unless it already exists.

    `loaded` contains the arguments of `hashbench.evaluate`, and `settings` are those of the evaluation, as in
    `EvaluationConfig`. The hash of the file of the codes identifies what made them. Without the dataset, the
    split cannot be compared, and its fingerprint is that of the labels alone, so that no report mixes it with
    runs of the dataset.

    Raises:
        UsageError: The labels are not those of the dataset, in its order.
        HashbenchError: The record cannot be written.
    """
    query, database = loaded["query_codes"], loaded["database_codes"]
    if not isinstance(database, ProductCodes):
        query, database = read_codes(query, database)
    parts = _parts(loaded, data)
    config = RunConfig(
        method=method,
        dataset=dataset,
        protocol=protocol,
        data={} if data is None else dict(data.options),
        bits=database.bits,
        seed=seed,
        device="cpu",
        backbone=BackboneConfig(name=backbone),
        evaluation=EvaluationConfig(**settings),
    )
    split = fingerprint(**parts)
    identity = config.model_dump(mode="json"), split, None, sha256, environment.library_versions()
    run_id = run_id_of(run_identity(*identity))
    folder = run_folder(results, dataset, protocol, method, database.bits, run_id)
    if folder.exists():
        return Run(read_record(folder), folder, existed=True)
    with new_run_folder(folder) as partial:
        save_codes(partial / CODES, query, database, parts)
        curves(evaluation).to_csv(partial / CURVES, index=False)
        save_queries(partial / QUERIES, evaluation, parts["query"][0])
        record = build_record(
            config,
            _split(parts, split, (UNCHECKED,) if data is None else data.warnings),
            database,
            evaluation,
            Timing(train=0, encode=0, evaluate=0),
            run_id=run_id,
            environment={**environment.describe("cpu"), "source": sha256},
            changes={},
            components={},
            files={name: sha256_of(partial / name) for name in (CODES, CURVES, QUERIES)},
            foreign=sha256,
        )
        write_record(record, partial)
    return Run(read_record(folder), folder, existed=False)


def _split(parts: Parts, sha256: str, warnings: Sequence[str]) -> SplitRecord:
    return SplitRecord(
        query=len(parts["query"][0]),
        train=len(parts["train"][0]),
        database=len(parts["database"][0]),
        sha256=sha256,
        overlaps=overlaps(*(ids for ids, _ in parts.values())),
        warnings=tuple(warnings),
    )


def _parts(loaded: Mapping[str, Any], data: Dataset | None) -> Parts:
    """Return the ids and labels of train, query and database: of the dataset, if that is here."""
    found: Parts = {}
    for name in ("query", "database"):
        labels = as_array(loaded[f"{name}_labels"], f"{name}_labels")
        labels = labels.astype(np.uint8 if labels.ndim == 2 and labels.shape[1] > 1 else np.int64)
        labels = labels if labels.ndim == 1 or labels.shape[1] > 1 else labels[:, 0]
        if data is None:
            found[name] = [f"{name}/{row}" for row in range(len(labels))], labels
            continue
        part = data.parts()[name]
        _require_equal(labels, part.labels, name, f"{data.name}@{data.protocol}")
        found[name] = part.images.ids, part.labels
    if data is None:
        train: tuple[Sequence[str], NDArray[Any]] = [], found["query"][1][:0]
    else:
        train = data.train.ids, data.train_labels
    return {"train": train, **found}


def _require_equal(labels: NDArray[Any], expected: NDArray[Any], name: str, split: str) -> None:
    found, wanted = class_lists(labels), class_lists(expected)
    if found == wanted:
        return
    where = f"they have {len(found):,} rows and the dataset {len(wanted):,}"
    if len(found) == len(wanted):
        row = next(row for row, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1])
        where = f"row {row} is {found[row]} and in the dataset {wanted[row]}"
    raise UsageError(
        f"{name}_labels are not those of {split}, in its order: {where}; if the codes are of another split, "
        "give it another name"
    )
