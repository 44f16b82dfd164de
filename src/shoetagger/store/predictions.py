"""Predictions, written once and never changed, and the work left to do."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .backlog import backlog, backlog_ranges, backlog_within, lacks, locators_of
from .blocks import (
    IMAGES,
    add,
    add_days,
    block_of,
    files_by_state,
    predicted,
    totals_there,
)
from .bulk import Row, among, insert_rows, moment
from .database import Database
from .days import bump
from .file_rows import mark_gone
from .image_rows import Kept, kept_images
from .ledger import all_versions
from .rows import (
    Backlog,
    BacklogRange,
    Prediction,
    Recorded,
    RejectedFile,
    StoreError,
    Tagged,
    TaggedImage,
    Work,
)
from .settling import settle
from .sql import TAGGED, move_place, of_bundle, place_in
from .tables import corrections, files, handed_out, images, predictions, versions
from .tally import Tally, add_to_run
from .vectors import write_vectors
from .verdicts import IN_FORCE, is_judged

SCORE_DIGITS = 6
_COLUMNS = ("bundle_key", "image_key", "scores", "tags", "run_id", "created_at", "unsure")

# digest -> image id -> scores and tags as JSON, and whether it is unsure
Ready = dict[str, dict[str, tuple[str, str, bool]]]


class Predictions:
    """Predictions, and the work left: files to tag and images that lack a prediction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tags: dict[str, tuple[str, ...]] = {}  # of bundles, by digest: they never change

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
            return [row for row, _ in backlog(connection, pins, start, stop, limit, below)]

    def hand_out(self, run_id: str, pins: Mapping[str, str], limit: int) -> list[Backlog]:
        """Return the next images of `backlog`, latest first: each to one of a run's shards only."""
        if not pins:
            return []
        with self._database.writing() as connection:
            below = place_in(connection, run_id, handed_out.c.images_below)
            found = backlog(connection, pins, "", None, limit, below)
            if found:
                move_place(connection, run_id, images_below=found[-1][1])
        return [row for row, _ in found]

    def backlog_ranges(
        self, pins: Mapping[str, str], least: int, since: datetime | None = None
    ) -> list[BacklogRange]:
        """Divide the backlog into ranges, the newest first: at least so many where it is large.

        `since` leaves out images that arrived earlier.
        """
        with self._database.reading() as connection:
            return backlog_ranges(connection, pins, least, since)

    def backlog_within(
        self, pins: Mapping[str, str], part: BacklogRange, limit: int, since: datetime | None = None
    ) -> tuple[list[Backlog], int | None]:
        """Return up to `limit` images of a range, latest first, and below what there are more."""
        with self._database.reading() as connection:
            return backlog_within(connection, pins, part, since, limit)

    def count_work(self, pins: Mapping[str, str]) -> Work:
        """Return the number of files that wait, and per group of images that lack its bundle."""
        with self._database.reading() as connection:
            new_files = files_by_state(connection)["new"]
            there = totals_there(connection, {IMAGES, *pins.values()})
        backlog = {group: there[IMAGES] - there[digest] for group, digest in pins.items()}
        return Work(new_files, backlog)

    def count_images(self) -> int:
        """Return the number of images that a run tags again where they lack its bundles."""
        with self._database.reading() as connection:
            return totals_there(connection, {IMAGES})[IMAGES]

    def sample_tagged(self, digest: str, limit: int) -> list[TaggedImage]:
        """Return up to `limit` readable images that a bundle has tagged, without those not shoes.

        These are the ones with the lowest ids: as good as a random sample, since ids are hashes,
        and the same with every call. At most about sqrt(limit * images) images are looked at.
        """
        query = sa.select(images.c.image_key, images.c.image_id)
        query = query.where(readable(), ~is_judged(images.c.image_id))
        with self._database.reading() as connection:
            there = totals_there(connection, {IMAGES, digest})
            if there[digest] ** 2 < limit * there[IMAGES]:  # all of the bundle's, to be sorted
                mine = predictions.c.image_key == images.c.image_key
                query = query.join(predictions, mine).where(of_bundle(digest))
                # An expression: SQLite would rather go through the ids than sort.
                query = query.order_by(images.c.image_id.concat(""))
            else:  # from the lowest id on, until there are enough
                query = query.where(~lacks(digest)).order_by(images.c.image_id)
            found = connection.execute(query.limit(limit)).all()
            locators = locators_of(connection, [row.image_id for row in found], TAGGED)
            tags = _tags(connection, digest, [row.image_key for row in found])
        return [
            TaggedImage(image_id, locators[image_id][0], tags[key])
            for key, image_id in found
            if image_id in locators
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
        with self._database.reading() as connection:
            # Most of what arrives was never seen: that costs one look, and not one per bundle.
            known = kept_images(connection, image_ids)
            ids = {row.key: image_id for image_id, row in known.items()}
            for digest in digests if ids else ():
                tags = _tags(connection, digest, ids)
                found |= {(digest, ids[key]): of_image for key, of_image in tags.items()}
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
        ready = self._prepared(predictions)  # while another one may be writing
        with self._database.writing() as connection:
            settled = settle(connection, tagged, rejected)
            others = {p.image_id for p in predictions if p.image_id not in settled.images}
            known = settled.images | kept_images(connection, others)
            written = write_predictions(connection, ready, known, settled.images, run_id, now)
            write_vectors(connection, predictions, known, settled.images)
            lost = mark_gone(connection, gone)
            bump(connection, settled.days | {known[i].day for i in written} | lost)
            tally = Tally(
                tagged=settled.tagged,
                rejected=len(settled.rejected),
                new_images=settled.images,
                retagged=len(written - {file.image_id for file in tagged}),
                done=[*(file.file_id for file in settled.tagged), *settled.rejected, *gone],
                deferred=deferred,
            )
            return add_to_run(connection, run_id, now, tally)

    def _prepared(self, batch: Sequence[Prediction]) -> Ready:
        """Return what to write of predictions; raises StoreError for those that cannot be."""
        if lacking := {p.digest for p in batch} - self._tags.keys():
            with self._database.reading() as connection:
                found = all_versions(connection, versions.c.digest.in_(lacking))
            self._tags |= {version.digest: version.tags for version in found}
        by_digest: dict[str, dict[str, Prediction]] = {}
        for p in batch:
            by_digest.setdefault(p.digest, {}).setdefault(p.image_id, p)
        ready: Ready = {}
        for digest, by_image in by_digest.items():
            if digest not in self._tags:
                raise StoreError(
                    f"bundle {digest} is unknown to the store: add_version comes first"
                )
            some = list(by_image.values())
            scores = _rounded(some, len(self._tags[digest]))
            ready[digest] = {
                p.image_id: (one, _as_json(p.tags), p.unsure)
                for p, one in zip(some, scores, strict=True)
            }
        return ready


@lru_cache(4096)
def _as_json(tags: tuple[str, ...]) -> str:
    return json.dumps(tags, separators=(",", ":"), ensure_ascii=False)


def write_predictions(
    connection: Connection,
    ready: Ready,
    known: Mapping[str, Kept],
    new: Collection[str],
    run_id: str,
    now: datetime,
) -> set[str]:
    """Insert the predictions that are missing, of `known` images only; return the images.

    `new` are the images that this transaction has inserted, and so have none.
    """
    rows: list[Row] = []
    shown: list[tuple[str, Kept]] = []
    written: set[str] = set()
    created = moment(connection, now)
    bundle_keys = _bundle_keys(connection, ready)
    for digest, by_image in sorted(ready.items()):
        mine = sorted((known[i].key, i) for i in by_image if i in known)
        there = predicted(connection, digest, [key for key, i in mine if i not in new])
        for key, image_id in mine:
            if key in there:
                continue
            scores, tags, unsure = by_image[image_id]
            rows.append((bundle_keys[digest], key, scores, tags, run_id, created, unsure))
            written.add(image_id)
            if not known[image_id].replaced:
                shown.append((digest, known[image_id]))
    insert_rows(connection, predictions, _COLUMNS, rows)
    add(connection, Counter((digest, block_of(image.seq)) for digest, image in shown))
    add_days(connection, Counter((digest, image.day) for digest, image in shown))
    return written


def _tags(connection: Connection, digest: str, keys: Collection[int]) -> dict[int, tuple[str, ...]]:
    """Return the tags that a bundle has predicted, by key, for some of the images."""
    named = among(connection, predictions.c.image_key, keys)
    query = sa.select(predictions.c.image_key, predictions.c.tags).where(of_bundle(digest), named)
    return {key: tuple(tags) for key, tags in connection.execute(query)}


def _bundle_keys(connection: Connection, digests: Collection[str]) -> dict[str, int]:
    query = sa.select(versions.c.digest, versions.c.bundle_key)
    return dict(iter(connection.execute(query.where(versions.c.digest.in_(digests)))))


def _rounded(batch: Sequence[Prediction], tags: int) -> list[str]:
    """Return the scores of predictions by one bundle, which has so many tags, as JSON.

    Raises StoreError for a prediction that cannot come from it.
    """
    for p in batch:
        if len(p.scores) != tags or not all(map(math.isfinite, p.scores)):
            raise StoreError(
                f"prediction of picture {p.image_id} by bundle {p.digest}: "
                f"{p.scores} are not {tags} finite scores"
            )
    # At once: number by number takes as long as all the rest that is done in Python.
    rounded = np.round(np.array([p.scores for p in batch], np.float64), SCORE_DIGITS).tolist()
    text = json.dumps(rounded, separators=(",", ":"))
    return [f"[{row}]" for row in text[2:-2].split("],[")]


def readable() -> sa.ColumnElement[bool]:
    """Return the condition that some file holds an image and was there when last looked for."""
    return sa.exists().where(files.c.image_id == images.c.image_id, TAGGED)
