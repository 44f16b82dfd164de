"""Which corrections are in force, which images are no shoes, and where people disagree."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .rows import WHOLE_IMAGE
from .sql import PAGE
from .tables import corrections

IN_FORCE = corrections.c.withdrawn_at.is_(None)
IS_VERDICT = corrections.c.group_name == WHOLE_IMAGE


def judged_among(
    connection: Connection, image_ids: Iterable[str], when: datetime | None = None
) -> set[str]:
    """Return the images among these with a verdict, now or at a time."""
    found: set[str] = set()
    for some in chunked(image_ids, PAGE):
        query = sa.select(corrections.c.image_id).where(
            IS_VERDICT, corrections.c.image_id.in_(some), in_force_at(when)
        )
        found |= set(connection.execute(query).scalars())
    return found


def disputed(connection: Connection) -> set[str]:
    """Return the images of which a correction in force says otherwise than another person's."""
    before = corrections.alias()
    query = (
        sa.select(corrections.c.image_id, corrections.c.tags, before.c.tags.label("before"))
        .join(before, before.c.id == corrections.c.replaces)
        .where(IN_FORCE, before.c.by != corrections.c.by)
    )
    rows = connection.execute(query).all()
    return {row.image_id for row in rows if set(row.tags) != set(row.before)}


def is_judged(image_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a person judged an image not to be a shoe."""
    return image_id.in_(sa.select(corrections.c.image_id).where(IN_FORCE, IS_VERDICT))


def in_force_at(when: datetime | None) -> sa.ColumnElement[bool]:
    """Return the condition that a correction is in force, or was at a time."""
    if when is None:
        return IN_FORCE
    later = sa.or_(IN_FORCE, corrections.c.withdrawn_at > when)
    return sa.and_(corrections.c.created_at <= when, later)
