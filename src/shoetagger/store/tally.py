"""What a run has done, counted in the transactions that do it: exact after kills and repetitions.

The counts and rates of a run are read and written again while no other transaction writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .ledger import all_versions
from .rows import Recorded, Tagged
from .sql import NEW, PAGE
from .tables import deferred_files, files, tagging_runs, versions
from .verdicts import judged_among

# What is counted while a run goes on, in the order in which people read it.
COUNTED = ("seen", "new", "tagged", "rejected", "retagged", "deferred")


@dataclass
class Tally:
    """What one transaction of a run did.

    `tagged` are the arrivals that it settled, `new_images` the images that it inserted, `done` the
    files that it settled or found gone, and `deferred` those that were read and left to the next
    run.
    """

    tagged: Sequence[Tagged] = ()
    new_images: Collection[str] = ()
    rejected: int = 0
    retagged: int = 0
    new: int = 0
    done: Sequence[str] = ()
    deferred: Sequence[str] = ()


def add_to_run(connection: Connection, run_id: str, now: datetime, tally: Tally) -> Recorded:
    """Add to the counts of a run what a transaction did, and show that the run goes on.

    A run that the store does not know counts nothing.
    """
    query = sa.select(tagging_runs).where(tagging_runs.c.run_id == run_id)
    run = connection.execute(query).one_or_none()
    counts = Counter(run.counts if run else {})
    deferred = _defer(connection, run_id, tally.deferred) if run and tally.deferred else 0
    if tally.done and counts["deferred"]:
        deferred -= _settle_deferred(connection, run_id, tally.done)
    recorded = Recorded(len(tally.tagged), tally.rejected, tally.retagged, deferred)
    if run is None:
        return recorded
    values: dict[str, Any] = {"alive_at": now}
    if more := {k: n for k, n in {**recorded._asdict(), "new": tally.new}.items() if n}:
        values["counts"] = {**run.counts, **{k: counts[k] + n for k, n in more.items()}}
    if tally.tagged:
        values["rates"] = _rates(connection, run, tally)
    connection.execute(
        sa.update(tagging_runs).where(tagging_runs.c.run_id == run_id).values(values)
    )
    return recorded


def _rates(
    connection: Connection, run: sa.Row[Any], tally: Tally
) -> dict[str, tuple[int, int]] | None:
    """Return the rates of a run with its arrivals, less those judged not to be shoes."""
    rates: dict[str, tuple[int, int]] | None = run.rates
    new = tally.new_images
    judged = judged_among(connection, {i for f in tally.tagged if (i := f.image_id) not in new})
    shoes = [file for file in tally.tagged if file.image_id not in judged]
    if not shoes:
        return rates
    has = Counter(tag for file in shoes for tag in file.tags)
    if rates is None:
        pinned = all_versions(connection, versions.c.digest.in_(run.pins.values()))
        rates = {tag: (0, 0) for version in pinned for tag in version.tags}
    return {tag: (before + has[tag], n + len(shoes)) for tag, (before, n) in rates.items()}


def _defer(connection: Connection, run_id: str, file_ids: Sequence[str]) -> int:
    """Write down which files that still wait a run has read and left; return how many are new."""
    number = 0
    of_run = deferred_files.c.run_id == run_id
    for some in chunked(file_ids, PAGE):
        known = sa.select(deferred_files.c.file_id).where(
            of_run, deferred_files.c.file_id.in_(some)
        )
        waiting = sa.select(files.c.file_id).where(files.c.file_id.in_(some), NEW)
        left = waiting.where(files.c.file_id.not_in(known))
        rows = [{"run_id": run_id, "file_id": f} for f in connection.execute(left).scalars()]
        if rows:
            connection.execute(sa.insert(deferred_files), rows)
        number += len(rows)
    return number


def _settle_deferred(connection: Connection, run_id: str, file_ids: Sequence[str]) -> int:
    """Let files be no longer among those that a run left to the next one; return how many were."""
    of_run = sa.delete(deferred_files).where(deferred_files.c.run_id == run_id)
    return sum(
        connection.execute(of_run.where(deferred_files.c.file_id.in_(some))).rowcount
        for some in chunked(file_ids, PAGE)
    )
