"""Corrections: what people say about an image and its tags, which outranks every model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .database import Database
from .days import bump
from .rows import (
    WHOLE_IMAGE,
    Correction,
    CorrectionConflict,
    CorrectionKind,
    Edit,
    RandomReview,
    StoreError,
)
from .sql import PAGE
from .tables import corrections, images
from .verdicts import IN_FORCE, IS_VERDICT, disputed, in_force_at, is_judged, judged_among


class Corrections:
    """The journal of corrections: every change is a row, and no row is ever rewritten by another.

    At most one row per image and group is in force. A row that withdraws a correction is never in
    force itself: the models' tags are current again. A verdict on an image is a correction of the
    group WHOLE_IMAGE: while it is in force, the image has no tags, and its groups cannot be tagged.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def correct(
        self,
        image_id: str,
        group: str,
        tags: Sequence[str] | None,
        *,
        by: str,
        why: str,
        now: datetime,
    ) -> None:
        """Let a person's tags overrule the models' for one image and group; None withdraws them.

        Overrules whatever correction is in force, but no verdict: for an image that has one, this
        raises CorrectionConflict. Raises StoreError for an unknown image.
        """
        edit = Edit(image_id, group, None if tags is None else tuple(tags))
        self._overrule(edit, by, why, now)

    def judge(self, image_id: str, is_shoe: bool, *, by: str, why: str, now: datetime) -> None:
        """Let a person say that an image is not a shoe, or take that verdict back.

        Until it is taken back the image has no tags. Raises StoreError for an unknown image.
        """
        tags = None if is_shoe else ()
        self._overrule(Edit(image_id, WHOLE_IMAGE, tags, kind="verdict"), by, why, now)

    def _overrule(self, edit: Edit, by: str, why: str, now: datetime) -> None:
        with self._database.writing() as connection:
            days = _days_of(connection, [edit.image_id])
            found = _in_force(connection, [edit.image_id])
            if edit.tags is None and (edit.image_id, edit.group) not in found:
                return
            _refuse_judged(edit, found)
            _write(connection, edit, found, by, why, "", now)
            bump(connection, set(days.values()))

    def apply(
        self, edits: Sequence[Edit], *, by: str, why: str, origin: str, now: datetime
    ) -> list[int]:
        """Write a person's edits, all or none; returns the ids of their rows, in order.

        `origin` says where the person met the images, such as `browse`, unless an edit says it.
        Raises CorrectionConflict where a correction other than the one that the person saw is in
        force, or a verdict on an image that is to have tags; StoreError for an unknown image.
        """
        ids = sorted({edit.image_id for edit in edits})
        with self._database.writing() as connection:
            days = _days_of(connection, ids)
            found = _in_force(connection, ids)
            for edit in edits:
                _refuse_unseen(edit, found)
                _refuse_judged(edit, found)
            written = [
                _write(connection, edit, found, by, why, edit.origin or origin, now)
                for edit in edits
            ]
            bump(connection, set(days.values()))
        return written

    def undo(self, ids: Sequence[int], *, by: str, now: datetime) -> list[str]:
        """Take a person's own latest edits back, all or none; returns the images concerned.

        What an edit replaced is in force again. Raises CorrectionConflict where an edit is somebody
        else's, or the group was edited again since.
        """
        with self._database.writing() as connection:
            rows = {row.id: row for row in _by_id(connection, ids)}
            for row in rows.values():
                if row.group == WHOLE_IMAGE and row.kind == "withdraw":
                    _refuse_edited_since(connection, row, ids)
            undone = []
            for number in sorted(set(ids), reverse=True):
                edit = rows.get(number)
                if edit is None:
                    raise StoreError(f"no correction {number} in the store: nothing to undo")
                latest = _latest(connection, edit.image_id, edit.group)
                if edit.id not in (latest.id, latest.restores) or latest.by != by:
                    raise CorrectionConflict(latest)
                undone.append(edit)
                _take_back(connection, latest, by, now)
            bump(connection, set(_days_of(connection, [e.image_id for e in undone]).values()))
        return sorted({edit.image_id for edit in undone})

    def in_force(self, image_ids: Sequence[str]) -> dict[tuple[str, str], Correction]:
        """Return the corrections in force, verdicts among them: (image id, group) -> correction."""
        with self._database.reading() as connection:
            return _in_force(connection, image_ids)

    def judged(self, image_ids: Sequence[str]) -> set[str]:
        """Return the images among these that a person judged not to be shoes."""
        with self._database.reading() as connection:
            return judged_among(connection, image_ids)

    def verdict_at(self, image_id: str, when: datetime) -> Correction | None:
        """Return the verdict on an image that was in force at a time."""
        query = sa.select(corrections).where(
            IS_VERDICT, corrections.c.image_id == image_id, in_force_at(when)
        )
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _correction(row)

    def history(self, image_id: str) -> list[Correction]:
        """Return all corrections of an image, the earliest first."""
        query = sa.select(corrections).where(corrections.c.image_id == image_id)
        with self._database.reading() as connection:
            return [_correction(row) for row in connection.execute(query.order_by("id"))]

    def last(self) -> int:
        """Return the id of the latest row; 0 where there is none."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(sa.func.max(corrections.c.id))).scalar() or 0

    def disputed(self) -> set[str]:
        """Return the images of which the last person said otherwise than another one before."""
        with self._database.reading() as connection:
            return disputed(connection)

    def since(self, last: int) -> tuple[int, set[str]]:
        """Return the id of the latest row, and the images of the rows that came after `last`."""
        query = sa.select(corrections.c.id, corrections.c.image_id).where(corrections.c.id > last)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return max((row.id for row in rows), default=last), {row.image_id for row in rows}

    def uncollected(self) -> list[str]:
        """Return the images with a correction in force that no collection has, the latest last.

        Those that are not shoes are left out: they have no tags to learn from.
        """
        query = (
            sa.select(corrections.c.image_id)
            .where(IN_FORCE, corrections.c.collected_in.is_(None))
            .where(~is_judged(corrections.c.image_id))
            .group_by(corrections.c.image_id)
            .order_by(sa.func.max(corrections.c.id))
        )
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def uncollected_verdicts(self) -> list[str]:
        """Return the images that are not shoes, as no collection knows, the latest last."""
        query = sa.select(corrections.c.image_id).where(
            IN_FORCE, IS_VERDICT, corrections.c.collected_in.is_(None)
        )
        with self._database.reading() as connection:
            return list(connection.execute(query.order_by(corrections.c.id)).scalars())

    def at_random(self) -> list[RandomReview]:
        """Return what people said about images that they met drawn at random, the earliest first.

        It counts as said at random once it was, whoever edits it later: else just the images that
        people disagree about would be missing. Images that are not shoes are left out.
        """
        met = (
            sa.select(
                corrections.c.image_id,
                corrections.c.group_name,
                sa.func.min(corrections.c.created_at).label("at"),
            )
            .where(corrections.c.origin == "random")
            .group_by(corrections.c.image_id, corrections.c.group_name)
            .subquery()
        )
        of_it = sa.and_(
            met.c.image_id == corrections.c.image_id, met.c.group_name == corrections.c.group_name
        )
        query = (
            sa.select(corrections, met.c.at, images.c.first_seen)
            .join(met, of_it)
            .join(images, images.c.image_id == corrections.c.image_id)
            .where(IN_FORCE, ~is_judged(images.c.image_id))
            .order_by(met.c.at, corrections.c.id)
        )
        with self._database.reading() as connection:
            return [
                RandomReview(row.image_id, row.group_name, tuple(row.tags), row.at, row.first_seen)
                for row in connection.execute(query)
            ]

    def mark_collected(
        self, ids: Sequence[int], commit: str, *, removed: Sequence[str] = ()
    ) -> None:
        """Record the commit whose label sheet says what these corrections say.

        It no longer says anything of the images `removed`: should a person take their verdicts
        back, what was said of their groups is to be collected again.
        """
        with self._database.writing() as connection:
            for some in chunked(ids, PAGE):
                update = sa.update(corrections).where(corrections.c.id.in_(some))
                connection.execute(update.values(collected_in=commit))
            for images_gone in chunked(removed, PAGE):
                of_groups = sa.update(corrections).where(
                    corrections.c.image_id.in_(images_gone), ~IS_VERDICT
                )
                connection.execute(of_groups.values(collected_in=None))

    def images_of(self, days: Iterable[str]) -> set[str]:
        """Return the images of some days that were ever corrected."""
        query = sa.select(corrections.c.image_id).join(
            images, images.c.image_id == corrections.c.image_id
        )
        found: set[str] = set()
        with self._database.reading() as connection:
            for some in chunked(days, PAGE):
                rows = connection.execute(query.where(images.c.day.in_(some)).distinct())
                found.update(rows.scalars())
        return found


def _days_of(connection: Connection, image_ids: Sequence[str]) -> dict[str, str]:
    """Return image id -> day; raises StoreError for an image that the store does not know."""
    days: dict[str, str] = {}
    for some in chunked(image_ids, PAGE):
        query = sa.select(images.c.image_id, images.c.day).where(images.c.image_id.in_(some))
        days.update((row.image_id, row.day) for row in connection.execute(query))
    for image_id in image_ids:
        if image_id not in days:
            raise StoreError(f"no picture {image_id} in the store: nothing to correct")
    return days


def _in_force(
    connection: Connection, image_ids: Sequence[str]
) -> dict[tuple[str, str], Correction]:
    found: dict[tuple[str, str], Correction] = {}
    for some in chunked(image_ids, PAGE):
        query = sa.select(corrections).where(corrections.c.image_id.in_(some), IN_FORCE)
        for row in connection.execute(query):
            found[row.image_id, row.group_name] = _correction(row)
    return found


def _by_id(connection: Connection, ids: Sequence[int]) -> list[Correction]:
    found = []
    for some in chunked(ids, PAGE):
        query = sa.select(corrections).where(corrections.c.id.in_(some))
        found += [_correction(row) for row in connection.execute(query)]
    return found


def _latest(connection: Connection, image_id: str, group: str) -> Correction:
    query = sa.select(corrections).where(
        corrections.c.image_id == image_id, corrections.c.group_name == group
    )
    return _correction(connection.execute(query.order_by(corrections.c.id.desc()).limit(1)).one())


def _refuse_unseen(edit: Edit, found: Mapping[tuple[str, str], Correction]) -> None:
    """Raise CorrectionConflict where a correction in force is not the one that the person saw."""
    there = found.get((edit.image_id, edit.group))
    if edit.group == WHOLE_IMAGE:
        of_image = [row for (image_id, _), row in found.items() if image_id == edit.image_id]
        there = max(of_image, key=lambda row: row.id, default=None)
    if there is not None and there.id != edit.seen:
        raise CorrectionConflict(there)


def _refuse_judged(edit: Edit, found: Mapping[tuple[str, str], Correction]) -> None:
    """Raise CorrectionConflict where a group of an image with a verdict is to have tags."""
    verdict = found.get((edit.image_id, WHOLE_IMAGE))
    if verdict is not None and edit.group != WHOLE_IMAGE and edit.tags is not None:
        raise CorrectionConflict(verdict)


def _refuse_edited_since(connection: Connection, edit: Correction, ids: Sequence[int]) -> None:
    """Raise CorrectionConflict where an edit after this one, not among `ids`, tagged its image."""
    later = sa.select(corrections).where(
        IN_FORCE,
        corrections.c.image_id == edit.image_id,
        corrections.c.id > edit.id,
        corrections.c.id.not_in(ids),
    )
    row = connection.execute(later.order_by(corrections.c.id.desc()).limit(1)).first()
    if row is not None:
        raise CorrectionConflict(_correction(row))


def _write(
    connection: Connection,
    edit: Edit,
    found: Mapping[tuple[str, str], Correction],
    by: str,
    why: str,
    origin: str,
    now: datetime,
) -> int:
    """Insert an edit's row and withdraw the correction that it replaces; return the row's id."""
    replaced = found.get((edit.image_id, edit.group))
    if replaced is not None:
        _withdraw(connection, replaced.id, now)
    kind: CorrectionKind = "withdraw" if edit.tags is None else edit.kind
    return _insert(
        connection,
        image_id=edit.image_id,
        group_name=edit.group,
        tags=list(edit.tags or ()),
        by=by,
        why=why,
        kind=kind,
        origin=origin,
        replaces=replaced.id if replaced else None,
        seen_digest=edit.seen_digest,
        created_at=now,
        withdrawn_at=now if kind == "withdraw" else None,
    )


def _take_back(connection: Connection, edit: Correction, by: str, now: datetime) -> None:
    """Withdraw an edit; what it replaced, if anything, is in force again as a new row."""
    _withdraw(connection, edit.id, now)
    about = {"image_id": edit.image_id, "group_name": edit.group, "created_at": now}
    if edit.replaces is None:
        undone = {"tags": [], "by": by, "why": "undone", "kind": "withdraw", "withdrawn_at": now}
        _insert(connection, **about, **undone, origin=edit.origin)
        return
    (earlier,) = _by_id(connection, [edit.replaces])
    _insert(
        connection,
        **about,
        tags=list(earlier.tags),
        by=earlier.by,
        why=earlier.why,
        kind=earlier.kind,
        origin=earlier.origin,
        replaces=earlier.replaces,
        restores=earlier.restores or earlier.id,
        seen_digest=earlier.seen_digest,
    )


def _withdraw(connection: Connection, number: int, now: datetime) -> None:
    connection.execute(
        sa.update(corrections).where(corrections.c.id == number, IN_FORCE).values(withdrawn_at=now)
    )


def _insert(connection: Connection, **values: Any) -> int:
    query = sa.insert(corrections).values(**values).returning(corrections.c.id)
    return int(connection.execute(query).scalar_one())


def _correction(row: sa.Row[Any]) -> Correction:
    return Correction(
        id=row.id,
        image_id=row.image_id,
        group=row.group_name,
        tags=tuple(row.tags),
        by=row.by,
        why=row.why,
        kind=row.kind,
        origin=row.origin,
        replaces=row.replaces,
        restores=row.restores,
        seen_digest=row.seen_digest,
        collected_in=row.collected_in,
        created_at=row.created_at,
        withdrawn_at=row.withdrawn_at,
    )
