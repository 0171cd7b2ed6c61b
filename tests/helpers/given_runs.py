"""Records with the figures that a test gives them, so that tables can be checked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from hashbench.config import BackboneConfig, EvaluationConfig, RunConfig, TrainingConfig
from hashbench.data.protocol import Overlaps
from hashbench.evaluation import CodeHealth
from hashbench.results.record import (
    QUERIES,
    Metric,
    Record,
    SplitRecord,
    Timing,
    read_record,
    run_folder,
    write_record,
)
from hashbench.results.stored_run import StoredRun

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def given_run(
    results: Path,
    method: str,
    values: Sequence[float],
    *,
    dataset: str = "digits",
    bits: int = 16,
    seed: int = 0,
    slack: float = 0.05,
    sha256: str = "aa",
    evaluator: int = 1,
    denominator: str = "hits",
    no_relevant: str = "zero",
    collapsed: bool = False,
    changes: Mapping[str, Any] | None = None,
    components: Mapping[str, dict[str, Any]] | None = None,
    epochs: int = 10,
    minutes: int = 0,
    suffix: str = "",
    source: str = "0",
    metrics: Sequence[str] = ("mAP@all",),
) -> StoredRun:
    """Write a run whose AP of the queries are `values`.

    Args:
        results: Folder of all records.
        method: Name of the method.
        values: AP of each query; NaN for one that does not count.
        dataset: Name of the dataset.
        bits: Code length.
        seed: Seed.
        slack: What tie order adds or takes.
        sha256: Fingerprint of the split.
        evaluator: Version of the evaluator.
        denominator: What AP divides by.
        no_relevant: Queries with nothing relevant.
        collapsed: Whether the codes collapsed.
        changes: What was changed of the recipe.
        components: What the recipe declares.
        epochs: A setting.
        minutes: When it ended.
        suffix: Of the run id.
        source: Hash of the source code.
        metrics: Names of the metrics, all with the same figure.
    """
    changes, mean = dict(changes or {}), float(np.nanmean(values))
    run_id = f"{method}-{dataset}-{bits}bit-seed{seed}-" + "".join(map(str, changes.values())) + suffix
    health = CodeHealth(
        unique_code_ratio=1, dead_bits=0, bit_balance=0, mean_bit_correlation=0, largest_tie_block_mean=0.1,
        largest_tie_block_max=0.1, chance_map={"mAP@all": 0.1}, collapsed=collapsed,
        reasons=("half of the bits are dead",) if collapsed else (),
    )  # fmt: skip
    record = Record(
        run_id=run_id,
        method=method,
        dataset=dataset,
        protocol="default",
        bits=bits,
        seed=seed,
        config=RunConfig(
            method=method,
            dataset=dataset,
            protocol="default",
            bits=bits,
            seed=seed,
            device="cpu",
            backbone=BackboneConfig(name="resnet18"),
            training=TrainingConfig(epochs=epochs),
            evaluation=EvaluationConfig.model_validate(
                {
                    "k": [metric.partition("@")[2] for metric in metrics if metric.startswith("mAP@")],
                    "denominator": denominator,
                    "no_relevant": no_relevant,
                }
            ),
            hyperparameters={"changed": changes},
        ).model_dump(mode="json"),
        split=SplitRecord(
            query=len(values), train=1000, database=2000, sha256=sha256, warnings=(),
            overlaps=Overlaps(query_database=0, query_train=0, train_database=1000),
        ),
        metrics={
            name: Metric(expected=mean, lowest=mean - slack, highest=mean + slack) for name in metrics
        },
        queries_without_relevant=int(np.isnan(values).sum()),
        health=health,
        timing=Timing(train=10 + seed, encode=1, evaluate=0.1),
        environment={"torch": "2.10", "source": source},
        created=START + timedelta(minutes=minutes),
        evaluator=evaluator,
        changes=changes,
        components={name: dict(settings) for name, settings in (components or {}).items()},
        files={},
    )  # fmt: skip
    folder = run_folder(results, dataset, "default", method, bits, run_id)
    folder.mkdir(parents=True)
    arrays: dict[str, Any] = {name.replace("mAP", "AP"): np.array(values, float) for name in metrics}
    np.savez_compressed(folder / QUERIES, query_ids=np.array([f"q{n}" for n in range(len(values))]), **arrays)
    write_record(record, folder)
    return StoredRun(read_record(folder), folder)
