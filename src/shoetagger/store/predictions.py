"""Predictions, and the images that lack one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .database import Database
from .days import bump
from .files import last_seq, lose, settle
from .ledger import all_versions
from .rows import (
    Backlog,
    BundleVersion,
    Prediction,
    RejectedFile,
    StoreError,
    Tagged,
    TaggedPicture,
    Work,
)
from .sql import NEW, TAGGED, pages
from .tables import coverage, files, images, predictions, versions

SCORE_DIGITS = 6


def write_predictions(
    connection: Connection, said: Sequence[Prediction], run_id: str, now: datetime
) -> set[str]:
    """Write the predictions that are not there yet, of known pictures; return the days."""
    by_digest: dict[str, dict[str, Prediction]] = {}
    for prediction in said:
        by_digest.setdefault(prediction.digest, {}).setdefault(prediction.image_id, prediction)
    known = {v.digest: v for v in all_versions(connection, versions.c.digest.in_(by_digest))}
    days_of: dict[str, str] = {}
    for some in pages({prediction.image_id: None for prediction in said}):
        query = sa.select(images.c.image_id, images.c.day).where(images.c.image_id.in_(some))
        days_of |= dict(iter(connection.execute(query)))
    rows: list[dict[str, Any]] = []
    for digest, by_image in sorted(by_digest.items()):
        if digest not in known:
            raise StoreError(f"bundle {digest} is unknown to the store: add_version comes first")
        there = predicted(connection, digest, list(by_image))
        for image_id in sorted(by_image.keys() & days_of.keys() - there):
            prediction = by_image[image_id]
            check_scores(prediction, known[digest])
            rows.append(
                {
                    "image_id": image_id,
                    "bundle_digest": digest,
                    "scores": [round(float(s), SCORE_DIGITS) for s in prediction.scores],
                    "tags": list(prediction.tags),
                    "run_id": run_id,
                    "created_at": now,
                }
            )
    if rows:
        connection.execute(sa.insert(predictions), rows)
    return {days_of[row["image_id"]] for row in rows}


def check_scores(prediction: Prediction, version: BundleVersion) -> None:
    """Refuse what cannot have come from the bundle it names."""
    if len(prediction.scores) != len(version.tags) or not all(
        map(math.isfinite, prediction.scores)
    ):
        raise StoreError(
            f"prediction of picture {prediction.image_id} by bundle {prediction.digest}: "
            f"{prediction.scores} are not {len(version.tags)} finite scores"
        )


# --- backlog
def lacks(digest: str) -> sa.ColumnElement[bool]:
    """The picture has no prediction of this bundle."""
    return ~sa.exists().where(
        predictions.c.bundle_digest == digest, predictions.c.image_id == images.c.image_id
    )


def readable() -> sa.ColumnElement[bool]:
    """Some file holds the picture and was there when last looked for."""
    return sa.exists().where(files.c.image_id == images.c.image_id, TAGGED)


def covered(connection: Connection, digests: Collection[str]) -> dict[str, int]:
    """The seq up to which each bundle was found complete; 0 for none."""
    query = sa.select(coverage).where(coverage.c.bundle_digest.in_(digests))
    found = {row.bundle_digest: int(row.seq) for row in connection.execute(query)}
    return {digest: found.get(digest, 0) for digest in digests}


def remember_covered(connection: Connection, complete: Mapping[str, int]) -> None:
    """Raise the seq up to which bundles are complete; it never falls."""
    there = covered(connection, complete)
    for digest, seq in complete.items():
        if not there[digest]:
            connection.execute(sa.delete(coverage).where(coverage.c.bundle_digest == digest))
            connection.execute(sa.insert(coverage), {"bundle_digest": digest, "seq": seq})
        elif there[digest] < seq:
            which = coverage.c.bundle_digest == digest
            connection.execute(sa.update(coverage).where(which).values(seq=seq))


def predicted(connection: Connection, digest: str, image_ids: Sequence[str]) -> set[str]:
    """Those of the pictures that have a prediction of this bundle."""
    found: set[str] = set()
    for some in pages(image_ids):
        query = sa.select(predictions.c.image_id).where(
            predictions.c.bundle_digest == digest, predictions.c.image_id.in_(some)
        )
        found |= set(connection.execute(query).scalars())
    return found


def locators_of(
    connection: Connection, image_ids: Sequence[str], which: sa.ColumnElement[bool]
) -> dict[str, tuple[str, ...]]:
    """The locators of each picture's files, of those files that meet a condition, sorted."""
    found: dict[str, tuple[str, ...]] = {}
    for some in pages(image_ids):
        query = sa.select(files.c.image_id, files.c.locator).where(
            files.c.image_id.in_(some), which
        )
        for image_id, locator in sorted(connection.execute(query)):
            found[image_id] = (*found.get(image_id, ()), locator)
    return found


