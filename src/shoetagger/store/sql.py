"""The pieces that the Store's transactions are made of: each takes the connection of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .tables import files

PAGE = 1000  # rows a query, so that neither memory nor a transaction grows with the store

# Written out, not bound: only so can a database see that a partial index answers the question.
NEW = files.c.state == sa.literal_column("'new'")
TAGGED = files.c.state == sa.literal_column("'tagged'")
REJECTED = files.c.state == sa.literal_column("'rejected'")
GONE = files.c.state == sa.literal_column("'gone'")
NOT_REJECTED = files.c.state != sa.literal_column("'rejected'")
_T = TypeVar("_T")


def pages(values: Iterable[_T], size: int = PAGE) -> Iterator[list[_T]]:
    """Cut `values` into lists of at most `size`."""
    rest = iter(values)
    while page := list(islice(rest, size)):
        yield page


def count(connection: Connection, table: sa.FromClause, where: Any = None) -> int:
    """The number of rows, of all or of those that meet a condition."""
    query = sa.select(sa.func.count()).select_from(table)
    return int(connection.execute(query if where is None else query.where(where)).scalar_one())
