"""Days that changed, and tagging runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from helpers.stores import (
    LATER,
    NIGHT,
    RED,
    add_bundles,
    arrival,
    make_live,
    set_rates,
    tag,
)

from shoetagger.store.overdue import overdue
from shoetagger.store.rows import StoreError
from shoetagger.store.runs import SILENCE
from shoetagger.store.store import Store


def test_a_day_is_changed_until_that_revision_is_published(store: Store) -> None:
    add_bundles(store)
    tag(store, "a.jpg")
    assert store.days.changed() == [("2026-11-01", 1)]
    tag(store, "b.jpg")
    store.days.mark_published("2026-11-01", 1)
    assert store.days.changed() == [("2026-11-01", 2)]
    store.days.mark_published("2026-11-01", 2)
    store.days.mark_published("2026-11-01", 1)
    assert store.days.changed() == []


def test_the_day_is_that_of_utc_and_times_come_back_as_they_went(store: Store) -> None:
    tokyo = datetime(2026, 11, 2, 3, 30, 0, 123456, timezone(timedelta(hours=9)))
    tag(store, "a.jpg", digest=None, now=tokyo)
    (row,) = store.current.rows([])
    assert (row.first_seen, row.day) == (tokyo, "2026-11-01")
    assert row.first_seen.tzinfo == UTC
    assert len(list(store.current.rows([], day="2026-11-01"))) == 1
    with pytest.raises(Exception, match="has no time zone"):
        store.files.note([arrival("b.jpg")], datetime(2026, 11, 1))  # noqa: DTZ001, RUF100


def test_runs_are_kept_latest_first(store: Store) -> None:
    first = store.runs.start("night", {"color": RED}, NIGHT)
    second = store.runs.start("manual", {}, datetime.now(UTC))
    store.runs.finish(first, "done", {"waiting": 3}, LATER)
    assert [run.run_id for run in store.runs.latest(9)] == [second, first]
    (night,) = store.runs.latest(1, "night")
    assert (night.state, night.pins, night.counts["waiting"]) == ("done", {"color": RED}, 3)
    assert (night.started_at, night.ended_at) == (NIGHT, LATER)
    assert store.runs.latest(1)[0].state == "running"
    with pytest.raises(StoreError, match="no run nobody"):
        store.runs.finish("nobody", "done", {}, LATER)


def test_a_run_that_shows_no_sign_of_going_on_is_abandoned_unless_it_ends_all_the_same(
    store: Store,
) -> None:
    now = datetime.now(UTC)
    run = store.runs.start("night", {}, now - timedelta(days=3))
    assert store.runs.latest(1)[0].state == "abandoned"
    store.runs.go_on(run, now - SILENCE / 2)
    assert store.runs.latest(1)[0].state == "running"
    store.runs.go_on(run, now - 2 * SILENCE)
    assert store.runs.latest(1)[0].state == "abandoned"
    store.predictions.record(run_id=run, now=now)
    assert store.runs.latest(1)[0].state == "running", "a batch was written"
    store.runs.fail(run, "a disk is full")
    store.runs.fail(run, "a disk is full")
    assert store.runs.failures(run) == ["a disk is full"]
    store.runs.finish(run, "done", {}, now)
    (row,) = store.runs.latest(1)
    assert (row.state, row.alerts) == ("done", ())


def test_nights_that_have_stopped_are_noticed(store: Store) -> None:
    now = datetime.now(UTC)
    assert overdue(store, 26.0, now) is None  # nothing is to be done yet
    add_bundles(store)
    make_live(store, "color", RED, now=now)
    assert overdue(store, 26.0, now + timedelta(hours=25)) is None
    reason = overdue(store, 26.0, now + timedelta(hours=30))
    assert reason is not None
    assert reason.startswith("no night has run for 30 hours")
    assert "make service" in reason
    night = store.runs.start("night", {}, now + timedelta(hours=20))
    assert overdue(store, 26.0, now + timedelta(hours=30)) is None
    store.runs.finish(night, "failed", {}, now + timedelta(hours=21))
    assert overdue(store, 26.0, now + timedelta(hours=46)) is None
    assert overdue(store, 26.0, now + timedelta(hours=47)) is not None
    assert overdue(store, None, now + timedelta(hours=999)) is None


def test_nights_that_are_killed_every_time_have_stopped_too(store: Store) -> None:
    now = datetime.now(UTC)
    store.runs.finish(store.runs.start("night", {}, now - timedelta(hours=60)), "done", {}, now)
    for hours in (44, 20):
        store.runs.start("night", {}, now - timedelta(hours=hours))
    reason = overdue(store, 26.0, now)
    assert reason is not None
    assert reason.startswith("no night has run for 60 hours")


def test_no_number_of_backfills_hides_that_a_night_has_run(store: Store) -> None:
    now = datetime.now(UTC)
    add_bundles(store)
    make_live(store, "color", RED, now=now - timedelta(days=99))
    store.runs.finish(store.runs.start("night", {}, now - timedelta(hours=9)), "done", {}, now)
    for minutes in range(60):
        backfill = store.runs.start("backfill", {}, now - timedelta(minutes=minutes))
        store.runs.finish(backfill, "done", {}, now)
    assert overdue(store, 26.0, now) is None
    assert overdue(store, 8.0, now) is not None


def test_what_past_runs_saw_of_each_tag_is_there_to_compare_with(store: Store) -> None:
    for day in range(4):
        run = store.runs.start("night", {"color": RED}, NIGHT + timedelta(days=day))
        if day != 1:  # a night without new pictures
            set_rates(store, run, {"red": (day, 9)})
        store.runs.finish(run, "done", {}, LATER, alerts=["odd"] if day == 3 else [])
    going_on = store.runs.start("night", {"color": RED}, NIGHT)
    set_rates(store, going_on, {"red": (1, 1)})
    assert store.runs.past_rates(30, run) == [{"red": (2, 9)}, {"red": (0, 9)}]
    assert store.runs.past_rates(1, run) == [{"red": (2, 9)}]
    assert [run.alerts for run in store.runs.latest(2)] == [("odd",), ()]
    assert [run.rates for run in store.runs.latest(3)] == [{"red": (3, 9)}, {"red": (2, 9)}, None]
