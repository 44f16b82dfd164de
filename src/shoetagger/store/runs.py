"""Tagging runs: what each pinned, did and found odd."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from .database import Database
from .rows import StoreError, TaggingRun
from .tables import handed_out, tagging_runs


class TaggingRuns:
    """Tagging runs, of the kinds `night`, `retag` and `manual`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, kind: str, pins: Mapping[str, str], now: datetime) -> str:
        """Record that a run started with these pins (group -> digest), and return its id."""
        run_id = uuid.uuid4().hex
        row = {"run_id": run_id, "kind": kind, "pins": dict(pins), "started_at": now}
        with self._database.writing() as connection:
            connection.execute(sa.insert(tagging_runs), {"state": "running", "counts": {}, **row})
        return run_id

    def finish(
        self,
        run_id: str,
        state: str,
        counts: Mapping[str, object],
        now: datetime,
        *,
        rates: Mapping[str, tuple[int, int]] | None = None,
        alerts: Sequence[str] = (),
    ) -> None:
        """Record how a run ended, what it did and what was odd; a later call overwrites it.

        Raises StoreError for an unknown run.
        """
        values: dict[str, Any] = {"state": state, "counts": dict(counts), "ended_at": now}
        values |= {"rates": dict(rates) if rates else None, "alerts": list(alerts)}
        update = sa.update(tagging_runs).where(tagging_runs.c.run_id == run_id)
        with self._database.writing() as connection:
            if not connection.execute(update.values(values)).rowcount:
                raise StoreError(f"no run {run_id} in the store: begin it with runs.start")
            connection.execute(sa.delete(handed_out).where(handed_out.c.run_id == run_id))

    def latest(self, limit: int, kind: str | None = None) -> list[TaggingRun]:
        """Return the latest runs, of one kind or of all, latest first."""
        query = sa.select(tagging_runs)
        query = query.order_by(tagging_runs.c.started_at.desc(), tagging_runs.c.run_id)
        if kind is not None:
            query = query.where(tagging_runs.c.kind == kind)
        with self._database.reading() as connection:
            return [_run(row) for row in connection.execute(query.limit(limit))]

    def past_rates(self, limit: int, before: str) -> list[Mapping[str, tuple[int, int]]]:
        """Return the rates of the latest runs that tagged new images, up to the run `before`.

        Latest first; the run `before` is left out.
        """
        started = sa.select(tagging_runs.c.started_at).where(tagging_runs.c.run_id == before)
        query = (
            sa.select(tagging_runs)
            .where(tagging_runs.c.rates.is_not(None), tagging_runs.c.run_id != before)
            .where(tagging_runs.c.started_at <= started.scalar_subquery())
            .order_by(tagging_runs.c.started_at.desc(), tagging_runs.c.run_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [_run(row).rates or {} for row in connection.execute(query)]


def _run(row: sa.Row[Any]) -> TaggingRun:
    columns = dict(row._mapping)
    if row.rates:
        columns["rates"] = {tag: (has, total) for tag, (has, total) in row.rates.items()}
    return TaggingRun(**columns | {"alerts": tuple(row.alerts or ())})
