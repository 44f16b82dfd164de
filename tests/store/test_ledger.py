"""Known versions, and moves of the live pointers."""

from __future__ import annotations

import pytest
from helpers.stores import (
    BLUE,
    BOOT,
    LATER,
    NIGHT,
    RED,
    TEAL,
    add_bundles,
    make_live,
)

from shoetagger.store.rows import (
    MoveConflict,
    StoreError,
)
from shoetagger.store.store import Store


def test_a_digest_names_one_bundle_for_good(store: Store) -> None:
    add_bundles(store)
    add_bundles(store)
    assert [v.digest for v in store.ledger.versions("color")] == [RED, BLUE, TEAL]
    assert [v.digest for v in store.ledger.versions()] == [RED, BLUE, TEAL, BOOT]
    place = {"registry_name": "shoetagger-color", "version": "7", "now": LATER}
    store.ledger.add_version(digest=RED, group="color", tags=["red", "blue"], **place)
    known = store.ledger.version_of(RED)
    assert known is not None
    assert (known.version, known.registered_at, known.tags) == ("7", NIGHT, ("red", "blue"))
    assert store.ledger.version_of("9" * 64) is None
    for wrong in ({"group": "style", "tags": ["red", "blue"]}, {"group": "color", "tags": ["red"]}):
        with pytest.raises(StoreError, match="a digest names one bundle for good"):
            store.ledger.add_version(digest=RED, **wrong, **place)


def test_a_move_counts_when_it_is_done(store: Store) -> None:
    add_bundles(store)
    move = store.ledger.begin(
        "color",
        RED,
        kind="promote",
        by="me",
        why="first",
        data_revision="abc",
        mlflow_run="def",
        expect_from=None,
        now=NIGHT,
    )
    assert store.ledger.live() == {}
    assert [m.id for m in store.ledger.pending()] == [move]
    store.ledger.finish(move, LATER)
    store.ledger.finish(move)
    assert store.ledger.live() == {"color": RED}
    assert store.ledger.pending() == []
    (done,) = store.ledger.history("color")
    assert (done.from_digest, done.to_digest, done.state) == (None, RED, "done")
    assert (done.by, done.why, done.data_revision, done.mlflow_run) == ("me", "first", "abc", "def")
    assert (done.created_at, done.done_at) == (NIGHT, LATER)
    with pytest.raises(StoreError, match="is done: it cannot become cancelled"):
        store.ledger.cancel(move)
    with pytest.raises(StoreError, match="no move 99"):
        store.ledger.finish(99)


def test_moves_that_conflict_are_refused(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    who = {"kind": "promote", "by": "me", "why": "why"}
    with pytest.raises(MoveConflict, match="moved meanwhile"):
        store.ledger.begin("color", BLUE, expect_from=None, **who)
    with pytest.raises(MoveConflict, match="is live already"):
        store.ledger.begin("color", RED, expect_from=store.ledger.live().get("color"), **who)
    with pytest.raises(StoreError, match="is of group style"):
        store.ledger.begin("color", BOOT, expect_from=store.ledger.live().get("color"), **who)
    with pytest.raises(StoreError, match="add_version comes first"):
        store.ledger.begin("color", "9" * 64, expect_from=store.ledger.live().get("color"), **who)
    with pytest.raises(StoreError, match="only a removal goes nowhere"):
        store.ledger.begin("color", None, expect_from=store.ledger.live().get("color"), **who)
    first = store.ledger.begin("color", BLUE, expect_from=RED, **who)
    with pytest.raises(MoveConflict, match=f"move {first} .*is pending"):
        store.ledger.begin("color", TEAL, expect_from=RED, **who)
    store.ledger.begin(
        "style", BOOT, expect_from=store.ledger.live().get("style"), **who
    )  # groups do not wait for one another
    store.ledger.cancel(first)
    assert store.ledger.live() == {"color": RED}
    store.ledger.finish(store.ledger.begin("color", TEAL, expect_from=RED, **who))
    assert store.ledger.live() == {"color": TEAL}
    assert [m.state for m in store.ledger.history("color")] == ["done", "cancelled", "done"]


def test_the_chain_leaves_out_what_was_rolled_back(store: Store) -> None:
    add_bundles(store)
    assert store.ledger.chain("color") == []
    make_live(store, "color", RED)
    make_live(store, "color", BLUE)
    make_live(store, "color", TEAL)
    assert store.ledger.chain("color") == [TEAL, BLUE, RED]
    make_live(store, "color", BLUE, "rollback")
    assert store.ledger.chain("color") == [BLUE, RED]
    make_live(store, "color", TEAL)  # promoted after all
    assert store.ledger.chain("color") == [TEAL, BLUE, RED]
    make_live(store, "color", RED, "manual")  # the alias moved back by hand
    assert store.ledger.chain("color") == [RED]
    make_live(store, "color", BLUE)
    make_live(store, "color", RED)  # an old bundle promoted again: BLUE was never rolled back
    assert store.ledger.chain("color") == [RED, BLUE]
    make_live(store, "color", TEAL, "rollback")  # to one that had itself been rolled back
    assert store.ledger.chain("color") == [TEAL, BLUE]
    make_live(store, "color", None, "remove")
    assert store.ledger.chain("color") == []
    assert store.ledger.live() == {}
    make_live(store, "color", RED)
    assert store.ledger.chain("color") == [RED, TEAL, BLUE]
