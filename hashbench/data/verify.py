"""Verify that a dataset matches its protocol and that its images are undamaged."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashbench.data.dataset import Dataset, Split
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
        groups: Number of different images that occur more than once.
        query_database: Number of queries with the content of a database image that has another id.
        conflicting: Ids of the groups whose images have different labels.
        examples: Ids of the first groups.
    """

    groups: int
    query_database: int
    conflicting: list[list[str]]
    examples: list[list[str]]


@dataclass(frozen=True)
class Verification:
    """Result of the verification.

    Attributes:
        dataset: Name of the dataset.
        protocol: Name of the protocol.
        fingerprint: See `hashbench.data.protocol.fingerprint`.
        classes: Number of classes.
        counts: Number of images by part.
        expected: Number of images by part in the protocol; None: it depends on the data.
        unlabelled: Number of images without a label, by part.
        unanswerable: Number of queries without a relevant database image.
        overlaps: Number of ids that parts share.
        duplicates: Images with the same content.
        truncated: Truncated files that were accepted by the options; known only of decoded images.
        decoded: True if all images were decoded.
        problems: Errors, one sentence each.
        warnings: Warnings, one sentence each.
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


def verify(dataset: Dataset, protocol: Protocol, *, decode_all: bool = False) -> Verification:
    """Read every image of a dataset, and check what loading does not check.

    Args:
        dataset: From `load_dataset` with packed=False.
        protocol: The protocol to compare with.
        decode_all: Also decode every image.
    """
    parts = dataset.parts()
    counts = {name: len(part.images) for name, part in parts.items()}
    differences = protocol.differences(**counts)
    problems = list(differences)
    if dataset.overlaps.query_database:
        problems.append(f"{dataset.overlaps.query_database:,} queries are also in the database")
    groups, truncated = _read_images(parts, decode_all, problems)
    labels_by_id: dict[str, bytes] = {}
    differing = [
        name
        for part in parts.values()
        for name, row in zip(part.images.ids, part.labels, strict=True)
        if part.labels.shape[1:] != (0,)  # training images without labels contradict nothing
        and labels_by_id.setdefault(name, row.tobytes()) != row.tobytes()
    ]
    if differing:
        problems.append(
            f"{len(differing):,} images have different labels in another part, such as {differing[0]}"
        )
    query_ids, database_ids = set(parts["query"].images.ids), set(parts["database"].images.ids)
    return Verification(
        dataset=dataset.name,
        protocol=dataset.protocol,
        fingerprint=dataset.fingerprint,
        classes=len(dataset.class_names),
        counts=counts,
        expected=protocol.counts,
        unlabelled={name: int(unlabelled(part.labels).sum()) for name, part in parts.items()},
        unanswerable=_unanswerable(parts["query"].labels, parts["database"].labels),
        overlaps=dataset.overlaps,
        duplicates=Duplicates(
            groups=len(groups),
            query_database=sum(
                name in query_ids and any(other in database_ids for other in group if other != name)
                for group in groups
                for name in group
            ),
            conflicting=[
                group for group in groups if len({labels_by_id[n] for n in group if n in labels_by_id}) > 1
            ],
            examples=groups[:5],
        ),
        truncated=truncated,
        decoded=decode_all,
        problems=problems,
        warnings=[warning for warning in dataset.warnings if warning not in differences],
    )


def _read_images(
    parts: Mapping[str, Split], decode_all: bool, problems: list[str]
) -> tuple[list[list[str]], list[str]]:
    """Read every file once and append errors to `problems`.

    Returns:
        The groups of ids with the same content, and the ids of truncated images.
    """
    unique = {
        (name, part.images.paths[row] if isinstance(part.images, FileImages) else ""): (part.images, row)
        for part in parts.values()
        for row, name in enumerate(part.images.ids)
    }

    def inspect(item: tuple[Images, int]) -> tuple[bytes, bool, str]:
        """Return the digest of an image, True if it is truncated, and its error."""
        images, row = item
        try:
            content = images.content(row)
            digest = hashlib.blake2b(content, digest_size=16).digest()
            if not isinstance(images, FileImages) or (looks_like_image(content[:12]) and not decode_all):
                return digest, False, ""
            image = decode(content, name=images.paths[row], truncated=images.truncated)
            return digest, "truncated" in image.info, ""
        except HashbenchError as error:
            return b"", False, str(error)

    digests: dict[str, bytes] = {}
    groups: dict[bytes, list[str]] = defaultdict(list)
    truncated: list[str] = []
    found = in_threads("verify", inspect, [*unique.values()])
    for (name, _), (digest, is_truncated, error) in zip(unique, found, strict=True):
        if error:
            problems.append(error)
        elif name not in digests:
            digests[name] = digest
            groups[digest].append(name)
        elif digests[name] != digest:
            problems.append(f"{name} is a different image in another part")
        if is_truncated:
            truncated.append(name)
    return [group for group in groups.values() if len(group) > 1], truncated


def _unanswerable(query: NDArray[Any], database: NDArray[Any]) -> int:
    """Return the number of queries with none of the classes that the database has."""
    if query.ndim == 1:
        return int((~np.isin(query, database)).sum())
    return int((~query[:, database.any(axis=0)].any(axis=1)).sum())
