"""Is a dataset what its protocol says, and are its images sound?"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.data.dataset import Dataset
from hashbench.data.protocol import Overlaps, Protocol
from hashbench.data.split_checks import unlabelled
from hashbench.errors import HashbenchError
from hashbench.images.decoding import decode, looks_like_image
from hashbench.images.image_sets import FileImages, Images
from hashbench.runtime.progress import in_threads


@dataclass(frozen=True)
class Duplicates:
    """Images with the same content under several ids.

    Attributes:
        groups: How many different images are there more than once.
        query_database: How many queries have the content of a database image of another id.
        conflicting: Groups whose images have other labels; the first ids of each.
        examples: The ids of the first groups.
    """

    groups: int
    query_database: int
    conflicting: list[list[str]]
    examples: list[list[str]]


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        dataset: Name of the dataset.
        protocol: Name of the protocol.
        fingerprint: See `hashbench.data.protocol.fingerprint`.
        classes: Number of classes.
        counts: Number of images by part.
        expected: What the protocol says, by part; None: nothing.
        unlabelled: Images without any label, by part.
        unanswerable: Queries to which nothing in the database is relevant.
        overlaps: Ids that parts share.
        duplicates: Images that parts share by content.
        truncated: Files that end too early, and were accepted as asked; only if they were decoded.
        decoded: Whether all images were decoded.
        problems: What is wrong, one sentence each.
        warnings: What is odd, one sentence each.
    """

    dataset: str
    protocol: str
    fingerprint: str
    classes: int
    counts: dict[str, int]
    expected: dict[str, int | None]
    unlabelled: dict[str, int]
    unanswerable: int
    overlaps: Overlaps
    duplicates: Duplicates
    truncated: list[str]
    decoded: bool
    problems: list[str]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self)


def verify(dataset: Dataset, protocol: Protocol, *, decode_all: bool = False) -> Verification:
    """Read every image of a dataset once, and check what loading cannot.

    Args:
        dataset: From `load_dataset`, not packed.
        protocol: What it should be.
        decode_all: Decode every image, too.
    """
    parts = {name: part.images for name, part in dataset.parts().items()}
    labels = {name: part.labels for name, part in dataset.parts().items()}
    counts = {part: len(images) for part, images in parts.items()}
    differences = protocol.differences(**counts)
    problems = list(differences)
    if dataset.overlaps.query_database:
        problems.append(f"{dataset.overlaps.query_database:,} queries are also in the database")

    unique = {
        (name, images.paths[row] if isinstance(images, FileImages) else ""): (images, row)
        for images in parts.values()
        for row, name in enumerate(images.ids)
    }

    def inspect(item: tuple[Images, int]) -> _Inspected:
        return _inspect(*item, decode_all)

    content_of: dict[str, bytes] = {}
    by_content: dict[bytes, list[str]] = defaultdict(list)
    truncated: list[str] = []
    for (name, _), found in zip(unique, in_threads("verify", inspect, [*unique.values()]), strict=True):
        if found.error is not None:
            problems.append(found.error)
        elif name not in content_of:
            content_of[name] = found.digest
            by_content[found.digest].append(name)
        elif content_of[name] != found.digest:
            problems.append(f"{name} is another image in another part")
        if found.truncated:
            truncated.append(name)
    groups = [group for group in by_content.values() if len(group) > 1]
    label_of: dict[str, bytes] = {}
    other_labels = [
        name
        for part, images in parts.items()
        for name, row in zip(images.ids, labels[part], strict=True)
        if label_of.setdefault(name, row.tobytes()) != row.tobytes()
    ]
    if other_labels:
        problems.append(
            f"{len(other_labels):,} images have other labels in another part, such as {other_labels[0]}"
        )
    stored = set(parts["database"].ids)
    asked = set(parts["query"].ids)
    conflicting = [group for group in groups if any(label_of[n] != label_of[group[0]] for n in group)]
    return Verification(
        dataset=dataset.name,
        protocol=dataset.protocol,
        fingerprint=dataset.fingerprint,
        classes=len(dataset.class_names),
        counts=counts,
        expected=protocol.counts,
        unlabelled={part: int(unlabelled(rows).sum()) for part, rows in labels.items()},
        unanswerable=_unanswerable(labels["query"], labels["database"]),
        overlaps=dataset.overlaps,
        duplicates=Duplicates(
            groups=len(groups),
            query_database=sum(
                name in asked and any(other in stored for other in group if other != name)
                for group in groups
                for name in group
            ),
            conflicting=conflicting,
            examples=groups[:5],
        ),
        truncated=truncated,
        decoded=decode_all,
        problems=problems,
        warnings=[warning for warning in dataset.warnings if warning not in differences],
    )


def _unanswerable(query: NDArray[Any], database: NDArray[Any]) -> int:
    """How many queries have none of the classes that the database has."""
    if query.ndim == 1:
        return int((~np.isin(query, database)).sum())
    return int((~query[:, database.any(axis=0)].any(axis=1)).sum())


@dataclass(frozen=True)
class _Inspected:
    digest: bytes = b""
    error: str | None = None
    truncated: bool = False


def _inspect(images: Images, row: int, decode_all: bool) -> _Inspected:
    try:
        content = images.content(row)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if not isinstance(images, FileImages) or (looks_like_image(content[:12]) and not decode_all):
            return _Inspected(digest)
        image = decode(content, name=images.paths[row], truncated=images.truncated)
        return _Inspected(digest, truncated="truncated" in image.info)
    except HashbenchError as error:
        return _Inspected(error=str(error))