class Predictions:
    """Predictions, and the work left: images that lack one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def backlog(
        self,
        pins: Mapping[str, str],
        lo: str,
        hi: str | None,
        limit: int,
        after: tuple[datetime, str] | None = None,
    ) -> list[Backlog]:
        """Return up to `limit` pictures in [lo, hi) that lack a prediction of a pinned bundle.

        `pins` is group -> digest. Latest arrival first; `after` is first_seen and image_id of the
        last row of the page before. Pictures whose file is not there to be read are left out.
        """
        if not pins:
            return []
        with self._database.reading() as connection:
            up_to = covered(connection, pins.values())
            # Always bounded on both sides: so SQLite walks the index instead of sorting.
            below = last_seq(connection) + 1
            if after is not None:
                last = sa.select(images.c.seq).where(images.c.image_id == after[1])
                below = connection.execute(last).scalar() or below
            query = (
                sa.select(images.c.image_id, images.c.first_seen)
                .where(images.c.seq > min(up_to.values()), images.c.seq < below)
                .where(images.c.image_id >= lo)
                .where(sa.or_(*(lacks(digest) for digest in pins.values())), readable())
            )
            if hi is not None:
                query = query.where(images.c.image_id < hi)
            found = connection.execute(query.order_by(images.c.seq.desc()).limit(limit)).all()
            image_ids = [row.image_id for row in found]
            locators = locators_of(connection, image_ids, TAGGED)
            done = {g: predicted(connection, digest, image_ids) for g, digest in pins.items()}
        return [
            Backlog(
                row.image_id,
                row.first_seen,
                locators.get(row.image_id, ()),
                tuple(group for group in pins if row.image_id not in done[group]),
            )
            for row in found
        ]

    def count_work(self, pins: Mapping[str, str]) -> Work:
        """Return how many files wait, and for each pinned group how many pictures lack its bundle.

        What is found complete is remembered, so that asking again costs as much as has come since.
        """
        backlog, complete = {}, {}
        with self._database.reading() as connection:
            new = connection.execute(sa.select(sa.func.count()).select_from(files).where(NEW))
            new_files = int(new.scalar_one())
            top = last_seq(connection)
            up_to = covered(connection, pins.values())
            for group, digest in pins.items():
                query = sa.select(sa.func.count(), sa.func.min(images.c.seq)).where(
                    images.c.seq > up_to[digest],
                    images.c.seq <= top,
                    lacks(digest),
                    readable(),
                )
                count, lowest = connection.execute(query).one()
                backlog[group] = int(count)
                end = lowest - 1 if count else top
                if end > up_to[digest]:
                    complete[digest] = end
        if complete:
            with self._database.writing() as connection:
                remember_covered(connection, complete)
        return Work(new_files, backlog)

    def sample_tagged(self, digest: str, limit: int) -> list[TaggedPicture]:
        """Return up to `limit` pictures that a bundle has tagged and that can be read.

        Those with the lowest image ids: as good as drawn at random, and the same ones every time.
        """
        query = (
            sa.select(predictions.c.image_id, predictions.c.tags)
            .join(images, images.c.image_id == predictions.c.image_id)
            .where(predictions.c.bundle_digest == digest, readable())
            .order_by(predictions.c.image_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
            ids = [row.image_id for row in found]
            locators = locators_of(connection, ids, TAGGED)
        return [
            TaggedPicture(row.image_id, locators[row.image_id][0], tuple(row.tags))
            for row in found
            if row.image_id in locators
        ]

    def record(
        self,
        *,
        tagged: Sequence[Tagged] = (),
        rejected: Sequence[RejectedFile] = (),
        predictions: Sequence[Prediction] = (),
        gone: Sequence[str] = (),
        run_id: str,
        now: datetime,
    ) -> None:
        """Write what became of a batch, in one transaction; a second time it changes nothing.

        Of `tagged` and `rejected`, those files are settled that wait as of the same token: one that
        changed meanwhile is left for the next run, and the first to settle a file is believed. A
        prediction is kept as first written, and only of a picture that some file holds. `gone` are
        the file_ids of files that are not there any more: no work until they come back. Scores are
        kept to 6 decimals. Raises StoreError for a bundle that `add_version` has not been told of.
        """
        with self._database.writing() as connection:
            touched = settle(connection, tagged, rejected)
            touched |= write_predictions(connection, predictions, run_id, now)
            lose(connection, gone)
            bump(connection, touched)
