"""The images that are relevant to the queries of a run: by labels, or the nearest by features."""

from __future__ import annotations

from typing import Any

from hashbench.config import RunConfig
from hashbench.data.dataset import Split
from hashbench.encoding.features import BATCH_SIZE, FeatureExtractor
from hashbench.errors import UsageError
from hashbench.experiment.weights import build_backbone
from hashbench.runtime.torch_errors import ENCODE_LESS, translate_errors


def require_relevance(query: Split, database: Split, config: RunConfig) -> None:
    """Check that the images have labels; or else that there are enough neighbours, by trained features.

    Raises:
        UsageError: This is not so.
    """
    if config.evaluation.relevance == "labels":
        if query.labels.shape[1:] != (0,):
            return
        raise UsageError(
            f"the images of {config.dataset}@{config.protocol} have no labels, so nothing is relevant to a "
            "query; pass --set relevance=neighbours, and the nearest images by features are relevant"
        )
    if not config.backbone.pretrained:
        raise UsageError(
            f"relevance=neighbours needs a pretrained backbone, and {config.method} has an untrained "
            f"{config.backbone.name}; choose one with --backbone NAME --set pretrained=true"
        )
    wanted, images = config.evaluation.neighbours, len(database.images)
    if wanted > images:
        raise UsageError(
            f"evaluation.neighbours={wanted}: the database has only {images:,} images; choose fewer"
        )


def relevant_images(query: Split, database: Split, config: RunConfig, workers: int) -> dict[str, Any]:
    """Return the arguments of `hashbench.evaluate` that say which images are relevant.

    Neighbours are those by Euclidean distance between the pooled features of the backbone before training, as
    in ITQ (Gong and Lazebnik, CVPR 2011, section 3.2), but a fixed number for each query.

    Returns:
        `query_labels` and `database_labels`; or `neighbours`, the rows of the database, int64
        [queries, evaluation.neighbours], nearest first.

    Raises:
        UsageError: See `require_relevance`.
        HashbenchError: An image cannot be read, or the machine failed.
    """
    require_relevance(query, database, config)
    if config.evaluation.relevance == "labels":
        return {"query_labels": query.labels, "database_labels": database.labels}
    from sklearn.neighbors import NearestNeighbors  # takes a second to import

    exact = config.evaluation.model_copy(update={"precision_encode": "float32"})  # whatever codes are made in
    config = config.model_copy(update={"evaluation": exact})
    features = FeatureExtractor(build_backbone(config), config, workers)
    with translate_errors(config, f"features of {BATCH_SIZE} images at once", ENCODE_LESS):
        searched, queries = (features(part.images, "neighbours") for part in (database, query))
    search = NearestNeighbors(n_neighbors=config.evaluation.neighbours, algorithm="brute").fit(
        searched.numpy()
    )
    return {"neighbours": search.kneighbors(queries.numpy(), return_distance=False)}
