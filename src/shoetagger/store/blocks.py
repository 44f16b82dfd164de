"""Counts of files, images and predictions, written in the transaction of what they count.

A block is a range of `BLOCK` values of `seq`. For each block the table `blocks` has the number of
images that are shown (digest ''), and of those that each bundle has predicted. Images that are
there have positive values of `seq`, and so blocks from 0 on; those whose files are all gone have
negative ones. So what a bundle lacks is found by comparing counts, and only blocks that lack
something are ever looked into. `predicted_days` has the number of those images per bundle and day:
where tags change when the bundle goes live, or does not count any more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .bulk import among
from .sql import insert_into, of_bundle
from .tables import blocks, file_counts, images, predicted_days, predictions, versions

BLOCK = 1000
_BLOCKS = 16  # looked up at a time
IMAGES = ""  # in place of a digest: the count of the images themselves


def block_of(seq: int) -> int:
    return seq // BLOCK


def within(block: int, below: int | None = None) -> sa.ColumnElement[bool]:
    """Return the condition that an image lies in a block, and below a `seq` that is given."""
    # One upper bound: of two, SQLite looks up the first, whichever is lower.
    end = (block + 1) * BLOCK
    return sa.and_(
        images.c.seq >= block * BLOCK, images.c.seq < (end if below is None else min(end, below))
    )


def add(connection: Connection, more: Mapping[tuple[str, int], int]) -> None:
    """Add to the counts; `more` is (digest or IMAGES, block) -> a number, negative to subtract."""
    _add(
        connection,
        blocks,
        [{"digest": digest, "block": block, "number": n} for (digest, block), n in more.items()],
    )


def add_days(connection: Connection, more: Mapping[tuple[str, str], int]) -> None:
    """Add to the counts per day; `more` is (digest, day) -> a number, negative to subtract."""
    rows = [{"digest": digest, "day": day, "number": n} for (digest, day), n in more.items()]
    _add(connection, predicted_days, rows)


def count_files(connection: Connection, more: Mapping[str, int]) -> None:
    """Add to the counts of files by state."""
    _add(connection, file_counts, [{"state": state, "number": n} for state, n in more.items()])


def _add(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if some := [row for row in rows if row["number"]]:
        insert = insert_into(connection, table)
        upsert = insert.on_conflict_do_update(
            index_elements=table.primary_key.columns,
            set_={"number": table.c.number + insert.excluded.number},
        )
        connection.execute(upsert, some)


def move(
    connection: Connection,
    places: Mapping[int, tuple[int | None, int | None]],
    days: Mapping[int, str],
) -> None:
    """Move images, with their predictions, from one block to another.

    `places` is image key -> the block before and the block after; None: it is not shown. `days` is
    image key -> its day.
    """
    moved = {key: place for key, place in places.items() if place[0] != place[1]}
    per_block: Counter[tuple[str, int]] = Counter()
    per_day: Counter[tuple[str, str]] = Counter()
    for digest, keys in _predicted_by(connection, list(moved)):
        for key in keys:
            before, after = moved[key]
            if before is not None:
                per_block[digest, before] -= 1
            if after is not None:
                per_block[digest, after] += 1
            if digest != IMAGES:
                shown = (after is not None) - (before is not None)
                per_day[digest, days[key]] += shown
    add(connection, per_block)
    add_days(connection, per_day)


def _predicted_by(
    connection: Connection, keys: Collection[int]
) -> list[tuple[str, Collection[int]]]:
    """Return, per bundle, which of the images it has predicted, by key; of IMAGES, all."""
    if not keys:
        return []
    found: list[tuple[str, Collection[int]]] = [(IMAGES, keys)]
    for digest in connection.execute(sa.select(versions.c.digest)).scalars().all():
        found.append((digest, predicted(connection, digest, keys)))
    return found


def predicted(connection: Connection, digest: str, keys: Collection[int]) -> set[int]:
    """Return the keys among these of images that have a prediction of this bundle."""
    if not keys:
        return set()
    query = sa.select(predictions.c.image_key).where(
        of_bundle(digest), among(connection, predictions.c.image_key, keys)
    )
    return set(connection.execute(query).scalars())


def numbers(connection: Connection, digests: Collection[str]) -> dict[str, dict[int, int]]:
    """Return the counts of some bundles (or IMAGES), per block; blocks without any are left out."""
    query = sa.select(blocks).where(blocks.c.digest.in_(digests), blocks.c.number != 0)
    found: dict[str, dict[int, int]] = {digest: {} for digest in digests}
    for digest, block, number in connection.execute(query):
        found[digest][block] = number
    return found


def totals_there(connection: Connection, digests: Collection[str]) -> dict[str, int]:
    """Return how many images that are there each bundle has predicted; of IMAGES, all of them."""
    query = sa.select(blocks.c.digest, sa.func.sum(blocks.c.number))
    query = query.where(blocks.c.digest.in_(digests), blocks.c.block >= 0)
    found = dict(iter(connection.execute(query.group_by(blocks.c.digest))))
    return {digest: int(found.get(digest, 0)) for digest in digests}


def lacking(connection: Connection, digests: Collection[str], below: int | None) -> Iterator[int]:
    """Yield the blocks in which some bundle lacks an image that is there, highest first.

    `below` is a `seq`: blocks that lie above it are left out.
    """
    of_bundle = blocks.alias()
    complete = [
        sa.exists().where(
            of_bundle.c.digest == digest,
            of_bundle.c.block == blocks.c.block,
            of_bundle.c.number == blocks.c.number,
        )
        for digest in digests
    ]
    query = (
        sa.select(blocks.c.block)
        .where(blocks.c.digest == IMAGES, blocks.c.number > 0, blocks.c.block >= 0)
        .where(~sa.and_(*complete))
        .order_by(blocks.c.block.desc())
        .limit(_BLOCKS)
    )
    last = None if below is None else block_of(below - 1) + 1
    while True:
        page = query if last is None else query.where(blocks.c.block < last)
        found = connection.execute(page).scalars().all()
        yield from found
        if len(found) < _BLOCKS:
            return
        last = found[-1]


def days_predicted(connection: Connection, digests: Collection[str]) -> set[str]:
    """Return the days on which one of the bundles has predicted some image that is shown."""
    query = sa.select(predicted_days.c.day).where(
        predicted_days.c.digest.in_(digests), predicted_days.c.number != 0
    )
    return set(connection.execute(query.distinct()).scalars())


def files_by_state(connection: Connection) -> Counter[str]:
    """Return the number of files in each state."""
    return Counter(dict(iter(connection.execute(sa.select(file_counts)))))
