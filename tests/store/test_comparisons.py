"""What is kept of comparisons, and for how long."""

from __future__ import annotations

from datetime import timedelta

import pytest
from helpers.stores import BLUE, BOOT, LATER, NIGHT, add_bundles, image, tag

from shoetagger.store import comparisons
from shoetagger.store.rows import TagChange
from shoetagger.store.store import Store

CHANGES = (
    TagChange(image("a.jpg"), ("red",), ("blue",)),
    TagChange(image("b.jpg"), ("red",), ("red", "blue")),
)


@pytest.fixture
def known(store: Store) -> Store:
    add_bundles(store)
    tag(store, "a.jpg", "b.jpg")
    return store


def test_the_latest_comparison_of_a_challenger_is_kept(known: Store) -> None:
    known.comparisons.record(BLUE, {"title": "first"}, CHANGES, now=NIGHT)
    known.comparisons.record(BLUE, {"title": "second"}, CHANGES[1:], now=LATER)
    found = known.comparisons.get(BLUE)
    assert found is not None
    assert (found.created_at, found.document) == (LATER, {"title": "second"})
    assert found.changes == CHANGES[1:]
    assert known.comparisons.get(BOOT) is None
    assert known.comparisons.latest() == [(BLUE, LATER)]


def test_an_erased_picture_is_in_none_before_and_after(known: Store) -> None:
    known.comparisons.record(BLUE, {}, CHANGES, now=NIGHT)
    known.files.forget(image("a.jpg"), NIGHT)
    assert known.comparisons.get(BLUE).changes == CHANGES[1:]
    known.comparisons.record(BLUE, {}, CHANGES, now=LATER)
    assert known.comparisons.get(BLUE).changes == CHANGES[1:]


def test_of_a_group_the_latest_ones_are_kept(known: Store) -> None:
    digests = [f"{number:064x}" for number in range(comparisons.KEPT + 3)]
    for number, digest in enumerate(digests):
        known.ledger.add_version(
            digest=digest, group="color", tags=["red", "blue"], registry_name=None, version=None,
            now=NIGHT,
        )  # fmt: skip
        at = NIGHT + timedelta(hours=number)
        known.comparisons.record(digest, {}, CHANGES, now=at)
    known.comparisons.record(BOOT, {}, (), now=NIGHT)
    kept = [digest for digest, _ in known.comparisons.latest()]
    assert kept == [*digests[:2:-1], BOOT]
    assert known.comparisons.get(digests[0]) is None
