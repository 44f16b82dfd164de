"""Forgetting: what is derived from an image is erased, and its bytes are refused from then on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .blocks import count_files
from .bulk import among
from .days import bump, day_of
from .image_rows import erase
from .sql import GONE, NEW, REJECTED, TAGGED, insert_into
from .tables import (
    changes,
    corrections,
    files,
    forgotten,
    images,
    predictions,
    skips,
    vectors,
    versions,
)

FORGOTTEN = "forgotten: all data about it is erased; `shoetagger retry` with its name tags it again"


def forgotten_among(connection: Connection, image_ids: Iterable[str]) -> set[str]:
    """Return the images among these that a person had erased."""
    named = among(connection, forgotten.c.image_id, list(image_ids))
    return set(connection.execute(sa.select(forgotten.c.image_id).where(named)).scalars())


def forget(connection: Connection, image_id: str, now: datetime) -> bool:
    """Erase what is derived from an image and refuse its bytes; return False for an unknown one."""
    seen = sa.select(images.c.day).where(images.c.image_id == image_id)
    touched = set(connection.execute(seen).scalars())
    holds_it = files.c.image_id == image_id
    first_seen = sa.select(files.c.first_seen).where(holds_it)
    touched |= {day_of(moment) for moment in connection.execute(first_seen).scalars()}
    if not touched:
        return bool(forgotten_among(connection, [image_id]))
    insert = insert_into(connection, forgotten).on_conflict_do_nothing()
    connection.execute(insert, {"image_id": image_id, "forgotten_at": now})
    connection.execute(sa.delete(corrections).where(corrections.c.image_id == image_id))
    for table in (changes, skips):
        connection.execute(sa.delete(table).where(table.c.image_id == image_id))
    key = erase(connection, image_id)
    connection.execute(sa.delete(vectors).where(vectors.c.image_key == key))
    # Bundle by bundle: the key of predictions begins with it.
    for bundle_key in connection.execute(sa.select(versions.c.bundle_key)).scalars().all():
        one = (predictions.c.bundle_key == bundle_key) & (predictions.c.image_key == key)
        connection.execute(sa.delete(predictions).where(one))
    # New bytes under the name are another image; a file that is gone may return, as an arrival.
    connection.execute(sa.update(files).where(holds_it, NEW).values(image_id=None))
    gone = connection.execute(sa.delete(files).where(holds_it, GONE)).rowcount
    refuse = sa.update(files).values(state="rejected", reason=FORGOTTEN).where(holds_it)
    tagged = connection.execute(refuse.where(TAGGED)).rowcount
    connection.execute(refuse.where(REJECTED))
    count_files(connection, {"gone": -gone, "tagged": -tagged, "rejected": tagged})
    bump(connection, touched)
    return True


def remember(connection: Connection, which: sa.ColumnElement[bool]) -> None:
    """Let the bytes of the files that meet a condition be tagged again."""
    held = sa.select(files.c.image_id).where(which, files.c.image_id.is_not(None))
    connection.execute(sa.delete(forgotten).where(forgotten.c.image_id.in_(held)))


def not_forgotten() -> sa.ColumnElement[bool]:
    """Return the condition that a file holds no bytes that were forgotten."""
    return ~sa.exists().where(forgotten.c.image_id == files.c.image_id)
