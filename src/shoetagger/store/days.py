"""Days whose rows changed since they were published."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .database import Database
from .rows import StoreError
from .sql import pages
from .tables import UtcTime, days


def day_of(moment: datetime) -> str:
    """The UTC day a moment lies in, as YYYY-MM-DD."""
    return moment.astimezone(UTC).date().isoformat()


Place = tuple[datetime, str]  # first_seen and id of a row, by which pages are ordered


def day_bounds(day: str | None) -> tuple[Place | None, Place | None]:
    """The places just before the first and just after the last row of a day; None without one."""
    if day is None:
        return None, None
    try:
        begin = datetime.combine(date.fromisoformat(day), time(), UTC)
    except ValueError:
        raise StoreError(f"{day!r} is no day: write it as YYYY-MM-DD") from None
    return (begin, ""), (begin + timedelta(days=1), "")


def between(
    first_seen: sa.Column[Any], key: sa.Column[Any], after: Place | None, before: Place | None
) -> list[sa.ColumnElement[bool]]:
    """Conditions on rows that lie between two places.

    One comparison a side, of the whole place: so each page begins in the index where the last one
    ended, instead of walking there from the beginning of the day.
    """
    place = sa.tuple_(first_seen, key)
    bounds: list[sa.ColumnElement[bool]] = []
    if after:
        bounds.append(place > sa.tuple_(sa.literal(after[0], UtcTime()), sa.literal(after[1])))
    if before:
        bounds.append(place < sa.tuple_(sa.literal(before[0], UtcTime()), sa.literal(before[1])))
    return bounds


def bump(connection: Connection, touched: Collection[str]) -> None:
    """Give each day a new revision."""
    for some in pages(sorted(touched)):
        there = sa.select(days.c.day).where(days.c.day.in_(some))
        known = set(connection.execute(there).scalars())
        connection.execute(
            sa.update(days).where(days.c.day.in_(known)).values(revision=days.c.revision + 1)
        )
        unknown = [{"day": day, "revision": 1, "published": 0} for day in some if day not in known]
        if unknown:
            connection.execute(sa.insert(days), unknown)


class Days:
    """Days, and which of them changed since they were published."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changed(self) -> list[tuple[str, int]]:
        """Return (day, revision) of the days that changed since they were last published."""
        query = sa.select(days.c.day, days.c.revision).where(days.c.revision > days.c.published)
        with self._database.reading() as connection:
            return [(row.day, row.revision) for row in connection.execute(query.order_by("day"))]

    def mark_published(self, day: str, revision: int) -> None:
        """Remember that a day was published as of a revision; an earlier one changes nothing."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(days)
                .where(days.c.day == day, days.c.published < revision)
                .values(published=revision)
            )
