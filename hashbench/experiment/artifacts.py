"""What a run leaves beside its record: codes, curves, values of the queries, weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.config import RunConfig
from hashbench.data.dataset import Dataset
from hashbench.evaluation import Counts, Evaluation
from hashbench.method.base import HashMethod
from hashbench.training.model_selection import BACKBONE


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


def save_queries(path: Path, evaluation: Evaluation, dataset: Dataset) -> None:
    """Save ids and expected AP of the queries; NaN for a query that the means leave out."""
    values: dict[str, Any] = {
        f"AP@{k}": np.where(evaluation.counted, evaluation.average_precision(k), np.nan) for k in evaluation.k
    }
    if isinstance(evaluation.rankings, Counts):
        within = evaluation.average_precision_within_radius
        values[f"AP@H<={evaluation.radius}"] = np.where(evaluation.counted, within, np.nan)
    np.savez_compressed(path, query_ids=np.array(dataset.query.images.ids), **values)


def save_codes(path: Path, query: Codes | NDArray[np.float32], database: Codes, dataset: Dataset) -> None:
    """Save what the evaluator needs, and ids and labels of all parts of the split, in plain arrays."""
    arrays: dict[str, Any] = {}
    for name, part in dataset.parts().items():  # training images, too: the split's fingerprint covers them
        arrays |= {f"{name}_labels": part.labels, f"{name}_ids": np.array(part.images.ids)}
    if isinstance(database, ProductCodes):
        arrays |= {"codebooks": database.codebooks, "database_codes": database.indices}
        arrays["query_codes"] = query.indices if isinstance(query, ProductCodes) else query
    else:
        assert isinstance(query, BinaryCodes)
        arrays |= {"bits": np.int64(database.bits), "database_codes": database.packed}
        arrays["query_codes"] = query.packed
    np.savez_compressed(path, **arrays)
