"""Rows of the table `images`: inserted, renewed, marked as replaced."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .days import day_of
from .sql import NOT_REJECTED, PAGE
from .tables import files, images


def last_seq(connection: Connection) -> int:
    """Return the highest `seq` of all images; 0 without any."""
    return int(connection.execute(sa.select(sa.func.max(images.c.seq))).scalar() or 0)


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
            for seq, image_id in enumerate(unknown, last_seq(connection) + 1)
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
                for seq, image_id in enumerate(image_ids, last_seq(connection) + 1)
            ],
        )


def recheck_replaced(connection: Connection, image_ids: Collection[str | None]) -> set[str]:
    """Mark the images among these that no file holds any more; return the days of all."""
    touched: set[str] = set()
    for some in chunked(sorted(filter(None, image_ids)), PAGE):
        held = sa.select(files.c.image_id).where(files.c.image_id.in_(some), NOT_REJECTED)
        free = set(some) - set(connection.execute(held).scalars())
        connection.execute(
            sa.update(images).where(images.c.image_id.in_(free)).values(replaced=True)
        )
        seen = sa.select(images.c.day).where(images.c.image_id.in_(some))
        touched |= set(connection.execute(seen.distinct()).scalars())
    return touched
