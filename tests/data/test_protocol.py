from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray

from hashbench.data.protocol import (
    Overlaps,
    Protocol,
    draw,
    draw_by_quota,
    draw_per_class,
    fingerprint,
    overlaps,
)
from hashbench.errors import HashbenchError

Part = tuple[list[str], NDArray[Any]]


def named(labels: NDArray[Any], prefix: str = "") -> Part:
    return [f"{prefix}{index}" for index in range(len(labels))], labels


def test_fingerprint_is_the_documented_bytes() -> None:
    train = ["a/1.jpg", "ü"], np.array([[1, 0, 1], [0, 0, 0]])
    query = ['q"'], np.array([[0, 1, 0]])
    database = ["d"], np.array([[0, 0, 1]])
    expected = (
        b'["train",[["a/1.jpg",[0,2]],["\\u00fc",[]]]]\n["query",[["q\\"",[1]]]]\n["database",[["d",[2]]]]\n'
    )
    assert fingerprint(train, query, database) == hashlib.sha256(expected).hexdigest()


@settings(deadline=None)
@given(stn.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 6)))
def test_fingerprint_ignores_how_labels_are_written(class_ids: NDArray[np.int64]) -> None:
    digests = {
        fingerprint(named(labels, "t"), named(labels, "q"), named(labels, "d"))
        for labels in (
            class_ids,
            class_ids.astype(np.uint8),
            np.eye(7)[class_ids],
            np.eye(7, dtype=bool)[class_ids],
        )
    }
    assert len(digests) == 1


def test_fingerprint_sees_ids_labels_order_and_part() -> None:
    one, two = (["a", "b"], np.array([0, 1])), (["c", "d"], np.array([1, 1]))
    variants = [
        fingerprint(one, two, two),
        fingerprint(two, one, two),
        fingerprint((["b", "a"], np.array([1, 0])), two, two),
        fingerprint((["a", "b"], np.array([0, 0])), two, two),
        fingerprint((["a", "e"], np.array([0, 1])), two, two),
    ]
    assert len(set(variants)) == len(variants)


def test_overlaps_count_by_id() -> None:
    assert overlaps(["a", "b", "c"], ["c", "d"], ["b", "c", "e"]) == Overlaps(
        query_database=1, query_train=1, train_database=2
    )


@settings(deadline=None)
@given(
    class_ids=stn.arrays(np.int64, st.integers(50, 120), elements=st.integers(0, 2)),
    counts=st.lists(st.integers(0, 4), max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_drawn_groups_are_disjoint_balanced_and_complete(
    class_ids: NDArray[np.int64], counts: list[int], seed: int
) -> None:
    classes = [c for c in range(3) if (class_ids == c).sum() >= sum(counts)]
    kept = class_ids[np.isin(class_ids, classes)]
    *groups, rest = draw_per_class(kept, counts, seed)
    assert sorted(np.concatenate([*groups, rest])) == list(range(len(kept)))
    for group, count in zip(groups, counts, strict=True):
        assert [(kept[group] == c).sum() for c in classes] == [count] * len(classes)
        assert (np.diff(group) > 0).all()


def test_a_draw_never_changes() -> None:
    query, train, rest = draw_per_class(np.arange(40) % 4, [1, 2], seed=0)
    assert query.tolist() == [8, 10, 13, 27]
    assert train.tolist() == [5, 7, 14, 16, 21, 32, 34, 39]
    assert len(rest) == 28
    assert draw_per_class(np.arange(40) % 4, [1, 2], seed=1)[0].tolist() != query.tolist()


def test_a_class_that_is_too_small_is_an_error() -> None:
    with pytest.raises(HashbenchError, match=r"draws 6 .* there are 5 \(3 per class, and class 1 has 2\)"):
        draw_per_class(np.array([0, 0, 0, 1, 1]), [1, 2], seed=0)


@settings(deadline=None)
@given(
    total=st.integers(0, 60), counts=st.lists(st.integers(0, 20), max_size=3), seed=st.integers(0, 2**32 - 1)
)
def test_draws_are_disjoint_and_complete(total: int, counts: list[int], seed: int) -> None:
    if total < sum(counts):
        with pytest.raises(
            HashbenchError, match=f"the protocol draws .* labelled images, and there are {total}$"
        ):
            draw(total, counts, seed)
        return
    groups = draw(total, counts, seed)
    assert [len(group) for group in groups] == [*counts, total - sum(counts)]
    assert sorted(np.concatenate(groups)) == list(range(total))
    assert all((np.diff(group) > 0).all() for group in groups)


def test_such_a_draw_never_changes() -> None:
    one, other, rest = draw(12, [2, 3], seed=0)
    assert (one.tolist(), other.tolist(), len(rest)) == ([6, 11], [2, 4, 10], 7)


def by_quota(labels: NDArray[Any], quotas: list[int], seed: int, only: NDArray[Any]) -> list[list[int]]:
    """An image counts for its first class with an unfilled quota, in the first group where it is unfilled."""
    left = {(group, label): quota for group, quota in enumerate(quotas) for label in range(labels.shape[1])}
    groups: list[list[int]] = [[] for _ in quotas]
    for image in np.random.RandomState(seed).permutation(len(labels)):
        places = [
            (group, label)
            for label in np.flatnonzero(labels[image])
            for group in range(len(quotas))
            if left[group, label]
        ]
        if places and only[image]:
            left[places[0]] -= 1
            groups[places[0][0]].append(int(image))
    return [sorted(group) for group in groups]


@settings(deadline=None)
@given(
    labels=stn.arrays(np.uint8, st.tuples(st.integers(60, 90), st.just(3)), elements=st.integers(0, 1)),
    only=stn.arrays(np.bool_, 90, elements=st.sampled_from([True, True, True, False])),
    quotas=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_quotas_are_filled_by_the_rule(
    labels: NDArray[np.uint8], only: NDArray[np.bool_], quotas: list[int], seed: int
) -> None:
    only = only[: len(labels)]
    expected = by_quota(labels, quotas, seed, only)
    if [len(group) for group in expected] != [3 * quota for quota in quotas]:
        with pytest.raises(
            HashbenchError,
            match=r"draws \d+ labelled images, .* \(\d+ per class; \d+ have the label class \d",
        ):
            draw_by_quota(labels, quotas, seed, only=only)
        return
    *groups, rest = draw_by_quota(labels, quotas, seed, only=only)
    assert [group.tolist() for group in groups] == expected
    assert sorted(np.concatenate([*groups, rest])) == list(range(len(labels)))


def test_a_protocol_says_how_a_split_differs() -> None:
    protocol = Protocol("any", query=1_000, database=5_000)
    assert protocol.counts == {"query": 1_000, "train": None, "database": 5_000}
    assert protocol.differences(query=1_000, train=3, database=5_000) == []
    assert protocol.differences(query=999, train=3, database=5_001) == [
        "query has 999 images, not 1,000",
        "database has 5,001 images, not 5,000",
    ]


def test_a_class_that_cannot_fill_its_places_is_named() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 1]], np.uint8)
    with pytest.raises(
        HashbenchError, match=r"draws 4 labelled images, and there are 3 \(2 per class; 1 have the label dog"
    ):
        draw_by_quota(labels, [1, 1], seed=0, class_names=["cat", "dog"])
