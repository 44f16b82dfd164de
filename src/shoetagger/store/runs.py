"""Tagging runs: what each pinned, did and found odd."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .database import Database
from .rows import StoreError, TaggingRun
from .sql import move_place, place_in, show_alive
from .tables import deferred_files, handed_out, tagging_runs
from .tally import COUNTED

# A run that has not shown for so long that it goes on was killed, wherever it ran. No step of one
# takes half as long without a sign, nor does it wait so long for the slot of a training stage.
# Where a run goes on all the same, nothing stops it, and its end is recorded as that of any other.
SILENCE = timedelta(hours=18)

# Of so many runs it is known which files they left: no shard of an older one is run again.
_RUN_AGAIN = 20


class TaggingRuns:
    """Tagging runs, of the kinds `night`, `retag`, `manual` and `backfill`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, kind: str, pins: Mapping[str, str], now: datetime) -> str:
        """Record that a run started with these pins (group -> digest), and return its id."""
        run_id = uuid.uuid4().hex
        row = {"run_id": run_id, "kind": kind, "pins": dict(pins), "started_at": now}
        row |= {"state": "running", "counts": dict.fromkeys(COUNTED, 0), "alive_at": now}
        latest = sa.select(tagging_runs.c.run_id).order_by(tagging_runs.c.started_at.desc())
        with self._database.writing() as connection:
            connection.execute(sa.insert(tagging_runs), row)
            left = deferred_files.c.run_id.not_in(latest.limit(_RUN_AGAIN).scalar_subquery())
            connection.execute(sa.delete(deferred_files).where(left))
        return run_id

    def go_on(self, run_id: str, now: datetime) -> None:
        """Record that a run goes on, which it shows by this and by each batch that it writes."""
        with self._database.writing() as connection:
            show_alive(connection, run_id, now)

    def listed(self, run_id: str, seen: int) -> None:
        """Record how many files a run's listing of the inbox showed."""
        with self._database.writing() as connection:
            counts = _one(connection, run_id).counts
            update = sa.update(tagging_runs).where(tagging_runs.c.run_id == run_id)
            connection.execute(update.values(counts={**counts, "seen": seen}))

    def find(self, run_id: str) -> TaggingRun:
        """Return a run, with what it has done so far; raises StoreError for an unknown one."""
        with self._database.reading() as connection:
            return _run(_one(connection, run_id))

    def fail(self, run_id: str, reason: str) -> None:
        """Record why a part of a run failed, for `failures`; each reason once."""
        update = sa.update(tagging_runs).where(tagging_runs.c.run_id == run_id)
        with self._database.writing() as connection:
            known = _alerts(connection, run_id)
            if reason not in known:
                connection.execute(update.values(alerts=[*known, reason]))

    def failures(self, run_id: str) -> list[str]:
        """Return why parts of a run that goes on have failed so far."""
        with self._database.reading() as connection:
            return _alerts(connection, run_id)

    def spent(self, run_id: str) -> float:
        """Return the seconds for which shards of a run that goes on have worked."""
        with self._database.reading() as connection:
            return place_in(connection, run_id, handed_out.c.spent_seconds) or 0.0

    def spend(self, run_id: str, seconds: float) -> None:
        """Record for how many seconds shards of a run have worked; the number never falls."""
        with self._database.writing() as connection:
            known = place_in(connection, run_id, handed_out.c.spent_seconds) or 0.0
            move_place(connection, run_id, spent_seconds=max(known, seconds))

    def finish(
        self,
        run_id: str,
        state: str,
        left: Mapping[str, int],
        now: datetime,
        *,
        alerts: Sequence[str] = (),
    ) -> None:
        """Record how a run ended and what was odd; a later call overwrites it.

        `left` is the work left to do, beside the counts of what the run did. Raises StoreError for
        an unknown run.
        """
        values: dict[str, Any] = {"state": state, "ended_at": now, "alerts": list(alerts)}
        update = sa.update(tagging_runs).where(tagging_runs.c.run_id == run_id)
        with self._database.writing() as connection:
            values["counts"] = {**_one(connection, run_id).counts, **left}
            connection.execute(update.values(values))
            connection.execute(sa.delete(handed_out).where(handed_out.c.run_id == run_id))

    def latest(self, limit: int, kind: str | None = None) -> list[TaggingRun]:
        """Return the latest runs, of one kind or of all, latest first.

        A run that was killed is `abandoned`: it has not ended, and shows no sign of going on.
        """
        query = sa.select(tagging_runs)
        query = query.order_by(tagging_runs.c.started_at.desc(), tagging_runs.c.run_id)
        if kind is not None:
            query = query.where(tagging_runs.c.kind == kind)
        with self._database.reading() as connection:
            return [_run(row) for row in connection.execute(query.limit(limit))]

    def latest_start(self) -> datetime | None:
        """Return when the latest run began; backfills and `abandoned` runs are left out."""
        query = (
            sa.select(tagging_runs.c.started_at)
            .where(tagging_runs.c.kind != "backfill")
            .where((tagging_runs.c.state != "running") | going_on())
            .order_by(tagging_runs.c.started_at.desc())
            .limit(1)
        )
        with self._database.reading() as connection:
            found: datetime | None = connection.execute(query).scalar()
            return found

    def past_rates(self, limit: int, before: str) -> list[Mapping[str, tuple[int, int]]]:
        """Return the rates of the latest runs that tagged new images, up to the run `before`.

        Latest first; the run `before` is left out, and so are those that have not ended.
        """
        started = sa.select(tagging_runs.c.started_at).where(tagging_runs.c.run_id == before)
        query = (
            sa.select(tagging_runs)
            .where(tagging_runs.c.rates.is_not(None), tagging_runs.c.ended_at.is_not(None))
            .where(tagging_runs.c.run_id != before)
            .where(tagging_runs.c.started_at <= started.scalar_subquery())
            .order_by(tagging_runs.c.started_at.desc(), tagging_runs.c.run_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [_run(row).rates or {} for row in connection.execute(query)]


def going_on() -> sa.ColumnElement[bool]:
    """Return the condition that a run goes on: it has not ended, and is not `abandoned`."""
    alive_at = sa.func.coalesce(tagging_runs.c.alive_at, tagging_runs.c.started_at)
    return (tagging_runs.c.state == "running") & (alive_at >= datetime.now(UTC) - SILENCE)


def _alerts(connection: Connection, run_id: str) -> list[str]:
    query = sa.select(tagging_runs.c.alerts).where(tagging_runs.c.run_id == run_id)
    return list(connection.execute(query).scalar() or ())


def _one(connection: Connection, run_id: str) -> sa.Row[Any]:
    query = sa.select(tagging_runs).where(tagging_runs.c.run_id == run_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise StoreError(f"no run {run_id} in the store: begin it with runs.start")
    return row


def _run(row: sa.Row[Any]) -> TaggingRun:
    columns = dict(row._mapping)
    alive_at = columns.pop("alive_at") or row.started_at
    if row.state == "running" and datetime.now(UTC) - alive_at > SILENCE:
        columns["state"] = "abandoned"
    if row.rates:
        columns["rates"] = {tag: (has, total) for tag, (has, total) in row.rates.items()}
    return TaggingRun(**columns | {"alerts": tuple(row.alerts or ())})
