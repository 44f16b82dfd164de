"""Images that people passed on when they were asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from more_itertools import chunked

from .database import Database
from .sql import PAGE, insert_into
from .tables import images, skips


class Skips:
    """Who passed which image on: it is asked of them no more, and of everybody else still."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, image_ids: Sequence[str], *, by: str, now: datetime) -> None:
        """Let a person pass images on; those that the store does not know are passed over."""
        with self._database.writing() as connection:
            for some in chunked(image_ids, PAGE):
                known = sa.select(images.c.image_id).where(images.c.image_id.in_(some))
                rows = [
                    {"by": by, "image_id": image_id, "skipped_at": now}
                    for image_id in connection.execute(known).scalars()
                ]
                if rows:
                    insert = insert_into(connection, skips).on_conflict_do_nothing()
                    connection.execute(insert, rows)

    def take_back(self, image_ids: Sequence[str], *, by: str) -> None:
        """Let images be asked of a person again."""
        with self._database.writing() as connection:
            for some in chunked(image_ids, PAGE):
                found = sa.and_(skips.c.by == by, skips.c.image_id.in_(some))
                connection.execute(sa.delete(skips).where(found))

    def of(self, by: str) -> frozenset[str]:
        """Return the images that a person passed on."""
        query = sa.select(skips.c.image_id).where(skips.c.by == by)
        with self._database.reading() as connection:
            return frozenset(connection.execute(query).scalars())
