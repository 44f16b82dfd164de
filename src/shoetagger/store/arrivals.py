"""Arrivals: which files of a scan the store does not know as they are, and their rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .blocks import count_files
from .days import bump, day_of
from .file_rows import file_rows, storable, update_files
from .image_rows import days_of, recheck, renew
from .rows import FileRow
from .sql import GONE, PAGE, count
from .tables import files

if TYPE_CHECKING:
    from ..ingest.inbox import Arrival


def unsettled(connection: Connection, seen: Mapping[str, Arrival]) -> list[str]:
    """Return the file_ids of the arrivals that the store does not know as they are."""
    tokens = {file_id: a.token for file_id, a in seen.items() if a.refused is None}
    left = dict.fromkeys(file_id for file_id in seen if file_id not in tokens)
    # All but the refused are almost always known and unchanged: that costs a count per page.
    for some in chunked(tokens, PAGE):
        if _count_settled(connection, {key: tokens[key] for key in some}) < len(some):
            left |= dict.fromkeys(some)
    for some in chunked(list(left), PAGE):
        query = sa.select(files.c.file_id, files.c.token, files.c.state).where(
            files.c.file_id.in_(some)
        )
        for file_id, token, state in connection.execute(query):
            arrival = seen[file_id]
            newly_refused = arrival.refused is not None and state != "rejected"
            as_known = arrival.is_unknown or token == arrival.token
            if as_known and state != "gone" and not newly_refused:
                del left[file_id]
    return list(left)


def note(
    connection: Connection, seen: Mapping[str, Arrival], file_ids: Sequence[str], now: datetime
) -> None:
    """Write the rows of these arrivals: unknown, changed, back or refused."""
    known = file_rows(connection, file_ids)
    inserts: list[dict[str, Any]] = []
    updates: list[dict[str, Any]] = []
    back: set[str] = set()
    touched: set[str] = set()
    let_go: set[str | None] = set()
    named_again: set[str | None] = set()
    unread: set[str | None] = set()
    states: Counter[str] = Counter()
    for file_id in sorted(file_ids):
        arrival, row = seen[file_id], known.get(file_id)
        state, image_id = _state_after(arrival, row)
        values: dict[str, Any] = {"token": arrival.token, "state": state, "image_id": image_id}
        values |= {"reason": storable(arrival.refused), "changed_at": now}
        states[state] += 1
        if row is None:
            values |= {"file_id": file_id, "locator": arrival.locator, "first_seen": now}
            inserts.append(values)
        else:
            updates.append({"id": file_id, **values})
            states[row.state] -= 1
        if state == "tagged" and image_id:
            back.add(image_id)
        if row is not None and row.state == "tagged":
            unread.add(row.image_id)
        if row is not None and row.state == "gone":
            named_again.add(image_id)
        if state == "rejected" and row is not None:
            let_go.add(row.image_id)
        if state == "rejected" or (row is not None and row.state == "rejected"):
            touched.add(day_of(now if row is None else row.first_seen))
    if inserts:
        connection.execute(sa.insert(files), inserts)
    update_files(connection, updates)
    count_files(connection, states)
    renew(connection, sorted(back))
    recheck(connection, unread | let_go)
    bump(connection, touched | days_of(connection, named_again | let_go))


def reopen(
    connection: Connection, read: Mapping[str, tuple[str, str]], now: datetime
) -> list[FileRow]:
    """Let tagged files wait again that hold another image than is known; return their rows."""
    changed = {
        file_id: row
        for file_id, row in file_rows(connection, read).items()
        if (row.state, row.token) == ("tagged", read[file_id][0])
        and row.image_id != read[file_id][1]
    }
    values = {"state": "new", "changed_at": now}
    update_files(connection, [{"id": file_id, **values} for file_id in changed])
    count_files(connection, {"tagged": -len(changed), "new": len(changed)})
    recheck(connection, {row.image_id for row in changed.values()})
    return list(file_rows(connection, changed).values())


def _state_after(arrival: Arrival, row: FileRow | None) -> tuple[str, str | None]:
    """Return the state and the image id that an arrival gives to its file.

    A file keeps its image until its new bytes are read, and one that was gone and is back as it was
    is `tagged` again.
    """
    if arrival.refused is not None:
        return "rejected", None
    if row is None or row.state == "rejected":
        return "new", None
    if row.state == "gone" and row.token == arrival.token and row.image_id:
        return "tagged", row.image_id
    return "new", row.image_id


def _count_settled(connection: Connection, tokens: Mapping[str, str]) -> int:
    """Count the files that are known with these tokens, by one parameter whatever their number."""
    pairs = sa.literal(json.dumps(tokens), sa.Text)
    if connection.dialect.name == "sqlite":
        rows = sa.func.json_each(pairs).table_valued("key", "value")
    else:
        rows = sa.func.json_each_text(sa.cast(pairs, sa.JSON)).table_valued("key", "value")
    known = rows.join(files, files.c.file_id == rows.c.key)
    settled = (files.c.token == rows.c.value) & ~GONE
    return count(connection, known, settled)
