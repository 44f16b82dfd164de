"""Settling: a file that waits becomes `tagged` or `rejected` once somebody has read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.engine import Connection

from .blocks import count_files
from .bulk import Row, update_rows
from .days import day_of
from .file_rows import file_rows, storable
from .forgetting import FORGOTTEN, forgotten_among
from .image_rows import Found, Kept, days_of, keep_images, recheck
from .rows import RejectedFile, Tagged
from .tables import files


class Settled(NamedTuple):
    """What became of files that waited: arrivals, new images, and days whose rows changed."""

    tagged: list[Tagged]
    rejected: list[str]  # file_ids
    images: dict[str, Kept]
    days: set[str]


def settle(
    connection: Connection, tagged: Sequence[Tagged], rejected: Sequence[RejectedFile]
) -> Settled:
    """Settle the files that still wait as of the token they were read with."""
    if not (tagged or rejected):
        return Settled([], [], {}, set())
    results = _results(connection, tagged, rejected)
    known = file_rows(connection, results)
    updates: list[Row] = []
    found: dict[str, Found] = {}
    touched: set[str] = set()
    let_go: set[str | None] = set()
    states: Counter[str] = Counter()
    arrivals: list[Tagged] = []
    refused: list[str] = []
    for file_id in sorted(known):
        row, result = known[file_id], results[file_id]
        if row.state not in ("new", "gone") or row.token != result.token:
            continue
        if row.image_id != result.image_id or isinstance(result, RejectedFile):
            let_go.add(row.image_id)
        if isinstance(result, RejectedFile):
            state, reason = "rejected", storable(result.reason)
            touched.add(day_of(row.first_seen))
            refused += [file_id] if row.state == "new" else []
        else:
            # One that is gone with this token was tagged before, and counted then.
            arrivals += [result] if row.state == "new" else []
            state, reason = "tagged", None
            # An image arrives when its bytes do, whatever the file held before.
            earlier = found.get(result.image_id)
            if earlier is None or row.changed_at < earlier.first_seen:
                found[result.image_id] = Found(result.width, result.height, row.changed_at)
        updates.append((file_id, result.image_id, state, reason))
        states[row.state] -= 1
        states[state] += 1
    update_rows(connection, files, ("file_id", "image_id", "state", "reason"), updates)
    count_files(connection, states)
    new, days = keep_images(connection, found)
    recheck(connection, let_go)
    return Settled(arrivals, refused, new, touched | days | days_of(connection, let_go))


def _results(
    connection: Connection, tagged: Sequence[Tagged], rejected: Sequence[RejectedFile]
) -> dict[str, Tagged | RejectedFile]:
    """Return the first result per file_id; bytes that were forgotten are rejected."""
    results: dict[str, Tagged | RejectedFile] = {}
    forgotten = forgotten_among(connection, [file.image_id for file in tagged])
    given: list[Tagged | RejectedFile] = [*tagged, *rejected]
    for result in given:
        if result.image_id in forgotten:
            result = RejectedFile(result.file_id, result.token, FORGOTTEN, result.image_id)
        results.setdefault(result.file_id, result)
    return results
