"""Runs of the tagging job."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from .database import Database
from .rows import RunRow, StoreError
from .tables import runs


def run_row(row: sa.Row[Any]) -> RunRow:
    plain = dict(row._mapping)
    rates = {tag: (has, of) for tag, (has, of) in plain.pop("rates").items()} if row.rates else None
    return RunRow(**plain | {"rates": rates, "alarms": tuple(row.alarms or ())})


class Runs:
    """Runs of the tagging job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, kind: str, pins: Mapping[str, str], now: datetime) -> str:
        """Write down a run of the tagging job with what it pinned, and return its id."""
        run_id = uuid.uuid4().hex
        row = {"run_id": run_id, "kind": kind, "pins": dict(pins), "started_at": now}
        with self._database.writing() as connection:
            connection.execute(sa.insert(runs), {"state": "running", "counts": {}, **row})
        return run_id

    def finish(
        self,
        run_id: str,
        state: str,
        counts: Mapping[str, object],
        now: datetime,
        *,
        rates: Mapping[str, tuple[int, int]] | None = None,
        alarms: Sequence[str] = (),
    ) -> None:
        """Write down how a run ended, what it did and what was odd; the last word counts."""
        values: dict[str, Any] = {"state": state, "counts": dict(counts), "ended_at": now}
        values |= {"rates": dict(rates) if rates else None, "alarms": list(alarms)}
        update = sa.update(runs).where(runs.c.run_id == run_id)
        with self._database.writing() as connection:
            done = connection.execute(update.values(values))
            if not done.rowcount:
                raise StoreError(f"no run {run_id} in the store: begin it with start_run")

    def latest(self, limit: int, kind: str | None = None) -> list[RunRow]:
        """Return the latest runs, of one kind or all, latest first."""
        query = sa.select(runs).order_by(runs.c.started_at.desc(), runs.c.run_id).limit(limit)
        if kind is not None:
            query = query.where(runs.c.kind == kind)
        with self._database.reading() as connection:
            return [run_row(row) for row in connection.execute(query)]

    def past_rates(self, limit: int, before: str) -> list[Mapping[str, tuple[int, int]]]:
        """Return the rates of the latest runs that tagged something new, up to the run `before`.

        Latest first; the run itself is left out.
        """
        started = sa.select(runs.c.started_at).where(runs.c.run_id == before).scalar_subquery()
        query = (
            sa.select(runs)
            .where(runs.c.rates.is_not(None), runs.c.run_id != before)
            .where(runs.c.started_at <= started)
            .order_by(runs.c.started_at.desc(), runs.c.run_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [run_row(row).rates or {} for row in connection.execute(query)]
