"""Many rows at once: COPY and arrays on PostgreSQL, one prepared statement on SQLite.

Rows are tuples in the order of the columns, of text, numbers, bytes, JSON as text, and moments in
time as `moment` returns them. SQLAlchemy's own inserts build a parameter set per row, which takes
longer than the database does.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection

Row = tuple[Any, ...]
_TEXTS = postgresql.ARRAY(sa.Text)
_NUMBERS = postgresql.ARRAY(sa.BigInteger)


def insert_rows(
    connection: Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    """Insert rows, none of which is there."""
    if not rows:
        return
    named = ", ".join(columns)
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(columns))
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({named}) VALUES ({places})", list(rows)
        )
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({named}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def upsert_rows(
    connection: Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    """Insert rows, or write what differs into those with the same key, the first of the columns."""
    if not rows:
        return
    key, *others = columns
    differs = " OR ".join(f"{table.name}.{c} IS DISTINCT FROM excluded.{c}" for c in others)
    conflict = (
        f"ON CONFLICT ({key}) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in others)} "
    )
    named = ", ".join(columns)
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" * len(columns))
        differs = differs.replace("IS DISTINCT FROM", "IS NOT")
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({named}) VALUES ({places}) {conflict} WHERE {differs}",
            list(rows),
        )
        return
    connection.exec_driver_sql(
        f"INSERT INTO {table.name} ({named}) SELECT * FROM {_unnest(connection, table, columns)} "
        f"{conflict} WHERE {differs}",
        _arrays(rows),
    )


def update_rows(
    connection: Connection, table: sa.Table, columns: Sequence[str], rows: Sequence[Row]
) -> None:
    """Write the columns of rows; the first column is the key by which they are found."""
    if not rows:
        return
    key, *others = columns
    if connection.dialect.name == "sqlite":
        values = ", ".join(f"{c} = ?" for c in others)
        connection.exec_driver_sql(
            f"UPDATE {table.name} SET {values} WHERE {key} = ?",
            [(*row[1:], row[0]) for row in rows],
        )
        return
    values = ", ".join(f"{c} = given.{c}" for c in others)
    connection.exec_driver_sql(
        f"UPDATE {table.name} SET {values} FROM {_unnest(connection, table, columns)} AS given "
        f"({', '.join(columns)}) WHERE {table.name}.{key} = given.{key}",
        _arrays(rows),
    )


def among(
    connection: Connection, column: sa.Column[Any], ids: Collection[str] | Collection[int]
) -> sa.ColumnElement[bool]:
    """Return the condition that a column has one of these ids: one parameter for any number."""
    if connection.dialect.name == "sqlite":
        given = sa.func.json_each(sa.literal(json.dumps(list(ids)), sa.Text))
        return column.in_(sa.select(given.table_valued("value").c.value))
    # psycopg writes an array in Python, item by item; ids are hex or numbers, without a comma.
    given = sa.func.string_to_array(",".join(map(str, ids)), ",")
    kind = _NUMBERS if isinstance(column.type, sa.Integer) else _TEXTS
    return column == sa.any_(sa.cast(given, kind))


def moment(connection: Connection, when: datetime) -> str | datetime:
    """Return a point in time as the database takes it, as the type UtcTime does."""
    if connection.dialect.name == "sqlite":
        return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return when


def _unnest(connection: Connection, table: sa.Table, columns: Iterable[str]) -> str:
    kinds = (table.c[c].type.compile(connection.dialect) for c in columns)
    return f"unnest({', '.join(f'%s::{kind}[]' for kind in kinds)})"


def _arrays(rows: Sequence[Row]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))
