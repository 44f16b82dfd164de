"""Rows of the table `files`: read, updated, marked as gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .blocks import count_files
from .bulk import among
from .days import day_of
from .image_rows import days_of, recheck
from .rows import FileRow
from .sql import GONE, NEW, PAGE, REJECTED, TAGGED
from .tables import files

FILE_ROWS = sa.select(*files.c[FileRow._fields])


def file_rows(connection: Connection, file_ids: Iterable[str]) -> dict[str, FileRow]:
    """Return the known files among these ids, by id."""
    named = among(connection, files.c.file_id, list(file_ids))
    rows = connection.execute(FILE_ROWS.where(named)).all()  # at once: row by row takes longer
    return {row[0]: FileRow(*row) for row in rows}


def update_files(connection: Connection, updates: Sequence[Mapping[str, Any]]) -> None:
    """Write the given columns of files; each mapping names its file as `id`."""
    if updates:
        which = files.c.file_id == sa.bindparam("id")
        columns: dict[str, Any] = {name: sa.bindparam(name) for name in updates[0] if name != "id"}
        connection.execute(sa.update(files).where(which).values(columns), list(updates))


def mark_gone(connection: Connection, file_ids: Iterable[str]) -> set[str]:
    """Record that files no longer exist, so that no run looks for them; return the days."""
    touched: set[str] = set()
    for some in chunked(file_ids, PAGE):
        named = files.c.file_id.in_(some)
        there = connection.execute(sa.select(files).where(named, ~GONE)).all()
        touched |= days_of(connection, {row.image_id for row in there if row.state != "rejected"})
        touched |= {day_of(row.first_seen) for row in there if row.state == "rejected"}
        update = sa.update(files).where(named)
        connection.execute(update.where(TAGGED).values(state="gone"))
        # The last bytes of a new file were never read: whatever returns under its name is new.
        connection.execute(update.where(NEW).values(state="gone", token=""))
        nothing = {"state": "gone", "token": "", "image_id": None, "reason": None}
        connection.execute(update.where(REJECTED).values(nothing))
        states = Counter(row.state for row in there)
        count_files(connection, {**{s: -n for s, n in states.items()}, "gone": len(there)})
        recheck(connection, {row.image_id for row in there if row.state == "tagged"})
    return touched


def storable(reason: str | None) -> str | None:
    """Return a reason as text that every database accepts.

    File names put NUL and lone surrogates into reasons; both are written out as escapes.
    """
    if reason is None:
        return None
    return reason.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
