"""What comparisons of challengers found, for the desk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from .database import Database
from .forgetting import forgotten_among
from .rows import TagChange
from .sql import insert_into
from .tables import changes, comparisons, versions

KEPT = 20  # comparisons per group, the latest


@dataclass(frozen=True)
class StoredComparison:
    """One comparison; `document` has what the report has, `changes` at most promote.sample."""

    digest: str
    created_at: datetime
    document: Mapping[str, Any]
    changes: tuple[TagChange, ...]


class Comparisons:
    """The latest comparisons of each group, by the challenger's digest."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self,
        digest: str,
        document: Mapping[str, Any],
        changed: Sequence[TagChange],
        *,
        now: datetime,
    ) -> None:
        """Keep what a comparison found, in place of an earlier one of this challenger.

        Of its group, the latest ones stay. Images that were erased meanwhile are left out.
        """
        row = {"created_at": now, "document": dict(document)}
        with self._database.writing() as connection:
            upsert = insert_into(connection, comparisons).on_conflict_do_update(
                index_elements=[comparisons.c.digest], set_=row
            )
            connection.execute(upsert, {"digest": digest, **row})
            connection.execute(sa.delete(changes).where(changes.c.digest == digest))
            unwanted = forgotten_among(connection, [change.image_id for change in changed])
            rows = [
                {
                    "digest": digest,
                    "image_id": change.image_id,
                    "before": list(change.before),
                    "after": list(change.after),
                }
                for change in changed
                if change.image_id not in unwanted
            ]
            if rows:
                connection.execute(sa.insert(changes), rows)
            group = sa.select(versions.c.group_name).where(versions.c.digest == digest)
            of_group = (
                sa.select(comparisons.c.digest)
                .join(versions, versions.c.digest == comparisons.c.digest)
                .where(versions.c.group_name == group.scalar_subquery())
                .order_by(comparisons.c.created_at.desc())
            )
            old = connection.execute(of_group).scalars().all()[KEPT:]
            for table in (changes, comparisons):
                connection.execute(sa.delete(table).where(table.c.digest.in_(old)))

    def get(self, digest: str) -> StoredComparison | None:
        """Return the comparison of a challenger; None where there is none, or none any more."""
        with self._database.reading() as connection:
            row = connection.execute(
                sa.select(comparisons).where(comparisons.c.digest == digest)
            ).one_or_none()
            if row is None:
                return None
            query = sa.select(changes).where(changes.c.digest == digest)
            found = connection.execute(query.order_by(changes.c.image_id)).all()
        return StoredComparison(
            digest,
            row.created_at,
            row.document,
            tuple(TagChange(c.image_id, tuple(c.before), tuple(c.after)) for c in found),
        )

    def latest(self) -> list[tuple[str, datetime]]:
        """Return digest and time of all comparisons, the latest first."""
        query = sa.select(comparisons.c.digest, comparisons.c.created_at)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(comparisons.c.created_at.desc()))
            return [(row.digest, row.created_at) for row in rows]
