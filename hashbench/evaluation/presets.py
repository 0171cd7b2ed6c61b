"""The mAP@K that the scripts released with papers compute from the same codes, including their order of ties.

All four scripts average over all queries, divide AP@K by the hits in the top K, and score a query without a
hit there 0. They differ in K, in the order of the database and in how they sort it. Since there are few
distinct distances, the order of ties decides the figure: it is one of many, and `Evaluation` has their mean
and bounds.

None of the scripts uses a stable sort. The order in which NumPy's default sort leaves ties depends on the
type of the distances, the version of NumPy and the instruction set of the processor; torch's does likewise.
`published` calls the same function on the same type, so it returns what the script computes on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashbench.codes import Codes, ProductCodes
from hashbench.errors import UsageError, unknown_name
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.inputs import (
    Cutoff,
    check_comparable,
    check_cutoff,
    read_codes,
    read_labels,
    read_vectors,
)
from hashbench.runtime.arguments import as_count, check_choice, check_type

Order = Literal["database", "shuffled"]
Distances = NDArray[np.float32]  # of one query [items]


@dataclass(frozen=True)
class Preset:
    """The evaluation of a released script.

    Attributes:
        source: Repository, commit, and the file and functions that rank.
        k: The K of its mAP@K, for CIFAR-10 and for datasets that the script does not know.
        order: The order of the database for these datasets: as given, or shuffled by the script's loader.
        elsewhere: K and order of the datasets for which they differ.
        product: True if the script ranks by asymmetric distances to product codes, sorted by torch; False if
            it ranks by Hamming distances, sorted by NumPy.
    """

    source: str
    k: Cutoff
    order: Order
    elsewhere: Mapping[str, tuple[Cutoff, Order]] = field(default_factory=dict)
    product: bool = False

    def rules(self, dataset: str) -> tuple[Cutoff, Order]:
        """Return K and the order of the database for a dataset."""
        return self.elsewhere.get(dataset, (self.k, self.order))


PRESETS: dict[str, Preset] = {
    # CIFAR-10 is read class by class; the loaders of lists of images shuffle the database.
    "paper:wch": Preset(
        "RosieYuu/WCH at d93c756, utils/tools.py, CalcTopMap",
        1000,
        "database",
        elsewhere={"nuswide": (5000, "shuffled"), "coco": (5000, "shuffled")},
    ),
    # The released code knows CIFAR-10 only.
    "paper:cibhash": Preset(
        "zexuanqiu/CIBHash at 4c896ee, utils/evaluation.py, calculate_top_map", 1000, "database"
    ),
    # K is that of Cifar10_I.py; Cifar(II)_bihalf.py prints mAP@all.
    "paper:bihalf": Preset(
        "liyunqianggyn/Deep-Unsupervised-Image-Hashing at 1cd671a, ImageHashing/cal_map_single.py and "
        "cal_map_mult.py, calculate_top_map and calculate_map",
        1000,
        "shuffled",
        elsewhere={"flickr25k": ("all", "shuffled"), "coco": (5000, "shuffled")},
    ),
    "paper:spq": Preset(
        "youngkyunJang/SPQ at 6908f54, Retrieval.py, Evaluate_mAP", 1000, "database", product=True
    ),
}
"""The presets by name, "paper:METHOD"."""


@dataclass(frozen=True)
class PresetRun:
    """A preset with all of its choices made.

    Attributes:
        preset: A name in `PRESETS`.
        dataset: Name of the dataset of the codes.
        k: The cutoffs.
        order: The order of the database.
        seed: Random seed of a shuffled order.
    """

    preset: str
    dataset: str
    k: Sequence[Cutoff]
    order: Order
    seed: int

    def compute(
        self,
        query_codes: Codes | ArrayLike,
        database_codes: Codes | ArrayLike,
        query_labels: ArrayLike,
        database_labels: ArrayLike,
    ) -> dict[str, float]:
        """Return the mAP of the script by name, as in "mAP@1000"; see `published`."""
        inputs = query_codes, database_codes, query_labels, database_labels
        return {
            f"mAP@{k}": published(*inputs, self.preset, self.dataset, k, self.order, self.seed)
            for k in self.k
        }


def resolve_preset(
    preset: str,
    dataset: str = "cifar10",
    k: Sequence[Cutoff] | None = None,
    order: Order | None = None,
    seed: int | None = None,
) -> PresetRun:
    """Complete the choices for a preset by those of its script.

    Args:
        preset: A name in `PRESETS`.
        dataset: Name of the dataset of the codes.
        k: The cutoffs; None is the K of the script.
        order: The order of the database; None is that of the script.
        seed: Random seed of a shuffled order; None is 0.

    Raises:
        UsageError: The preset is unknown, or there is a seed for an order that is not shuffled.
    """
    script_k, script_order = _find_preset(preset).rules(dataset)
    order = order or script_order
    if seed is not None and order == "database":
        raise UsageError(f"{preset}: a seed needs a shuffled database; set the order to shuffled")
    return PresetRun(preset, dataset, k or (script_k,), order, seed or 0)


def _find_preset(name: str) -> Preset:
    if not isinstance(name, str) or name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    return PRESETS[name]


def published(
    query_codes: Codes | ArrayLike,
    database_codes: Codes | ArrayLike,
    query_labels: ArrayLike,
    database_labels: ArrayLike,
    preset: str,
    dataset: str = "cifar10",
    k: Cutoff | None = None,
    order: Order | None = None,
    seed: int = 0,
) -> float:
    """Return the mAP@K that the script of a paper reports for these codes.

    The script's sort ranks the whole database for each query. This takes O(items · log items) time, and
    O(items) memory in addition to the codes of the database as float32.

    Args:
        query_codes: Codes of the queries, as for `evaluate`.
        database_codes: Codes of the database, as for `evaluate`, in the order of the database; product codes
            for "paper:spq", binary codes for all other presets.
        query_labels: Labels of the queries, as for `evaluate`.
        database_labels: Labels of the database, as for `evaluate`.
        preset: A name in `PRESETS`.
        dataset: Name of the dataset, since the script may have a different K or order for it.
        k: The cutoff; None is the K of the script.
        order: The order of the database; None is that of the script.
        seed: Random seed of a shuffled order. The scripts set none, so every seed is equally valid.

    Raises:
        UsageError: An argument is invalid, or the script does not rank codes of this kind.
    """
    script = _find_preset(preset)
    check_type("dataset", dataset, str)
    script_k, script_order = script.rules(dataset)
    k = script_k if k is None else k
    order = script_order if order is None else order
    if (k := check_cutoff(k)) == "R":
        raise UsageError(f"{preset}: k: expected a number of items, 1 or more, or 'all', got 'R'")
    seed = as_count(seed, "seed", "a whole number, 0 or more", least=0)
    check_choice("order", order, get_args(Order))
    if script.product != isinstance(database_codes, ProductCodes):
        kind = "product" if script.product else "binary"
        raise UsageError(f"{preset}: the script ranks only {kind} codes; choose another preset")
    queries: Sized
    sort: Callable[[Distances], NDArray[np.int64]]
    if isinstance(database_codes, ProductCodes):
        if database_codes.distance != "l2":
            raise UsageError(f"{preset}: the script ranks by l2, not by {database_codes.distance}")
        queries = vectors = read_vectors(query_codes, database_codes)
        items = _permutation(len(database_codes), order, seed)
        distances, sort = _asymmetric(vectors, database_codes[items]), _torch_argsort
    else:
        query, database = read_codes(query_codes, database_codes)
        queries = query
        items = _permutation(len(database), order, seed)
        distances, sort = _hamming(query.to_signs(), database[items].to_signs()), np.argsort
    query_classes = read_labels(query_labels, "query", queries)
    database_classes = read_labels(database_labels, "database", items)
    check_comparable(query_classes, database_classes)
    top = None if k == "all" else k
    scores = [
        _average_precision(relevant[sort(row)[:top]])
        for row, relevant in zip(
            distances, _relevance(query_classes, database_classes.packed[items]), strict=True
        )
    ]
    return float(np.mean(scores))


def _average_precision(hits: NDArray[np.bool_]) -> float:
    """Return the AP of a ranking [k]: the mean precision at the ranks of the hits, or 0 without hits."""
    ranks = np.flatnonzero(hits) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else 0.0


def _hamming(query: NDArray[np.int8], database: NDArray[np.int8]) -> Iterator[Distances]:
    """Yield the Hamming distances of codes of ±1 from each query, in the type that the scripts sort."""
    signs = database.astype(np.float32)
    for code in query.astype(np.float32):
        yield 0.5 * (signs.shape[1] - signs @ code)


def _asymmetric(query: NDArray[np.float32], database: ProductCodes) -> Iterator[Distances]:
    """Yield the asymmetric distances from each query: sums over books, in single precision.

    torch may round the last digit of the distance to a codeword differently.
    """
    books, _, dim = database.codebooks.shape
    for vector in query:
        table = np.linalg.norm(vector.reshape(books, 1, dim) - database.codebooks, axis=2)
        distance = table[0][database.indices[:, 0]]
        for book in range(1, books):  # in this order, since sums in single precision depend on it
            distance = distance + table[book][database.indices[:, book]]
        yield distance


def _torch_argsort(distances: Distances) -> NDArray[np.int64]:
    import torch  # takes a second to import

    order: NDArray[np.int64] = torch.argsort(torch.from_numpy(distances)).numpy()
    return order


def _relevance(query: Labels, database: NDArray[np.uint64]) -> Iterator[NDArray[np.bool_]]:
    """Yield the relevance of each item for each query; `database` has the form of `Labels.packed`."""
    for label in query.packed:
        yield database[:, 0] == label if query.by_class else (database & label).any(axis=1)


def _permutation(items: int, order: Order, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(items) if order == "shuffled" else np.arange(items)
