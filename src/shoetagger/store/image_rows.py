"""Rows of the table `images`: inserted, renewed, marked as gone or as replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .blocks import IMAGES, add, block_of, move
from .bulk import among, insert_rows, moment
from .days import day_of
from .sql import NOT_REJECTED, PAGE
from .tables import files, images, last_seq

_COLUMNS = ("image_key", "image_id", "width", "height", "first_seen", "day", "seq", "replaced")


def next_seqs(connection: Connection, number: int) -> range:
    """Take the next `number` values of `seq`; none is ever given twice."""
    taken = sa.update(last_seq).values(seq=last_seq.c.seq + number).returning(last_seq.c.seq)
    highest = int(connection.execute(taken).scalar_one())
    return range(highest - number + 1, highest + 1)


class Found(NamedTuple):
    """An image that was read: its size, and when the first file with its bytes arrived."""

    width: int
    height: int
    first_seen: datetime


class Kept(NamedTuple):
    """A row of an image: key, day and seq, and whether no file holds its bytes any more."""

    key: int
    day: str
    seq: int
    replaced: bool


def keep_images(
    connection: Connection, found: Mapping[str, Found]
) -> tuple[dict[str, Kept], set[str]]:
    """Insert the unknown images and renew the known ones; `found` is by image id.

    Returns the rows inserted, and the days of all.
    """
    known = kept_images(connection, found)
    order = sorted(found, key=lambda image_id: (found[image_id].first_seen, image_id))
    unknown = [image_id for image_id in order if image_id not in known]
    inserted: dict[str, Kept] = {}
    if unknown:
        seqs = next_seqs(connection, len(unknown))
        inserted = {
            image_id: Kept(seq, day_of(found[image_id].first_seen), seq, replaced=False)
            for seq, image_id in zip(seqs, unknown, strict=True)
        }  # the first seq is the key
        times = {f.first_seen: moment(connection, f.first_seen) for f in found.values()}
        rows = [
            (key, i, found[i].width, found[i].height, times[found[i].first_seen], *others)
            for i, (key, *others) in inserted.items()
        ]
        insert_rows(connection, images, _COLUMNS, rows)
        add(connection, Counter((IMAGES, block_of(row.seq)) for row in inserted.values()))
    renew(connection, [image_id for image_id in order if image_id in known])
    return inserted, {row.day for row in (*known.values(), *inserted.values())}


def kept_images(connection: Connection, image_ids: Collection[str]) -> dict[str, Kept]:
    """Return the rows of the known images among these."""
    if not image_ids:
        return {}
    columns = images.c["image_id", "image_key", "day", "seq", "replaced"]
    query = sa.select(*columns)
    rows = connection.execute(query.where(among(connection, images.c.image_id, image_ids))).all()
    return {image_id: Kept(*row) for image_id, *row in rows}


def renew(connection: Connection, image_ids: Sequence[str]) -> None:
    """Give images that can be read (again) a `seq` above all others."""
    if image_ids:
        seqs = dict(zip(image_ids, next_seqs(connection, len(image_ids)), strict=True))
        kept = kept_images(connection, image_ids)
        _place(connection, kept, {image_id: (seq, False) for image_id, seq in seqs.items()})


def recheck(connection: Connection, image_ids: Collection[str | None]) -> None:
    """Mark the images among these that no file there holds as gone, or as replaced."""
    for some in chunked(sorted(filter(None, image_ids)), PAGE):
        held = sa.select(files.c.image_id, files.c.state).where(
            files.c.image_id.in_(some), NOT_REJECTED
        )
        states: dict[str, set[str]] = {image_id: set() for image_id in some}
        for image_id, state in connection.execute(held.distinct()):
            states[image_id].add(state)
        kept = kept_images(connection, some)
        _place(
            connection,
            kept,
            {
                image_id: (-abs(row.seq), not states[image_id])
                for image_id, row in kept.items()
                if "tagged" not in states[image_id]
            },
        )


def erase(connection: Connection, image_id: str) -> int | None:
    """Delete the row of an image, and its counts, while its predictions are still there.

    Returns its key; None for an unknown one.
    """
    kept = kept_images(connection, [image_id])
    move(connection, {row.key: (_block(row), None) for row in kept.values()}, _days_by_key(kept))
    deleted = sa.delete(images).where(images.c.image_id == image_id)
    return connection.execute(deleted.returning(images.c.image_key)).scalar()


def _place(
    connection: Connection, kept: Mapping[str, Kept], places: Mapping[str, tuple[int, bool]]
) -> None:
    """Set `seq` and `replaced` of images, and move their counts along; `kept` has their rows."""
    if not places:
        return
    which = images.c.image_id == sa.bindparam("id")
    values: dict[str, Any] = {"seq": sa.bindparam("next"), "replaced": sa.bindparam("lost")}
    connection.execute(
        sa.update(images).where(which).values(values),
        [{"id": i, "next": seq, "lost": replaced} for i, (seq, replaced) in places.items()],
    )
    moved = {
        kept[i].key: (_block(kept[i]), None if replaced else block_of(seq))
        for i, (seq, replaced) in places.items()
    }
    move(connection, moved, _days_by_key(kept))


def _block(row: Kept) -> int | None:
    """Return the block that counts an image; None for one that is replaced."""
    return None if row.replaced else block_of(row.seq)


def _days_by_key(kept: Mapping[str, Kept]) -> dict[int, str]:
    return {row.key: row.day for row in kept.values()}


def days_of(connection: Connection, image_ids: Collection[str | None]) -> set[str]:
    """Return the days of images."""
    days: set[str] = set()
    for some in chunked(sorted(filter(None, image_ids)), PAGE):
        query = sa.select(images.c.day).where(images.c.image_id.in_(some))
        days |= set(connection.execute(query.distinct()).scalars())
    return days
