"""Days, by which images are published; a day's revision grows with every change of its rows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .database import Database
from .rows import StoreError
from .sql import PAGE, insert_into
from .tables import UtcTime, days

Place = tuple[datetime, str]  # first_seen and id of a row, by which pages are ordered


class Days:
    """Days, and which of them changed since they were published."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changed(self) -> list[tuple[str, int]]:
        """Return (day, revision) of the days that changed since they were last published."""
        query = sa.select(days.c.day, days.c.revision).where(days.c.revision > days.c.published)
        with self._database.reading() as connection:
            return [(row.day, row.revision) for row in connection.execute(query.order_by("day"))]

    def published(self) -> list[str]:
        """Return the days that were published before, in their order."""
        query = sa.select(days.c.day).where(days.c.published > 0).order_by(days.c.day)
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def all(self) -> list[tuple[str, int]]:
        """Return (day, revision) of every day on which something arrived."""
        with self._database.reading() as connection:
            return [(row.day, row.revision) for row in connection.execute(sa.select(days))]

    def mark_published(self, day: str, revision: int) -> None:
        """Record that a day was published as of a revision; an earlier one changes nothing."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(days)
                .where(days.c.day == day, days.c.published < revision)
                .values(published=revision)
            )

    def mark_changed(self, day: str) -> None:
        """Let a day be published again."""
        with self._database.writing() as connection:
            bump(connection, [day])


def bump(connection: Connection, touched: Collection[str]) -> None:
    """Give each of the days a new revision."""
    upsert = insert_into(connection, days).on_conflict_do_update(
        index_elements=[days.c.day], set_={"revision": days.c.revision + 1}
    )
    for some in chunked(sorted(touched), PAGE):
        rows = [{"day": day, "revision": 1, "published": 0} for day in some]
        connection.execute(upsert, rows)


def day_of(moment: datetime) -> str:
    """Return the UTC day of a moment as YYYY-MM-DD."""
    return moment.astimezone(UTC).date().isoformat()


def day_bounds(day: str | None) -> tuple[Place | None, Place | None]:
    """Return the places just before the first and just after the last row of a day.

    Both are None without a day. Raises StoreError where `day` is not YYYY-MM-DD.
    """
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
    """Return the conditions on rows that lie between two places.

    Each side is one comparison of the whole place, so that each page begins in the index where the
    last one ended; separate comparisons would walk there from the beginning of the day.
    """
    place = sa.tuple_(first_seen, key)
    bounds: list[sa.ColumnElement[bool]] = []
    if after:
        bounds.append(place > sa.tuple_(sa.literal(after[0], UtcTime()), sa.literal(after[1])))
    if before:
        bounds.append(place < sa.tuple_(sa.literal(before[0], UtcTime()), sa.literal(before[1])))
    return bounds
