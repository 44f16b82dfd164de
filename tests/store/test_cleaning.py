"""What is deleted of predictions and runs, and what never is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from helpers.recount import check_counts
from helpers.stores import (
    BLUE,
    BOOT,
    LATER,
    NIGHT,
    RED,
    TEAL,
    add_bundles,
    current,
    file_id,
    image,
    make_live,
    tag,
)

from shoetagger.store import blocks
from shoetagger.store.rows import Prediction
from shoetagger.store.store import Store

NAMES = [f"{n}.jpg" for n in range(20)]
GROUPS = ["color", "style"]


@pytest.fixture
def counted(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Three versions, each of which was live and tagged all that was there."""
    monkeypatch.setattr(blocks, "BLOCK", 4)
    add_bundles(store)
    make_live(store, "color", RED)
    make_live(store, "style", BOOT)
    tag(store, *NAMES)
    predict(store, BOOT, NAMES)
    make_live(store, "color", BLUE)
    predict(store, BLUE, NAMES)
    make_live(store, "color", TEAL)
    predict(store, TEAL, NAMES)
    yield store
    engine = sa.create_engine(url)
    check_counts(engine)
    engine.dispose()


def predict(store: Store, digest: str, names: list[str]) -> None:
    scores = (0.1, 0.2, 0.9) if digest == TEAL else (0.5, 0.5)
    batch = [Prediction(image(name), digest, scores, ("tag",)) for name in names]
    store.predictions.record(predictions=batch, run_id="run", now=NIGHT)


def test_versions_within_what_is_kept_lose_nothing(counted: Store) -> None:
    assert counted.cleaning.predictions(GROUPS, 2) == {}
    shown = current(counted)
    assert counted.cleaning.predictions(GROUPS, 1, dry_run=True) == {RED: 20}
    assert counted.cleaning.predictions(GROUPS, 1) == {RED: 20}
    assert counted.cleaning.predictions(GROUPS, 1) == {}
    assert current(counted) == shown
    make_live(counted, "color", BLUE, "rollback")
    assert counted.current.counts(["color"]).groups["color"].tagged == 20
    # Further back, too, but what went is to be tagged again: it is work like any other.
    make_live(counted, "color", RED, "rollback")
    assert counted.current.counts(["color"]).groups["color"].untagged == 20
    assert counted.predictions.count_work({"color": RED}).backlog == {"color": 20}
    predict(counted, RED, NAMES)
    assert counted.current.counts(["color"]).groups["color"].tagged == 20


def test_what_is_current_for_some_picture_stays(store: Store, url: str) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, *NAMES)
    store.files.lose([file_id(name) for name in NAMES[:3]])  # before the next version came
    make_live(store, "color", BLUE)
    predict(store, BLUE, NAMES[3:])
    shown = current(store)
    assert store.cleaning.predictions(["color"], 0) == {RED: 17}
    assert current(store) == shown
    assert store.current.counts(["color"]).groups["color"].stale == 3
    engine = sa.create_engine(url)
    check_counts(engine)
    engine.dispose()


def test_pins_of_a_running_night_and_pending_moves_are_needed(counted: Store) -> None:
    run = counted.runs.start("night", {"color": RED}, datetime.now(UTC))
    assert counted.cleaning.predictions(GROUPS, 0) == {BLUE: 20}
    counted.runs.finish(run, "done", {}, NIGHT)
    move = counted.ledger.begin(
        "color", RED, kind="rollback", by="me", why="so", expect_from=TEAL, now=LATER
    )
    assert counted.cleaning.predictions(GROUPS, 0) == {}
    counted.ledger.cancel(move)
    assert counted.cleaning.predictions(GROUPS, 0) == {RED: 20}


def test_groups_that_are_no_more_keep_corrections_alone(counted: Store) -> None:
    counted.corrections.correct(image("1.jpg"), "style", ["flat"], by="me", why="x", now=NIGHT)
    counted.files.note([], NIGHT)
    assert counted.cleaning.predictions(["color"], 9) == {BOOT: 20}
    rows = current(counted)
    assert rows[image("1.jpg")].groups["style"].tags == ("flat",)
    assert "style" not in rows[image("2.jpg")].groups
    assert [move.to_digest for move in counted.ledger.history("style")] == [BOOT]


def test_a_run_that_was_killed_needs_nothing_and_goes_like_any_other(counted: Store) -> None:
    now = datetime.now(UTC)
    killed = counted.runs.start("night", {"color": RED}, now - timedelta(days=2))
    counted.runs.spend(killed, 1.0)
    at_work = counted.runs.start("night", {"color": BLUE}, now - timedelta(days=1))
    counted.runs.go_on(at_work, now)
    assert counted.cleaning.predictions(GROUPS, 0) == {RED: 20}
    assert counted.cleaning.needed(GROUPS, 0) == {BLUE, TEAL, BOOT}
    assert counted.cleaning.runs(now, 0) == 1
    assert [run.run_id for run in counted.runs.latest(9)] == [at_work]
    assert counted.runs.spent(killed) == 0.0, "nor is it known what it was handed"


def test_old_runs_go_and_the_latest_stay(store: Store) -> None:
    runs = [store.runs.start("night", {}, NIGHT + timedelta(days=day)) for day in range(6)]
    store.runs.go_on(runs[0], datetime.now(UTC))
    for run in runs[1:]:
        store.runs.finish(run, "done", {}, LATER)
    before = NIGHT + timedelta(days=4)
    assert store.cleaning.runs(before, 1, dry_run=True) == 3
    assert store.cleaning.runs(before, 4) == 1  # the four latest, and the one that still runs
    assert [run.run_id for run in store.runs.latest(9)] == [*runs[:1:-1], runs[0]]
