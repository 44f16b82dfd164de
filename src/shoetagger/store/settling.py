"""Settling: a file that waits becomes `tagged` or `rejected` once somebody has read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection

from .blocks import count_files
from .days import day_of
from .file_rows import file_rows, storable, update_files
from .forgetting import FORGOTTEN, forgotten_among
from .image_rows import days_of, keep_images, recheck
from .rows import RejectedFile, Tagged


class Settled(NamedTuple):
    """What became of files that waited: days whose rows changed, and what was an arrival."""

    days: set[str]
    tagged: list[Tagged]
    rejected: list[str]  # file_ids


def settle(
    connection: Connection, tagged: Sequence[Tagged], rejected: Sequence[RejectedFile]
) -> Settled:
    """Settle the files that still wait as of the token they were read with."""
    results = _results(connection, tagged, rejected)
    known = file_rows(connection, results)
    updates: list[dict[str, Any]] = []
    found: dict[str, dict[str, Any]] = {}
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
        update = {"id": file_id, "image_id": result.image_id, "state": "tagged", "reason": None}
        if isinstance(result, RejectedFile):
            update |= {"state": "rejected", "reason": storable(result.reason)}
            touched.add(day_of(row.first_seen))
            refused += [file_id] if row.state == "new" else []
        else:
            # One that is gone with this token was tagged before, and counted then.
            arrivals += [result] if row.state == "new" else []
            size = {"image_id": result.image_id, "width": result.width, "height": result.height}
            # An image arrives when its bytes do, whatever the file held before.
            earlier = found.get(result.image_id)
            if earlier is None or row.changed_at < earlier["first_seen"]:
                found[result.image_id] = {**size, "first_seen": row.changed_at}
        updates.append(update)
        states[row.state] -= 1
        states[str(update["state"])] += 1
    update_files(connection, updates)
    count_files(connection, states)
    touched |= keep_images(connection, found)
    recheck(connection, let_go)
    return Settled(touched | days_of(connection, let_go), arrivals, refused)


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
