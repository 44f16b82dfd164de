"""Predictions, written once and never changed, and the work left to do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .blocks import (
    IMAGES,
    add,
    add_days,
    block_of,
    files_by_state,
    lacking,
    predicted,
    totals_there,
    within,
)
from .database import Database
from .days import bump
from .file_rows import mark_gone
from .ledger import all_versions
from .rows import (
    Backlog,
    BundleVersion,
    Prediction,
    Recorded,
    RejectedFile,
    StoreError,
    Tagged,
    TaggedImage,
    Work,
)
from .settling import settle
from .sql import PAGE, TAGGED, move_place, place_in
from .tables import corrections, files, handed_out, images, predictions, versions
from .tally import Tally, add_to_run
from .vectors import write_vectors
from .verdicts import IN_FORCE, is_judged

SCORE_DIGITS = 6


class Predictions:
    """Predictions, and the work left: files to tag and images that lack a prediction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def backlog(
        self,
        pins: Mapping[str, str],
        start: str,
        stop: str | None,
        limit: int,
        after: tuple[datetime, str] | None = None,
    ) -> list[Backlog]:
        """Return up to `limit` images that lack a prediction of a pinned bundle, latest first.

        Their ids are in [start, stop); `stop` None sets no upper end. `pins` is group -> digest.
        `after` is first_seen and image_id of the last row of the page before. Images without a file
        that can be read are left out.
        """
        if not pins:
            return []
        with self._database.reading() as connection:
            below = None
            if after is not None:
                last = sa.select(sa.func.abs(images.c.seq)).where(images.c.image_id == after[1])
                below = connection.execute(last).scalar()
            return [row for row, _ in _backlog(connection, pins, start, stop, limit, below)]

    def hand_out(self, run_id: str, pins: Mapping[str, str], limit: int) -> list[Backlog]:
        """Return the next images of `backlog`, latest first: each to one of a run's shards only."""
        if not pins:
            return []
        with self._database.writing() as connection:
            below = place_in(connection, run_id, handed_out.c.images_below)
            found = _backlog(connection, pins, "", None, limit, below)
            if found:
                move_place(connection, run_id, images_below=found[-1][1])
        return [row for row, _ in found]

    def count_work(self, pins: Mapping[str, str]) -> Work:
        """Return the number of files that wait, and per group of images that lack its bundle."""
        with self._database.reading() as connection:
            new_files = files_by_state(connection)["new"]
            there = totals_there(connection, {IMAGES, *pins.values()})
        backlog = {group: there[IMAGES] - there[digest] for group, digest in pins.items()}
        return Work(new_files, backlog)

    def sample_tagged(self, digest: str, limit: int) -> list[TaggedImage]:
        """Return up to `limit` readable images that a bundle has tagged, without those not shoes.

        These are the ones with the lowest ids: as good as a random sample, since ids are hashes,
        and the same with every call.
        """
        query = (
            sa.select(predictions.c.image_id, predictions.c.tags)
            .join(images, images.c.image_id == predictions.c.image_id)
            .where(predictions.c.bundle_digest == digest, readable(), ~is_judged(images.c.image_id))
            .order_by(predictions.c.image_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
            ids = [row.image_id for row in found]
            locators = locators_of(connection, ids, TAGGED)
        return [
            TaggedImage(row.image_id, locators[row.image_id][0], tuple(row.tags))
            for row in found
            if row.image_id in locators
        ]

    def checked(self, group: str, limit: int) -> list[TaggedImage]:
        """Return up to `limit` readable images of a group that people checked, the latest first.

        With the tags that people gave them, or confirmed; without those that are not shoes.
        """
        query = (
            sa.select(corrections.c.image_id, corrections.c.tags)
            .join(images, images.c.image_id == corrections.c.image_id)
            .where(corrections.c.group_name == group, IN_FORCE, ~images.c.replaced)
            .where(readable(), ~is_judged(images.c.image_id))
            .order_by(corrections.c.id.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
            locators = locators_of(connection, [row.image_id for row in found], TAGGED)
        return [
            TaggedImage(row.image_id, locators[row.image_id][0], tuple(row.tags))
            for row in found
            if row.image_id in locators
        ]

    def tags_known(
        self, digests: Collection[str], image_ids: Collection[str]
    ) -> dict[tuple[str, str], tuple[str, ...]]:
        """Return the tags predicted before, by digest and image id, for some of the images."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        query = sa.select(predictions.c.image_id, predictions.c.tags)
        with self._database.reading() as connection:
            for digest in digests:
                by_bundle = query.where(predictions.c.bundle_digest == digest)
                for some in chunked(image_ids, PAGE):
                    rows = connection.execute(by_bundle.where(predictions.c.image_id.in_(some)))
                    found |= {(digest, image_id): tuple(tags) for image_id, tags in rows}
        return found

    def record(
        self,
        *,
        tagged: Sequence[Tagged] = (),
        rejected: Sequence[RejectedFile] = (),
        predictions: Sequence[Prediction] = (),
        gone: Sequence[str] = (),
        deferred: Sequence[str] = (),
        run_id: str,
        now: datetime,
    ) -> Recorded:
        """Write the results of a batch in one transaction; a second call changes nothing.

        `tagged` and `rejected` settle the files that still wait as of the same token: a file that
        changed meanwhile is left for the next run, and the first result for a file stands. A
        prediction stays as first written and is kept only for an image that some file has held.
        `gone` are the file_ids of files that no longer exist: they are no work until they return;
        `deferred` those of files that were read and are left to the next run. Scores are rounded to
        6 decimals. What this changes is added to the run's counts and returned. Raises StoreError
        for a bundle that `add_version` did not make known.
        """
        with self._database.writing() as connection:
            settled = settle(connection, tagged, rejected)
            written = write_predictions(connection, predictions, run_id, now)
            write_vectors(connection, predictions)
            lost = mark_gone(connection, gone)
            bump(connection, settled.days | set(written.values()) | lost)
            tally = Tally(
                tagged=settled.tagged,
                rejected=len(settled.rejected),
                retagged=len(written.keys() - {file.image_id for file in tagged}),
                done=[*(file.file_id for file in settled.tagged), *settled.rejected, *gone],
                deferred=deferred,
            )
            return add_to_run(connection, run_id, now, tally)


def _backlog(
    connection: Connection,
    pins: Mapping[str, str],
    start: str,
    stop: str | None,
    limit: int,
    below: int | None,
) -> list[tuple[Backlog, int]]:
    """Return images that lack a pinned bundle, latest first, each with its seq.

    Only blocks that lack something are searched, one by one.
    """
    query = sa.select(images.c.image_id, images.c.first_seen, images.c.seq)
    query = query.where(sa.or_(*(lacks(digest) for digest in pins.values())))
    # An expression: SQLite would look up the range of ids by the key, and not the block.
    image_id = images.c.image_id.concat("")
    if start:
        query = query.where(image_id >= start)
    if stop is not None:
        query = query.where(image_id < stop)
    query = query.order_by(images.c.seq.desc())
    found: list[sa.Row[Any]] = []
    for block in lacking(connection, pins.values(), below):
        page = query.where(within(block, below)).limit(limit - len(found))
        found.extend(connection.execute(page))
        if len(found) == limit:
            break
    image_ids = [row.image_id for row in found]
    locators = locators_of(connection, image_ids, TAGGED)
    done = {group: predicted(connection, digest, image_ids) for group, digest in pins.items()}
    return [
        (
            Backlog(
                row.image_id,
                row.first_seen,
                locators.get(row.image_id, ()),
                tuple(group for group in pins if row.image_id not in done[group]),
            ),
            row.seq,
        )
        for row in found
    ]


def write_predictions(
    connection: Connection, batch: Sequence[Prediction], run_id: str, now: datetime
) -> dict[str, str]:
    """Insert the predictions that are missing, of known images only.

    Returns image id -> day of the images that got one.
    """
    by_digest: dict[str, dict[str, Prediction]] = {}
    for prediction in batch:
        by_digest.setdefault(prediction.digest, {}).setdefault(prediction.image_id, prediction)
    known = {v.digest: v for v in all_versions(connection, versions.c.digest.in_(by_digest))}
    known_images: dict[str, sa.Row[Any]] = {}
    for some in chunked({prediction.image_id: None for prediction in batch}, PAGE):
        query = sa.select(images.c.image_id, images.c.day, images.c.seq, images.c.replaced)
        rows_of_some = connection.execute(query.where(images.c.image_id.in_(some)))
        known_images |= {row.image_id: row for row in rows_of_some}
    rows: list[dict[str, Any]] = []
    for digest, by_image in sorted(by_digest.items()):
        if digest not in known:
            raise StoreError(f"bundle {digest} is unknown to the store: add_version comes first")
        there = predicted(connection, digest, list(by_image))
        for image_id in sorted(by_image.keys() & known_images.keys() - there):
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
                    "unsure": prediction.unsure,
                }
            )
    if rows:
        connection.execute(sa.insert(predictions), rows)
    written = [(row["bundle_digest"], known_images[row["image_id"]]) for row in rows]
    shown = [(digest, image) for digest, image in written if not image.replaced]
    add(connection, Counter((digest, block_of(image.seq)) for digest, image in shown))
    add_days(connection, Counter((digest, image.day) for digest, image in shown))
    return {image.image_id: image.day for _, image in written}


def check_scores(prediction: Prediction, version: BundleVersion) -> None:
    """Raise StoreError for a prediction that cannot come from the bundle it names."""
    if len(prediction.scores) != len(version.tags) or not all(
        map(math.isfinite, prediction.scores)
    ):
        raise StoreError(
            f"prediction of picture {prediction.image_id} by bundle {prediction.digest}: "
            f"{prediction.scores} are not {len(version.tags)} finite scores"
        )


def lacks(digest: str) -> sa.ColumnElement[bool]:
    """Return the condition that an image has no prediction of this bundle."""
    return ~sa.exists().where(
        predictions.c.bundle_digest == digest, predictions.c.image_id == images.c.image_id
    )


def readable() -> sa.ColumnElement[bool]:
    """Return the condition that some file holds an image and was there when last looked for."""
    return sa.exists().where(files.c.image_id == images.c.image_id, TAGGED)


def locators_of(
    connection: Connection, image_ids: Sequence[str], which: sa.ColumnElement[bool]
) -> dict[str, tuple[str, ...]]:
    """Return the sorted locators of each image's files that meet a condition."""
    found: dict[str, tuple[str, ...]] = {}
    for some in chunked(image_ids, PAGE):
        query = sa.select(files.c.image_id, files.c.locator).where(
            files.c.image_id.in_(some), which
        )
        for image_id, locator in sorted(connection.execute(query)):
            found[image_id] = (*found.get(image_id, ()), locator)
    return found
