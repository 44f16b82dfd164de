"""The store: files, pictures, what the models said of them, and which models count.

This package is the only one that speaks SQL. Every method is one or a few short transactions and
can be called again, from any number of processes, threads excepted: a thread has its own Store.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from . import queries
from .database import Database
from .rows import (
    Backlog,
    BundleVersion,
    Counts,
    CurrentRow,
    FileRow,
    GroupCounts,
    GroupTags,
    Move,
    MoveConflict,
    MoveKind,
    Noted,
    Prediction,
    RejectedFile,
    RejectedRow,
    RunRow,
    StoreError,
    Tagged,
    TaggedPicture,
    Work,
    chain_of,
    file_id_of,
)
from .tables import (
    corrections,
    days,
    files,
    images,
    ledger,
    predictions,
    runs,
    versions,
)

if TYPE_CHECKING:
    from shoetagger.inbox import Arrival

__all__ = [
    "Backlog",
    "BundleVersion",
    "Counts",
    "CurrentRow",
    "FileRow",
    "GroupCounts",
    "GroupTags",
    "Move",
    "MoveConflict",
    "Noted",
    "Prediction",
    "RejectedFile",
    "RejectedRow",
    "RunRow",
    "Store",
    "StoreError",
    "Tagged",
    "TaggedPicture",
    "Work",
    "chain_of",
    "file_id_of",
]


class Store:
    """The store behind a SQLAlchemy URL: a SQLite file or a PostgreSQL database.

    Except for `migrate`, every method raises StoreError, which says what to run, where the tables
    are missing or of another version.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def migrate(self) -> None:
        """Make the tables, or bring those of an older version up to date; at any time, by anyone.

        Raises StoreError where the store is of a newer version than this code.
        """
        self._database.migrate()

    def is_used(self) -> bool:
        """Return whether there are any files or versions in it; a store without tables is not."""
        if not self._database.is_migrated():
            return False
        with self._database.reading() as connection:
            counted = (queries.count(connection, table) for table in (files, versions))
            return any(counted)

    def close(self) -> None:
        """Let go of the connections; a later call opens new ones."""
        self._database.close()

    # --- finding work

    def note_arrivals(self, arrivals: Sequence[Arrival], now: datetime) -> Noted:
        """Note one batch of what a scan saw; return how many were unknown, changed or back.

        An unknown or changed file becomes `new`, or `rejected` where it was refused; one that was
        gone and is back as it was is `tagged` again. What is known and unchanged costs no write.
        """
        seen = {file_id_of(arrival.locator): arrival for arrival in arrivals}
        with self._database.reading() as connection:
            suspects = queries.unsettled(connection, seen)
        if not suspects:
            return Noted(0, 0)
        with self._database.writing() as connection:
            unsettled = queries.unsettled(connection, {key: seen[key] for key in suspects})
            queries.note(connection, seen, unsettled, now)
        refused = sum(seen[file_id].refused is not None for file_id in unsettled)
        return Noted(len(unsettled), refused)

    def new_files(
        self, lo: str, hi: str | None, limit: int, after: str | None = None
    ) -> list[FileRow]:
        """Return up to `limit` files to tag with a file_id in [lo, hi) and above `after`.

        In the order of file_id; `hi` None is the end of all, `after` the last file_id of the page
        before.
        """
        query = sa.select(files).where(queries.NEW, files.c.file_id >= lo)
        if hi is not None:
            query = query.where(files.c.file_id < hi)
        if after is not None:
            query = query.where(files.c.file_id > after)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(files.c.file_id).limit(limit))
            return [queries.file_row(row) for row in rows]

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
            covered = queries.covered(connection, pins.values())
            # Always bounded on both sides: so SQLite walks the index instead of sorting.
            below = queries.last_seq(connection) + 1
            if after is not None:
                last = sa.select(images.c.seq).where(images.c.image_id == after[1])
                below = connection.execute(last).scalar() or below
            query = (
                sa.select(images.c.image_id, images.c.first_seen)
                .where(images.c.seq > min(covered.values()), images.c.seq < below)
                .where(images.c.image_id >= lo)
                .where(
                    sa.or_(*(queries.lacks(digest) for digest in pins.values())), queries.readable()
                )
            )
            if hi is not None:
                query = query.where(images.c.image_id < hi)
            found = connection.execute(query.order_by(images.c.seq.desc()).limit(limit)).all()
            image_ids = [row.image_id for row in found]
            locators = queries.locators_of(connection, image_ids, queries.TAGGED)
            done = {
                g: queries.predicted(connection, digest, image_ids) for g, digest in pins.items()
            }
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
            new = connection.execute(
                sa.select(sa.func.count()).select_from(files).where(queries.NEW)
            )
            new_files = int(new.scalar_one())
            top = queries.last_seq(connection)
            covered = queries.covered(connection, pins.values())
            for group, digest in pins.items():
                query = sa.select(sa.func.count(), sa.func.min(images.c.seq)).where(
                    images.c.seq > covered[digest],
                    images.c.seq <= top,
                    queries.lacks(digest),
                    queries.readable(),
                )
                count, lowest = connection.execute(query).one()
                backlog[group] = int(count)
                up_to = lowest - 1 if count else top
                if up_to > covered[digest]:
                    complete[digest] = up_to
        if complete:
            with self._database.writing() as connection:
                queries.remember_covered(connection, complete)
        return Work(new_files, backlog)

    def sample_tagged(self, digest: str, limit: int) -> list[TaggedPicture]:
        """Return up to `limit` pictures that a bundle has tagged and that can be read.

        Those with the lowest image ids: as good as drawn at random, and the same ones every time.
        """
        query = (
            sa.select(predictions.c.image_id, predictions.c.tags)
            .join(images, images.c.image_id == predictions.c.image_id)
            .where(predictions.c.bundle_digest == digest, queries.readable())
            .order_by(predictions.c.image_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            found = connection.execute(query).all()
            ids = [row.image_id for row in found]
            locators = queries.locators_of(connection, ids, queries.TAGGED)
        return [
            TaggedPicture(row.image_id, locators[row.image_id][0], tuple(row.tags))
            for row in found
            if row.image_id in locators
        ]

    # --- writing

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
            touched = queries.settle(connection, tagged, rejected)
            touched |= queries.write_predictions(connection, predictions, run_id, now)
            queries.lose(connection, gone)
            queries.bump(connection, touched)

    def retry_rejected(self, locators: Sequence[str] | None = None) -> int:
        """Make rejected files (all, or those named) wait for tagging again; return how many.

        Pictures that were forgotten only where they are named: that takes the forgetting back.
        """
        which: list[Any] = [queries.not_forgotten()]
        if locators is not None:
            ids = [file_id_of(locator) for locator in locators]
            which = [files.c.file_id.in_(some) for some in queries.pages(ids)]
        retried = 0
        with self._database.writing() as connection:
            touched: set[str] = set()
            for condition in which:
                condition = queries.REJECTED & condition
                times = sa.select(files.c.first_seen).where(condition).distinct()
                touched |= {queries.day_of(seen) for seen in connection.execute(times).scalars()}
                if locators is not None:
                    queries.remember(connection, condition)
                update = sa.update(files).where(condition).values(state="new", reason=None)
                retried += connection.execute(update).rowcount
            queries.bump(connection, touched)
        return retried

    def forgotten(self, image_ids: Sequence[str]) -> set[str]:
        """Return those of the pictures that a person wanted forgotten."""
        with self._database.reading() as connection:
            return queries.forgotten_of(connection, image_ids)

    def forget(self, image_id: str, now: datetime) -> None:
        """Erase what is derived from a picture; its bytes are refused until retried by name.

        Predictions, corrections and the picture's row go; files that hold it are rejected; its
        days count as changed. Raises StoreError for a picture nobody knows.
        """
        with self._database.writing() as connection:
            if not queries.forget(connection, image_id, now):
                raise StoreError(
                    f"no picture {image_id} in the store: `shoetagger export` lists the image ids"
                )

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
        """Let a person's tags overrule the models' for one picture and group; None withdraws them.

        Earlier corrections are kept as history. Raises StoreError for an unknown picture.
        """
        with self._database.writing() as connection:
            known = sa.select(images.c.day).where(images.c.image_id == image_id)
            day = connection.execute(known).scalar()
            if day is None:
                raise StoreError(f"no picture {image_id} in the store: nothing to correct")
            connection.execute(
                sa.update(corrections)
                .where(corrections.c.image_id == image_id, corrections.c.group_name == group)
                .where(corrections.c.withdrawn_at.is_(None))
                .values(withdrawn_at=now)
            )
            if tags is not None:
                row = {"image_id": image_id, "group_name": group, "tags": list(tags)}
                said = {"by": by, "why": why, "created_at": now}
                connection.execute(sa.insert(corrections), row | said)
            queries.bump(connection, {day})

    # --- versions and ledger

    def add_version(
        self,
        *,
        digest: str,
        group: str,
        tags: Sequence[str],
        registry_name: str | None,
        version: str | None,
        now: datetime,
    ) -> None:
        """Make a bundle known; again, only its place in the registry is updated.

        Raises StoreError where the digest is known with another group or other tags.
        """
        with self._database.writing() as connection:
            known = queries.all_versions(connection, versions.c.digest == digest)
            if not known:
                row = {"digest": digest, "group_name": group, "tags": list(tags)}
                place = {"registry_name": registry_name, "version": version, "registered_at": now}
                connection.execute(sa.insert(versions), row | place)
                return
            if (known[0].group, known[0].tags) != (group, tuple(tags)):
                raise StoreError(
                    f"bundle {digest} is known as one of group {known[0].group!r} with the tags "
                    f"{', '.join(known[0].tags)}: a digest names one bundle for good"
                )
            connection.execute(
                sa.update(versions)
                .where(versions.c.digest == digest)
                .values(registry_name=registry_name, version=version)
            )

    def versions(self, group: str | None = None) -> list[BundleVersion]:
        """Return the known bundles, of one group or all, in the order they were registered."""
        where = sa.true() if group is None else versions.c.group_name == group
        with self._database.reading() as connection:
            return queries.all_versions(connection, where)

    def version_of(self, digest: str) -> BundleVersion | None:
        """Return what is known of a bundle; None if nothing is."""
        with self._database.reading() as connection:
            return next(iter(queries.all_versions(connection, versions.c.digest == digest)), None)

    def live(self) -> dict[str, str]:
        """Return group -> digest of the bundle that counts now; no key for a group with none."""
        with self._database.reading() as connection:
            return {g: chain[0] for g, chain in queries.chains(connection).items() if chain}

    def chain(self, group: str) -> list[str]:
        """Return the group's live bundle, then the earlier ones not rolled back, latest first."""
        with self._database.reading() as connection:
            return queries.chains(connection).get(group, [])

    def begin_move(
        self,
        group: str,
        to_digest: str | None,
        *,
        kind: MoveKind,
        by: str,
        why: str,
        data_revision: str | None = None,
        mlflow_run: str | None = None,
        expect_from: str | EllipsisType | None = ...,
        now: datetime | None = None,
    ) -> int:
        """Write a pending move of a group's live pointer and return its id; nothing moves yet.

        `to_digest` None (kind `remove`) makes the group live nowhere. `expect_from` is the digest
        the caller takes for live (None: none is); left out, it is not checked. Raises MoveConflict
        where another is live, where `to_digest` already is, or where a move is pending; StoreError
        for an unknown bundle or one of another group.
        """
        if (to_digest is None) != (kind == "remove"):
            raise StoreError(f"a move of kind {kind!r} to {to_digest}: only a removal goes nowhere")
        with self._database.writing() as connection:
            if to_digest is not None:
                queries.check_belongs(connection, to_digest, group)
            under_way = queries.moves(
                connection, ledger.c.state == "pending", ledger.c.group_name == group
            )
            if under_way:
                other = under_way[0]
                raise MoveConflict(
                    f"group {group}: move {other.id} ({other.kind} to {other.to_digest}, begun by "
                    f"{other.by} at {other.created_at:%Y-%m-%d %H:%M} UTC) is pending: let it be "
                    "finished or cancelled first"
                )
            live = next(iter(queries.chains(connection).get(group, [])), None)
            if expect_from is not ... and live != expect_from:
                raise MoveConflict(
                    f"group {group}: live is {live}, not {expect_from}: it was moved meanwhile, "
                    "so decide anew"
                )
            if live == to_digest:
                raise MoveConflict(f"group {group}: {to_digest or 'none'} is live already")
            row = {"group_name": group, "from_digest": live, "to_digest": to_digest, "kind": kind}
            row |= {"state": "pending", "by": by, "why": why, "data_revision": data_revision}
            row |= {"mlflow_run": mlflow_run}
            begun = {"created_at": now or datetime.now(UTC)}
            inserted = connection.execute(sa.insert(ledger).returning(ledger.c.id), row | begun)
            return int(inserted.scalar_one())

    def finish_move(self, move_id: int, now: datetime | None = None) -> None:
        """Make a pending move count, from now on; one that is done stays as it is."""
        with self._database.writing() as connection:
            if queries.close_move(connection, move_id, "done", now):
                connection.execute(sa.update(days).values(revision=days.c.revision + 1))

    def cancel_move(self, move_id: int, now: datetime | None = None) -> None:
        """Give up a pending move; it stays in the history as cancelled."""
        with self._database.writing() as connection:
            queries.close_move(connection, move_id, "cancelled", now)

    def refuse_move(
        self,
        group: str,
        to_digest: str,
        *,
        by: str,
        why: str,
        data_revision: str | None = None,
        mlflow_run: str | None = None,
        now: datetime | None = None,
    ) -> None:
        """Write down a promotion that a person refused: a row that was cancelled from the start."""
        moment = now or datetime.now(UTC)
        with self._database.writing() as connection:
            queries.check_belongs(connection, to_digest, group)
            live = next(iter(queries.chains(connection).get(group, [])), None)
            row = {"group_name": group, "from_digest": live, "to_digest": to_digest}
            row |= {"kind": "promote", "state": "cancelled", "by": by, "why": why}
            row |= {"data_revision": data_revision, "mlflow_run": mlflow_run}
            times = {"created_at": moment, "done_at": moment}
            connection.execute(sa.insert(ledger), row | times)

    def pending_moves(self) -> list[Move]:
        """Return the moves begun and neither done nor cancelled, earliest first."""
        with self._database.reading() as connection:
            return queries.moves(connection, ledger.c.state == "pending")

    def history(self, group: str | None = None) -> list[Move]:
        """Return every move of one group or all, cancelled ones too, earliest first."""
        with self._database.reading() as connection:
            return queries.moves(
                connection, sa.true() if group is None else ledger.c.group_name == group
            )

    # --- reading

    def current(
        self,
        groups: Sequence[str],
        *,
        day: str | None = None,
        image_ids: Sequence[str] | None = None,
    ) -> Iterator[CurrentRow]:
        """Yield the current tags of every picture that a file holds, in the order of arrival.

        Only `groups` show, and none that was removed. `day` (YYYY-MM-DD) and `image_ids` narrow it
        down. Read in pages, with no transaction open in between: a row is true as of its page, what
        is live as of the first.
        """
        with self._database.reading() as connection:
            chains = queries.visible_chains(connection, groups)
            known = {version.digest: version for version in queries.all_versions(connection)}
        for page in self._image_pages(day, image_ids):
            ids = [row.image_id for row in page]
            with self._database.reading() as connection:
                locators = queries.locators_of(connection, ids, queries.NOT_REJECTED)
                by_group = {
                    group: queries.group_tags(connection, ids, group, chain, known)
                    for group, chain in chains.items()
                }
            for row in page:
                yield CurrentRow(
                    row.image_id,
                    row.day,
                    row.first_seen,
                    row.width,
                    row.height,
                    locators.get(row.image_id, ()),
                    {g: tags[row.image_id] for g, tags in by_group.items() if row.image_id in tags},
                )

    def prediction_at(self, image_id: str, when: datetime) -> dict[str, GroupTags]:
        """Return group -> the tags that were current for a picture at a time."""
        with self._database.reading() as connection:
            known = {version.digest: version for version in queries.all_versions(connection)}
            chains = queries.chains(connection, when)
            corrected = sa.select(corrections.c.group_name).where(
                corrections.c.image_id == image_id
            )
            for group in connection.execute(corrected.distinct()).scalars():
                chains.setdefault(group, [])
            found = {
                group: queries.group_tags(connection, [image_id], group, chain, known, when)
                for group, chain in chains.items()
            }
        return {group: tags[image_id] for group, tags in found.items() if tags}

    def rejected(
        self, *, day: str | None = None, limit: int | None = None
    ) -> Iterator[RejectedRow]:
        """Yield the rejected files, latest first; `day` (YYYY-MM-DD) is of their first_seen."""
        after, before = queries.day_bounds(day)
        query = sa.select(files).where(queries.REJECTED)
        query = query.order_by(files.c.first_seen.desc(), files.c.file_id.desc())
        left = math.inf if limit is None else limit
        while left > 0:
            between = queries.between(files.c.first_seen, files.c.file_id, after, before)
            page = query.where(*between).limit(int(min(left, queries.PAGE)))
            with self._database.reading() as connection:
                rows = [queries.file_row(row) for row in connection.execute(page)]
            for row in rows:
                yield RejectedRow(
                    row.file_id, row.locator, row.reason or "", row.first_seen, row.last_seen
                )
            if len(rows) < queries.PAGE:
                return
            before, left = (rows[-1].first_seen, rows[-1].file_id), left - len(rows)

    def counts(self, groups: Sequence[str]) -> Counts:
        """Return the numbers of files by state, of pictures, and of pictures by group."""
        with self._database.reading() as connection:
            total = queries.count(connection, files)
            new, rejected, gone = (
                queries.count(connection, files, s)
                for s in (queries.NEW, queries.REJECTED, queries.GONE)
            )
            shown = queries.count(connection, images) - queries.count(
                connection, images, images.c.replaced
            )
            chains = queries.visible_chains(connection, groups)
            by_group = {
                group: queries.group_counts(connection, group, chains.get(group), shown)
                for group in groups
            }
        return Counts(total, total - new - rejected - gone, rejected, new, gone, shown, by_group)

    def image_ids(self, beginning: str, limit: int) -> list[str]:
        """Return up to `limit` ids of pictures that begin so, in order."""
        query = sa.select(images.c.image_id).where(
            images.c.image_id >= beginning, images.c.image_id < beginning + "g"
        )
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(images.c.image_id).limit(limit))
            return list(found.scalars())

    def known(self, locator: str) -> FileRow | None:
        """Return what is known of a file; None if it was never noted."""
        with self._database.reading() as connection:
            row = connection.execute(
                sa.select(files).where(files.c.file_id == file_id_of(locator))
            ).first()
        return None if row is None else queries.file_row(row)

    def changed_days(self) -> list[tuple[str, int]]:
        """Return (day, revision) of the days that changed since they were last published."""
        query = sa.select(days.c.day, days.c.revision).where(days.c.revision > days.c.published)
        with self._database.reading() as connection:
            return [(row.day, row.revision) for row in connection.execute(query.order_by("day"))]

    def mark_published(self, day: str, revision: int) -> None:
        """Remember that a day was published as of a revision; an earlier one changes nothing."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(days)
                .where(days.c.day == day, days.c.published < revision)
                .values(published=revision)
            )

    # --- runs

    def start_run(self, kind: str, pins: Mapping[str, str], now: datetime) -> str:
        """Write down a run of the tagging job with what it pinned, and return its id."""
        run_id = uuid.uuid4().hex
        row = {"run_id": run_id, "kind": kind, "pins": dict(pins), "started_at": now}
        with self._database.writing() as connection:
            connection.execute(sa.insert(runs), {"state": "running", "counts": {}, **row})
        return run_id

    def finish_run(
        self,
        run_id: str,
        state: str,
        counts: Mapping[str, object],
        now: datetime,
        *,
        rates: Mapping[str, tuple[int, int]] | None = None,
        alarms: Sequence[str] = (),
    ) -> None:
        """Write down how a run ended, what it did and what was odd; the last word counts."""
        values: dict[str, Any] = {"state": state, "counts": dict(counts), "ended_at": now}
        values |= {"rates": dict(rates) if rates else None, "alarms": list(alarms)}
        update = sa.update(runs).where(runs.c.run_id == run_id)
        with self._database.writing() as connection:
            done = connection.execute(update.values(values))
            if not done.rowcount:
                raise StoreError(f"no run {run_id} in the store: begin it with start_run")

    def last_runs(self, limit: int, kind: str | None = None) -> list[RunRow]:
        """Return the latest runs, of one kind or all, latest first."""
        query = sa.select(runs).order_by(runs.c.started_at.desc(), runs.c.run_id).limit(limit)
        if kind is not None:
            query = query.where(runs.c.kind == kind)
        with self._database.reading() as connection:
            return [queries.run_row(row) for row in connection.execute(query)]

    def past_rates(self, limit: int, before: str) -> list[Mapping[str, tuple[int, int]]]:
        """Return the rates of the latest runs that tagged something new, up to the run `before`.

        Latest first; the run itself is left out.
        """
        started = sa.select(runs.c.started_at).where(runs.c.run_id == before).scalar_subquery()
        query = (
            sa.select(runs)
            .where(runs.c.rates.is_not(None), runs.c.run_id != before)
            .where(runs.c.started_at <= started)
            .order_by(runs.c.started_at.desc(), runs.c.run_id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [queries.run_row(row).rates or {} for row in connection.execute(query)]

    def _image_pages(
        self, day: str | None, image_ids: Sequence[str] | None
    ) -> Iterator[Sequence[sa.Row[Any]]]:
        after, before = queries.day_bounds(day)
        query = sa.select(images).where(~images.c.replaced)
        query = query.order_by(images.c.first_seen, images.c.image_id)
        key = images.c.first_seen, images.c.image_id
        if image_ids is not None:
            query = query.where(*queries.between(*key, after, before))
            for some in queries.pages(image_ids):
                with self._database.reading() as connection:
                    yield connection.execute(query.where(images.c.image_id.in_(some))).all()
            return
        while True:
            page = query.where(*queries.between(*key, after, before)).limit(queries.PAGE)
            with self._database.reading() as connection:
                rows = connection.execute(page).all()
            if rows:
                yield rows
            if len(rows) < queries.PAGE:
                return
            after = rows[-1].first_seen, rows[-1].image_id
