"""Files that a run writes beside its record: codes, curves and the average precision of each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hashbench.codes import BinaryCodes, Codes, ProductCodes
from hashbench.evaluation import Counts, Evaluation


def curves(evaluation: Evaluation) -> pd.DataFrame:
    """Return all precision–recall curves of an evaluation in one table.

    Curves by Hamming radius are included for binary codes only.

    Returns:
        Table with the columns curve ("rank", "radius-macro" or "radius-micro"), at (the rank or the radius),
        precision and recall.
    """
    tables = {"rank": evaluation.curve_by_rank()}
    if isinstance(evaluation.rankings, Counts):
        tables["radius-macro"] = evaluation.curve_by_radius("macro")
        tables["radius-micro"] = evaluation.curve_by_radius("micro")
    columns = {"rank": "at", "radius": "at"}
    return pd.concat([table.rename(columns=columns).assign(curve=name) for name, table in tables.items()])[
        ["curve", "at", "precision", "recall"]
    ]


def save_queries(path: Path, evaluation: Evaluation, query_ids: Sequence[str]) -> None:
    """Save the id and the expected AP of each query; the AP is NaN for a query that the mean leaves out."""
    values: dict[str, Any] = {
        f"AP@{k}": np.where(evaluation.counted, evaluation.average_precision(k), np.nan) for k in evaluation.k
    }
    if isinstance(evaluation.rankings, Counts):
        within = evaluation.average_precision_within_radius
        values[f"AP@H<={evaluation.radius}"] = np.where(evaluation.counted, within, np.nan)
    np.savez_compressed(path, query_ids=np.array(query_ids), **values)


def save_codes(
    path: Path,
    query: Codes | NDArray[np.float32],
    database: Codes,
    parts: Mapping[str, tuple[Sequence[str], NDArray[Any]]],
    neighbours: NDArray[np.int64] | None = None,
) -> None:
    """Save the codes, and the ids and labels of all parts of the split, as plain arrays.

    If neighbours are relevant and not labels, they are saved, too.
    """
    arrays: dict[str, Any] = {} if neighbours is None else {"neighbours": neighbours}
    for name, (ids, labels) in parts.items():  # the fingerprint of the split covers all of them
        arrays |= {f"{name}_labels": labels, f"{name}_ids": np.array(ids, dtype=str)}
    if isinstance(database, ProductCodes):
        arrays |= {"codebooks": database.codebooks, "database_codes": database.indices}
        arrays |= {"distance": np.array(database.distance)} if database.distance != "l2" else {}
        arrays["query_codes"] = query.indices if isinstance(query, ProductCodes) else query
    else:
        assert isinstance(query, BinaryCodes)
        arrays |= {"bits": np.int64(database.bits), "database_codes": database.packed}
        arrays["query_codes"] = query.packed
    np.savez_compressed(path, **arrays)
