"""Runs with given figures, so that tests can check tables by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from helpers.records import START, make_config, make_folder, make_record

from hashbench.data.protocol import Overlaps
from hashbench.evaluation import CodeHealth
from hashbench.results.record import QUERIES, Metric, SplitRecord, Timing
from hashbench.results.stored_run import StoredRun


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
    backbone: Mapping[str, Any] | None = None,
    collection: str | None = None,
) -> StoredRun:
    """Write a run with a record and with the AP of its queries, but without codes.

    Args:
        results: The results folder.
        method: Name of the method.
        values: AP of each query; NaN for a query that the mean leaves out.
        dataset: Name of the dataset.
        bits: Code length.
        seed: Seed.
        slack: Difference between the expected metric and its bounds.
        sha256: Fingerprint of the split.
        evaluator: Version of the evaluator.
        denominator: Denominator of AP.
        no_relevant: How queries without relevant images count.
        collapsed: True if the codes collapsed.
        changes: Settings that differ from the recipe.
        components: Components that the recipe declares.
        epochs: Number of epochs.
        minutes: Time at which the run finished, after the first one.
        suffix: End of the run id.
        source: Hash of the source code.
        metrics: Names of the metrics, which all have the same value.
        backbone: Settings of the backbone.
        collection: Name of the user's own images.
    """
    changes, mean = dict(changes or {}), float(np.nanmean(values))
    config = make_config(
        method=method,
        dataset=dataset,
        bits=bits,
        seed=seed,
        backbone=backbone or {"name": "resnet18"},
        data={} if collection is None else {"name": collection},
        training={"epochs": epochs},
        evaluation={
            "k": [metric.partition("@")[2] for metric in metrics if metric.startswith("mAP@")],
            "denominator": denominator,
            "no_relevant": no_relevant,
        },
        hyperparameters={"changed": changes},
    )
    run_id = f"{method}-{dataset}-{bits}bit-seed{seed}-" + "".join(map(str, changes.values())) + suffix
    folder = make_folder(results, config, run_id)
    arrays: dict[str, Any] = {name.replace("mAP", "AP"): np.array(values, float) for name in metrics}
    np.savez_compressed(folder / QUERIES, query_ids=np.array([f"q{n}" for n in range(len(values))]), **arrays)
    return make_record(
        folder,
        config,
        split=SplitRecord(
            query=len(values), train=1000, database=2000, sha256=sha256, warnings=(),
            overlaps=Overlaps(query_database=0, query_train=0, train_database=1000),
        ),
        metrics={
            name: Metric(expected=mean, lowest=mean - slack, highest=mean + slack) for name in metrics
        },
        queries_without_relevant=int(np.isnan(values).sum()),
        health=CodeHealth(
            unique_code_ratio=1, dead_bits=0, bit_balance=0, mean_bit_correlation=0,
            largest_tie_block_mean=0.1, largest_tie_block_max=0.1, chance_map={"mAP@all": 0.1},
            collapsed=collapsed, reasons=("half of the bits are dead",) if collapsed else (),
        ),
        timing=Timing(train=10 + seed, encode=1, evaluate=0.1),
        environment={"torch": "2.10", "source": source},
        created=START + timedelta(minutes=minutes),
        evaluator=evaluator,
        changes=changes,
        components={name: dict(settings) for name, settings in (components or {}).items()},
    )  # fmt: skip
