"""Rows of the table `images`: inserted, renewed, marked as replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .days import day_of
from .sql import NOT_REJECTED, PAGE
from .tables import files, images, last_seq


def highest_seq(connection: Connection) -> int:
    """Return the highest `seq` that an image ever had; 0 before the first."""
    return int(connection.execute(sa.select(last_seq.c.seq)).scalar_one())


def next_seqs(connection: Connection, number: int) -> range:
    """Take the next `number` values of `seq`; none is ever given twice."""
    taken = sa.update(last_seq).values(seq=last_seq.c.seq + number).returning(last_seq.c.seq)
    highest = int(connection.execute(taken).scalar_one())
    return range(highest - number + 1, highest + 1)


def keep_images(connection: Connection, found: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Insert the unknown images and renew the known ones; return the days of all.

    `found` is image id -> columns, `first_seen` among them.
    """
    days: dict[str, str] = {}
    for some in chunked(found, PAGE):
        query = sa.select(images.c.image_id, images.c.day).where(images.c.image_id.in_(some))
        days |= dict(iter(connection.execute(query)))
    order = sorted(found, key=lambda image_id: (found[image_id]["first_seen"], image_id))
    known = [image_id for image_id in order if image_id in days]
    unknown = [image_id for image_id in order if image_id not in days]
    days |= {image_id: day_of(found[image_id]["first_seen"]) for image_id in unknown}
    if unknown:
        rows = [
            {**found[image_id], "day": days[image_id], "seq": seq, "replaced": False}
            for seq, image_id in zip(next_seqs(connection, len(unknown)), unknown, strict=True)
        ]
        connection.execute(sa.insert(images), rows)
    renew(connection, known)
    return set(days.values())


def renew(connection: Connection, image_ids: Sequence[str]) -> None:
    """Give images that can be read (again) a `seq` above all that was found complete before."""
    if image_ids:
        which = images.c.image_id == sa.bindparam("id")
        values = {"seq": sa.bindparam("next"), "replaced": False}
        connection.execute(
            sa.update(images).where(which).values(values),
            [
                {"id": image_id, "next": seq}
                for seq, image_id in zip(
                    next_seqs(connection, len(image_ids)), image_ids, strict=True
                )
            ],
        )


def days_of(connection: Connection, image_ids: Collection[str | None]) -> set[str]:
    """Return the days of images."""
    days: set[str] = set()
    for some in chunked(sorted(filter(None, image_ids)), PAGE):
        query = sa.select(images.c.day).where(images.c.image_id.in_(some))
        days |= set(connection.execute(query.distinct()).scalars())
    return days


def recheck_replaced(connection: Connection, image_ids: Collection[str | None]) -> set[str]:
    """Mark the images among these that no file holds any more; return the days of all."""
    for some in chunked(sorted(filter(None, image_ids)), PAGE):
        held = sa.select(files.c.image_id).where(files.c.image_id.in_(some), NOT_REJECTED)
        free = set(some) - set(connection.execute(held).scalars())
        connection.execute(
            sa.update(images).where(images.c.image_id.in_(free)).values(replaced=True)
        )
    return days_of(connection, image_ids)
