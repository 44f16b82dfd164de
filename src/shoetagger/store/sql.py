"""The pieces that the Store's transactions share; each takes a transaction's connection."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from .tables import files, handed_out, predictions, tagging_runs, versions

# Rows per query, so that neither memory nor a transaction grows with the store.
PAGE = 1000

# Literals, not bound values: only then does a database see that a partial index answers the query.
NEW = files.c.state == sa.literal_column("'new'")
TAGGED = files.c.state == sa.literal_column("'tagged'")
REJECTED = files.c.state == sa.literal_column("'rejected'")
GONE = files.c.state == sa.literal_column("'gone'")
THERE = files.c.state.in_([sa.literal_column("'new'"), sa.literal_column("'tagged'")])
NOT_REJECTED = files.c.state != sa.literal_column("'rejected'")


def insert_into(connection: Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return the database's own INSERT, which knows ON CONFLICT."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def of_bundle(digest: str) -> sa.ColumnElement[bool]:
    """Return the condition that a prediction is by a bundle; none is by one that is unknown."""
    key = sa.select(versions.c.bundle_key).where(versions.c.digest == digest)
    return predictions.c.bundle_key == key.scalar_subquery()


def place_in(connection: Connection, run_id: str, column: sa.Column[Any]) -> Any:
    """Return how far a run's work was handed out, by a column of `handed_out`; None: not begun."""
    return connection.execute(sa.select(column).where(handed_out.c.run_id == run_id)).scalar()


def move_place(connection: Connection, run_id: str, **place: Any) -> None:
    """Write down how far a run's work was handed out."""
    upsert = insert_into(connection, handed_out).on_conflict_do_update(
        index_elements=[handed_out.c.run_id], set_=place
    )
    connection.execute(upsert, {"run_id": run_id, **place})


def show_alive(connection: Connection, run_id: str, now: datetime) -> None:
    """Write down that a run goes on."""
    update = sa.update(tagging_runs).where(tagging_runs.c.run_id == run_id)
    connection.execute(update.values(alive_at=now))


def count(connection: Connection, table: sa.FromClause, where: Any = None) -> int:
    """Return the number of rows, of all or of those that meet a condition."""
    query = sa.select(sa.func.count()).select_from(table)
    return int(connection.execute(query if where is None else query.where(where)).scalar_one())
