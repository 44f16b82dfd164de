"""Moves of a live pointer that meet one another, on a registry that can be away or answer late."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from helpers import fakes, stores
from helpers.fakes import Registry
from helpers.model import digest_of

from shoetagger.promotion.compare import Comparison
from shoetagger.promotion.moves import promote, reconcile, rollback
from shoetagger.promotion.versions import PromotionError
from shoetagger.store.rows import Move, MoveConflict, StoreError
from shoetagger.store.store import Store
from shoetagger.tracking.connection import MLflowUnavailable

FIRST, SECOND, THIRD = (digest_of("color", number) for number in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    bundles = ModuleType("shoetagger.inference.bundle")  # the real one imports torch
    bundles.load_bundle = fakes.load_bundle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, bundles.__name__, bundles)
    monkeypatch.setattr("shoetagger.promotion.versions.has_intact_bundle", lambda *_: True)
    with Store(stores.migrated(f"sqlite:///{tmp_path / 'store.db'}")) as opened:
        yield opened


@pytest.fixture
def registry(store: Store) -> Registry:
    """A registry with three versions, none of them live."""
    made = Registry()
    for _ in range(3):
        fakes.add_version(store, made.register("color"), datetime.now(UTC))
    return made


def passed(store: Store, number: int, *, counted: bool = True) -> Comparison:
    """A challenger that passed the gate against what is live."""
    return Comparison(
        group="color",
        challenger=digest_of("color", number),
        version=str(number),
        champion=store.ledger.live().get("color"),
        champion_version=None,
        passes=True,
        reasons=("for the test",),
        approval_reason=None,
        hours=1.0,
        metrics={},
        data_revision="revision",
        mlflow_run=None,
        text="",
        report=None,
        moves=len(done(store)) if counted else None,
    )


def done(store: Store) -> list[Move]:
    return [move for move in store.ledger.history("color") if move.state == "done"]


def promote_all(store: Store, registry: Registry, *numbers: int) -> None:
    for number in numbers:
        promote(store, registry, passed(store, number), None, by="test")


def roll_back(store: Store, registry: Registry, to: str | None = None) -> str:
    return rollback(store, registry, "color", bundles=Path(), to=to, by="me", why="worse")


def test_only_what_was_live_can_be_rolled_back_to(store: Store, registry: Registry) -> None:
    promote_all(store, registry, 1, 3)
    with pytest.raises(PromotionError, match=r"version 2 was never live.* live are 1, 3"):
        roll_back(store, registry, to="2")
    assert store.ledger.live() == {"color": THIRD}
    assert roll_back(store, registry, to="1") == "1"
    assert roll_back(store, registry, to="3") == "3"  # it was live, and rolled back since
    with pytest.raises(StoreError, match="was never live"):
        store.ledger.begin(
            "color",
            SECOND,
            expect_from=store.ledger.live().get("color"),
            kind="rollback",
            by="me",
            why="",
        )


@pytest.mark.parametrize("counted", [True, False])
def test_a_promotion_that_is_run_again_does_not_undo_a_rollback(
    store: Store, registry: Registry, counted: bool
) -> None:
    """Nor one whose comparison is of before moves were counted."""
    promote_all(store, registry, 1)
    comparison = passed(store, 2, counted=counted)
    promote(store, registry, comparison, None, by="test")
    roll_back(store, registry)
    with pytest.raises(MoveConflict, match=r"before the rollback of .* by me \(worse\): run the"):
        promote(store, registry, comparison, None, by="test")
    assert store.ledger.live() == {"color": FIRST}
    assert registry.digest("color") == FIRST
    assert store.ledger.pending() == []


def test_a_champion_that_is_back_after_other_moves_is_not_the_one_of_an_old_comparison(
    store: Store, registry: Registry
) -> None:
    promote_all(store, registry, 1)
    comparison = passed(store, 2)
    promote_all(store, registry, 2, 3)
    roll_back(store, registry, to="1")
    with pytest.raises(MoveConflict, match="before the rollback"):
        promote(store, registry, comparison, None, by="test")
    assert store.ledger.live() == {"color": FIRST}


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_a_rollback_amid_a_promotion_takes_back_what_is_live(
    store: Store, registry: Registry, fate: str
) -> None:
    promote_all(store, registry, 1, 2)
    registry.next_request = fate
    with pytest.raises(MLflowUnavailable):
        promote_all(store, registry, 3)
    assert store.ledger.live() == {"color": SECOND}
    assert roll_back(store, registry) == "1"
    reconcile(store, registry, ["color"], bundles=Path())
    assert store.ledger.live() == {"color": FIRST}
    assert registry.digest("color") == FIRST
    states = [(move.kind, move.state) for move in store.ledger.history("color")]
    assert states[2:] == [("promote", "cancelled"), ("rollback", "done")]


def test_a_rollback_that_is_refused_leaves_what_is_pending(
    store: Store, registry: Registry
) -> None:
    promote_all(store, registry, 1)
    registry.next_request = "lost"
    with pytest.raises(MLflowUnavailable):
        promote_all(store, registry, 2)
    with pytest.raises(PromotionError, match="no version before 1"):
        roll_back(store, registry)
    assert [move.to_digest for move in store.ledger.pending()] == [SECOND]


def test_an_alias_request_that_arrives_after_a_rollback_is_undone(
    store: Store, registry: Registry
) -> None:
    promote_all(store, registry, 1)
    registry.next_request = "late"
    with pytest.raises(MLflowUnavailable):
        promote_all(store, registry, 2)
    reconcile(store, registry, ["color"], bundles=Path())  # completes it
    assert store.ledger.live() == {"color": SECOND}
    roll_back(store, registry)
    registry.deliver()
    assert registry.digest("color") == SECOND
    reconcile(store, registry, ["color"], bundles=Path())
    assert store.ledger.live() == {"color": FIRST}
    assert registry.digest("color") == FIRST
    # Once: then it is a person's.
    registry.apply("color", "2", author="hand")
    reconcile(store, registry, ["color"], bundles=Path())
    assert store.ledger.live() == {"color": SECOND}


@pytest.mark.parametrize("completed", [True, False])
def test_a_promoter_overtaken_by_a_rollback_does_not_undo_it(
    store: Store, registry: Registry, completed: bool
) -> None:
    promote_all(store, registry, 1, 3)

    def meanwhile() -> None:
        if completed:
            reconcile(store, registry, ["color"], bundles=Path())
        roll_back(store, registry)

    registry.meanwhile = meanwhile
    if completed:
        promote_all(store, registry, 2)
    else:
        with pytest.raises(MoveConflict, match="cancelled meanwhile"):
            promote_all(store, registry, 2)
    live = THIRD if completed else FIRST
    assert registry.digest("color") == live
    reconcile(store, registry, ["color"], bundles=Path())
    assert store.ledger.live() == {"color": live}
    assert registry.digest("color") == live


def test_what_was_answered_in_time_is_no_late_request(store: Store, registry: Registry) -> None:
    promote_all(store, registry, 1, 2)
    roll_back(store, registry)
    registry.apply("color", "2", author="hand")
    reconcile(store, registry, ["color"], bundles=Path())
    assert store.ledger.live() == {"color": SECOND}
    assert store.ledger.history("color")[-1].kind == "manual"


def test_an_alias_on_another_groups_model_is_not_followed_and_told(
    store: Store, registry: Registry
) -> None:
    promote_all(store, registry, 1)
    fakes.add_version(store, registry.register("style"), datetime.now(UTC))
    for group in ("color", "detail"):
        registry.apply(group, "style", author="wrong")
    faults = reconcile(store, registry, ["color", "detail", "style"], bundles=Path())
    assert set(faults) == {"color", "detail"}
    assert "version 7 of shoetagger-color, whose bundle is one of group style" in faults["color"]
    assert store.ledger.live() == {"color": FIRST}


def test_an_outage_is_nothing_that_a_person_must_mend(store: Store, registry: Registry) -> None:
    promote_all(store, registry, 1)
    registry.away = True
    assert reconcile(store, registry, ["color"], bundles=Path()) == {}
