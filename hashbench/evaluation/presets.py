"""What the script released with a paper would have said of the same codes, its order of ties included.

All four scripts mean over all queries, divide AP@K by the hits in the top K, and score a query without a hit
there 0; they differ in K, in the order of the database and in how they sort it. A sort of few distances
breaks ties by chance, so that their figure is one of many: `Evaluation` has the mean of all, and the bounds.

None of them asks for a stable sort. NumPy's default one, and so the order that it leaves ties in, depends on
the type of the distances, on the version of NumPy and on the instructions of the processor; torch's likewise.
`published` calls the same function on the same type, and so says what the script would say on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hashbench.codes import Codes, ProductCodes
from hashbench.errors import UsageError, unknown_name
from hashbench.evaluation.counts.labels import Labels
from hashbench.evaluation.inputs import check_comparable, read_codes, read_labels, read_vectors
from hashbench.evaluation.result import Cutoff, check_cutoff
from hashbench.runtime.arguments import as_count, check_choice, check_type

Order = Literal["database", "shuffled"]
# Distances of one query, float32 [items].
Distances = NDArray[np.float32]


@dataclass(frozen=True)
class Preset:
    """The evaluation of a released script.

    Attributes:
        source: Repository, commit, and the file and functions that rank.
        k: The K of its mAP@K, for CIFAR-10 and any dataset that the script does not know.
        order: The order that it meets the database in there: as given, or shuffled by its loader.
        elsewhere: K and order by dataset, where they differ.
        product: Whether it ranks by asymmetric distances to product codes, sorted by torch; else by Hamming
            distances, sorted by NumPy.
    """

    source: str
    k: Cutoff
    order: Order
    elsewhere: Mapping[str, tuple[Cutoff, Order]] = field(default_factory=dict)
    product: bool = False

    def rules(self, dataset: str) -> tuple[Cutoff, Order]:
        """K and the order of the database, for a dataset."""
        return self.elsewhere.get(dataset, (self.k, self.order))

    def settings(self, dataset: str = "cifar10") -> dict[str, Any]:
        """The settings of `evaluate` that define mAP@K as the script does, but for its order of ties."""
        return {"k": (self.rules(dataset)[0],), "denominator": "hits", "no_relevant": "zero"}


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
"""By name, "paper:METHOD"."""


def find_preset(name: str) -> Preset:
    """The preset of a name in `PRESETS`; UsageError if there is none."""
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
    """The mAP@K that the script of a paper would report of these codes.

    Each query ranks the whole database by the script's sort, which takes O(items · log items) time and
    O(items) memory beside the codes of the database as float32.

    Args:
        query_codes: As for `evaluate`.
        database_codes: As for `evaluate`, in the order of the database; product codes for "paper:spq", binary
            ones for all others.
        query_labels: As for `evaluate`.
        database_labels: As for `evaluate`.
        preset: A name in `PRESETS`.
        dataset: Of the codes; the script may have another K or order for it.
        k: Another K than the script's.
        order: Another order of the database than the script's.
        seed: Of the shuffled order; the scripts do not set theirs, so any is as good.

    Raises:
        UsageError: An argument cannot be read or has no such value, or the codes are of the other kind.
    """
    script = find_preset(preset)
    check_type("dataset", dataset, str)
    script_k, script_order = script.rules(dataset)
    k = script_k if k is None else k
    order = script_order if order is None else order
    k, seed = check_cutoff(k), as_count(seed, "seed", "a whole number, 0 or more", least=0)
    check_choice("order", order, get_args(Order))
    if script.product != isinstance(database_codes, ProductCodes):
        kind = "product" if script.product else "binary"
        raise UsageError(f"{preset}: the script ranks {kind} codes only; choose another preset")
    queries: Sized
    sort: Callable[[Distances], NDArray[np.int64]]
    if isinstance(database_codes, ProductCodes):
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
    """AP of a ranking, bool [k]: the mean over the hits of the precision at their rank; without any 0."""
    ranks = np.flatnonzero(hits) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else 0.0


def _hamming(query: NDArray[np.int8], database: NDArray[np.int8]) -> Iterator[Distances]:
    """Hamming distances of ±1, query by query, in the type that the scripts sort."""
    signs = database.astype(np.float32)
    for code in query.astype(np.float32):
        yield 0.5 * (signs.shape[1] - signs @ code)


def _asymmetric(query: NDArray[np.float32], database: ProductCodes) -> Iterator[Distances]:
    """Sums over books of the distance from the query's piece to the codeword, in single precision.

    torch may round the last digit of a distance to a codeword otherwise.
    """
    books, _, dim = database.codebooks.shape
    for vector in query:
        table = np.linalg.norm(vector.reshape(books, 1, dim) - database.codebooks, axis=2)
        distance = table[0][database.indices[:, 0]]
        for book in range(1, books):  # in this order, as sums in single precision depend on it
            distance = distance + table[book][database.indices[:, book]]
        yield distance


def _torch_argsort(distances: Distances) -> NDArray[np.int64]:
    import torch  # here, as it takes a second to import

    order: NDArray[np.int64] = torch.argsort(torch.from_numpy(distances)).numpy()
    return order


def _relevance(query: Labels, database: NDArray[np.uint64]) -> Iterator[NDArray[np.bool_]]:
    """Whether each item is relevant, query by query; `database` as in `Labels.packed`."""
    for label in query.packed:
        yield database[:, 0] == label if query.by_class else (database & label).any(axis=1)


def _permutation(items: int, order: Order, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(items) if order == "shuffled" else np.arange(items)
