"""A backfill tags what is known, in ranges, beside the nights, and whatever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from helpers import fakes, stores
from helpers.fakes import INBOX, Engine, Inbox, Killed, Killer, Pool
from helpers.model import digest_of
from helpers.recount import check_counts
from helpers.stores import NIGHT

from shoetagger.store import blocks
from shoetagger.store.overdue import overdue
from shoetagger.store.rows import BacklogRange, Tagged
from shoetagger.store.store import Store
from shoetagger.tagging.backfill import Filled, fill
from shoetagger.tagging.run import TaggingRun

OLD, NEW = digest_of("color", 1), digest_of("color", 2)
PINS = {"color": NEW}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Forty pictures of four nights, which no version has tagged, in blocks of three."""
    monkeypatch.setattr(blocks, "BLOCK", 3)
    with Store(stores.migrated(f"sqlite:///{tmp_path / 'store.db'}")) as opened:
        registry = fakes.Registry()
        for _ in (OLD, NEW):
            fakes.add_version(opened, registry.register("color"), NIGHT)
        yield opened


@pytest.fixture
def inbox(store: Store) -> Inbox:
    inbox = Inbox()
    for night in range(4):
        for n in range(10):
            inbox.put(f"{night}{n}.jpg", f"picture {night}{n}")
        now = NIGHT + timedelta(days=night)
        store.files.note(list(inbox.scan(INBOX)), now)
        tag_all(store, inbox, now)
    return inbox


def tag_all(store: Store, inbox: Inbox, now: datetime) -> None:
    rows = store.files.waiting("", None, 99)
    decoded = Pool(inbox).run(row.locator for row in rows)
    tagged = [
        Tagged(row.file_id, row.token, d.image_id or "", 40, 30)
        for row, d in zip(rows, decoded, strict=True)
    ]
    store.predictions.record(tagged=tagged, run_id="before", now=now)


def a_run(store: Store) -> TaggingRun:
    return TaggingRun(
        run_id=store.runs.start("backfill", PINS, NIGHT), kind="backfill",
        started_at=NIGHT.isoformat(), pins=PINS, versions={}, left_out=(),
    )  # fmt: skip


def filled(
    store: Store,
    inbox: Inbox,
    run: TaggingRun,
    parts: list[BacklogRange],
    engine: Any = None,
    since: datetime | None = None,
) -> list[Filled]:
    pool: Any = Pool(inbox)
    engine = engine or Engine(dict(PINS), 2)
    return [fill(store, engine, pool, run, part, batch=2, since=since) for part in parts]


def test_the_backlog_is_divided_into_ranges_that_hold_each_picture_once(
    store: Store, inbox: Inbox
) -> None:
    parts = store.predictions.backlog_ranges(PINS, 256)
    assert sum(part.lacking for part in parts) == 40
    assert len(parts) == 14, "one per block, since there are fewer than 256"
    assert parts == sorted(parts, reverse=True), "the newest first"
    five = store.predictions.backlog_ranges(PINS, 5)
    assert (len(five), sum(part.lacking for part in five)) == (7, 40)
    assert all(a.start >= b.below for a, b in pairwise(five))
    run = a_run(store)
    assert sum(f.tagged for f in filled(store, inbox, run, five)) == 40
    assert store.predictions.backlog_ranges(PINS, 5) == []
    assert store.runs.find(run.run_id).counts["retagged"] == 40
    check_counts(sa.create_engine(store._database._engine.url))


def test_only_what_arrived_since_a_day_is_filled(store: Store, inbox: Inbox) -> None:
    since = NIGHT + timedelta(days=2)
    parts = store.predictions.backlog_ranges(PINS, 256, since)
    assert sum(part.lacking for part in parts) == 20
    run = a_run(store)
    assert sum(f.tagged for f in filled(store, inbox, run, parts, since=since)) == 20
    assert store.predictions.backlog_ranges(PINS, 256, since) == []
    assert store.predictions.count_work(PINS).backlog == {"color": 20}


@pytest.mark.slow
def test_a_backfill_that_is_killed_goes_on_where_it_was(store: Store, inbox: Inbox) -> None:
    engine, killer, runs = Engine(dict(PINS), 2), Killer(store), []
    for moment in [("commit", 3), ("statement", 9), ("commit", 5)]:
        runs.append(a_run(store))
        killer.arm(*moment)
        with pytest.raises(Killed):
            filled(store, inbox, runs[-1], store.predictions.backlog_ranges(PINS, 8), engine)
    runs.append(a_run(store))
    filled(store, inbox, runs[-1], store.predictions.backlog_ranges(PINS, 8), engine)
    counted = [store.runs.find(run.run_id).counts["retagged"] for run in runs]
    assert sum(counted) == 40
    assert counted[0] > 0
    assert store.predictions.count_work(PINS).backlog == {"color": 0}
    # What a killed batch had computed is computed again, and nothing else.
    assert len(engine.calls) <= 40 + 3 * 2 * 2


@pytest.mark.slow
def test_ranges_worked_through_twice_and_at_once_count_each_picture_once(
    store: Store, inbox: Inbox
) -> None:
    run, parts = a_run(store), store.predictions.backlog_ranges(PINS, 8)

    def work(_: int) -> int:
        with Store(store._database._engine.url.render_as_string()) as own:
            return sum(f.tagged for f in filled(own, inbox, run, parts))

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(work, range(3)))
    assert sum(found) == 40
    assert store.runs.find(run.run_id).counts["retagged"] == 40


def test_what_cannot_be_read_is_left_and_what_waits_is_the_nights(
    store: Store, inbox: Inbox
) -> None:
    del inbox.things["00.jpg"]
    inbox.swap("01.jpg", "picture of something else")
    inbox.put("new.jpg", "picture new")
    store.files.note([a for a in inbox.scan(INBOX) if a.locator.endswith("new.jpg")], NIGHT)
    run = a_run(store)
    parts = filled(store, inbox, run, store.predictions.backlog_ranges(PINS, 8))
    assert (sum(f.tagged for f in parts), sum(f.left for f in parts)) == (38, 2)
    assert store.current.counts([]).waiting == 2, "the new one, and the one that is another now"
    counts = store.runs.find(run.run_id).counts
    assert (counts["tagged"], counts["retagged"], counts["deferred"]) == (0, 38, 0)


def test_a_backfill_is_no_night(store: Store) -> None:
    now = datetime.now(UTC)
    store.runs.start("night", {}, now - timedelta(hours=40))
    store.runs.finish(store.runs.latest(1)[0].run_id, "done", {}, now - timedelta(hours=39))
    store.runs.start("backfill", {}, now - timedelta(hours=2))
    reason = overdue(store, 26.0, now)
    assert reason is not None
    assert reason.startswith("no night has run for 40 hours")
