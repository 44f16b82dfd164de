"""Predictions and runs that nothing needs any more are deleted, a few rows per transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import islice

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .blocks import IMAGES, add, add_days, numbers, within
from .database import Database
from .ledger import all_versions, chains, moves
from .runs import going_on
from .sql import PAGE, count, of_bundle
from .tables import deferred_files, handed_out, images, ledger, predictions, tagging_runs

_BLOCKS_AT_ONCE = 5  # per transaction, so that no night waits long for its turn


class Cleaning:
    """Deletes what no night, no reader and no rollback that is kept needs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def predictions(
        self, groups: Collection[str], rollbacks: int, *, dry_run: bool = False
    ) -> Counter[str]:
        """Delete predictions that are not needed; return how many there were, by bundle digest.

        Needed are those of each group's live bundle, of the last `rollbacks` ones before it, of
        bundles that a running night pinned or a pending move names, and whatever is current for
        some image, now or after a rollback to one of those. A group that is not in `groups` needs
        none, except for a running night. Every transaction looks again at what is needed.
        """
        found: Counter[str] = Counter()
        if dry_run:
            with self._database.reading() as connection:
                for digest, block in _obsolete(connection, groups, rollbacks):
                    found[digest] += _count(connection, digest, block)
            return found
        while True:
            with self._database.writing() as connection:
                some = list(islice(_obsolete(connection, groups, rollbacks), _BLOCKS_AT_ONCE))
                for digest, block in some:
                    found[digest] += _delete(connection, digest, block)
            if not some:
                return found

    def runs(self, before: datetime, keep: int, *, dry_run: bool = False) -> int:
        """Delete tagging runs that began earlier, except for the latest `keep` and running ones.

        Returns their number.
        """
        latest = sa.select(tagging_runs.c.run_id).order_by(tagging_runs.c.started_at.desc())
        old = [
            tagging_runs.c.started_at < before,
            ~going_on(),
            tagging_runs.c.run_id.not_in(latest.limit(keep).scalar_subquery()),
        ]
        with self._database.reading() as connection:
            ids = connection.execute(sa.select(tagging_runs.c.run_id).where(*old)).scalars().all()
        if not dry_run:
            for some in chunked(ids, PAGE):
                with self._database.writing() as connection:
                    for table in (tagging_runs, handed_out, deferred_files):
                        connection.execute(sa.delete(table).where(table.c.run_id.in_(some)))
        return len(ids)

    def needed(self, groups: Collection[str], rollbacks: int) -> set[str]:
        """Return the digests of the bundles of which no prediction is deleted."""
        with self._database.reading() as connection:
            return _needed(connection, groups, rollbacks)


def _needed(connection: Connection, groups: Collection[str], rollbacks: int) -> set[str]:
    running = sa.select(tagging_runs.c.pins).where(going_on())
    needed = {d for pins in connection.execute(running).scalars() for d in pins.values()}
    for move in moves(connection, ledger.c.state == "pending"):
        needed |= {digest for digest in (move.from_digest, move.to_digest) if digest}
    for group, chain in chains(connection).items():
        if group in groups:
            done = moves(connection, ledger.c.state == "done", ledger.c.group_name == group)
            was_live = dict.fromkeys(move.to_digest for move in reversed(done) if move.to_digest)
            needed |= {*chain[: 1 + rollbacks], *islice(was_live, 1 + rollbacks)}
    return needed


def _obsolete(
    connection: Connection, groups: Collection[str], rollbacks: int
) -> Iterator[tuple[str, int | None]]:
    """Yield digest and block of predictions that are not needed.

    Block None stands for the predictions of images that are not shown, which no block counts; it
    comes last for a bundle. Of a bundle that may be gone back to by going back further than is
    kept, the predictions are not needed in blocks that a later bundle has predicted whole, among
    those that count after every rollback that is kept.
    """
    by_group = chains(connection)
    needed = _needed(connection, groups, rollbacks)
    shown = numbers(connection, [IMAGES])[IMAGES]
    for version in all_versions(connection):
        digest, chain = version.digest, by_group.get(version.group, [])
        is_removed = version.group in by_group and not chain  # and back with the next promotion
        if digest in needed or (version.group in groups and is_removed):
            continue
        has = numbers(connection, [digest])[digest]
        if version.group in groups and digest in chain:
            later = numbers(connection, chain[rollbacks : chain.index(digest)])
            for block in has:
                if any(number.get(block) == shown.get(block) for number in later.values()):
                    yield digest, block
            continue
        yield from ((digest, block) for block in has)
        left = sa.select(predictions.c.image_key).where(of_bundle(digest))
        if not has and connection.execute(left.limit(1)).first():
            yield digest, None


def _count(connection: Connection, digest: str, block: int | None) -> int:
    if block is None:
        return count(connection, predictions, of_bundle(digest))
    return numbers(connection, [digest])[digest][block]


def _delete(connection: Connection, digest: str, block: int | None) -> int:
    if block is None:
        some = sa.select(predictions.c.image_key).where(of_bundle(digest)).limit(PAGE)
    else:
        some = sa.select(images.c.image_key).where(within(block), ~images.c.replaced)
        days = (
            sa.select(images.c.day, sa.func.count())
            .join(predictions, predictions.c.image_key == images.c.image_key)
            .where(within(block), ~images.c.replaced, of_bundle(digest))
            .group_by(images.c.day)
        )
        per_day = {(digest, day): -number for day, number in connection.execute(days)}
        add_days(connection, per_day)
        add(connection, {(digest, block): sum(per_day.values())})
    chosen = connection.execute(some).scalars().all()
    return connection.execute(
        sa.delete(predictions).where(of_bundle(digest), predictions.c.image_key.in_(chosen))
    ).rowcount
