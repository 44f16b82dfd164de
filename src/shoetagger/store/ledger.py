"""Known bundle versions, and every move of a live pointer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .blocks import days_predicted
from .database import Database
from .days import bump
from .rows import WHOLE_IMAGE, BundleVersion, Move, MoveConflict, MoveKind, StoreError
from .sql import insert_into
from .tables import corrections, images, ledger, versions


class Ledger:
    """The known versions, and every move of a live pointer."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        """Make a bundle known; for a known one, only its place in the registry is updated.

        Raises StoreError where the digest is known with another group or other tags.
        """
        with self._database.writing() as connection:
            known = all_versions(connection, versions.c.digest == digest)
            if known and (known[0].group, known[0].tags) != (group, tuple(tags)):
                raise StoreError(
                    f"bundle {digest} is known as one of group {known[0].group!r} with the tags "
                    f"{', '.join(known[0].tags)}: a digest names one bundle for good"
                )
            place = {"registry_name": registry_name, "version": version}
            upsert = insert_into(connection, versions).on_conflict_do_update(
                index_elements=[versions.c.digest], set_=place
            )
            last_key = sa.func.coalesce(sa.func.max(versions.c.bundle_key), 0)
            row = {
                "digest": digest,
                "bundle_key": connection.execute(sa.select(last_key + 1)).scalar_one(),
                "group_name": group,
                "tags": list(tags),
                "registered_at": now,
            }
            connection.execute(upsert, row | place)

    def versions(self, group: str | None = None) -> list[BundleVersion]:
        """Return the known bundles, of one group or of all, in the order of registration."""
        where = sa.true() if group is None else versions.c.group_name == group
        with self._database.reading() as connection:
            return all_versions(connection, where)

    def version_of(self, digest: str) -> BundleVersion | None:
        """Return a known bundle; None for an unknown one."""
        with self._database.reading() as connection:
            return next(iter(all_versions(connection, versions.c.digest == digest)), None)

    def live(self) -> dict[str, str]:
        """Return the digest of each group's live bundle; a group without one has no key."""
        with self._database.reading() as connection:
            return {g: chain[0] for g, chain in chains(connection).items() if chain}

    def chain(self, group: str) -> list[str]:
        """Return a group's live digest, then the earlier ones not rolled back, latest first."""
        with self._database.reading() as connection:
            return chains(connection).get(group, [])

    def begin(
        self,
        group: str,
        to_digest: str | None,
        *,
        kind: MoveKind,
        by: str,
        why: str,
        expect_from: str | None,
        data_revision: str | None = None,
        mlflow_run: str | None = None,
        supersede: bool = False,
        now: datetime | None = None,
    ) -> int:
        """Record a pending move of a group's live pointer and return its id; nothing moves yet.

        `to_digest` None (kind `remove`) leaves the group without a live bundle. `expect_from` is
        the digest that the caller takes for live (None: no bundle is).
        `supersede` cancels a pending move of the group, in the same transaction.
        Raises MoveConflict where another bundle is live, where `to_digest` is live already, or
        where a move is pending; StoreError for an unknown bundle, one of another group, or a
        rollback to one that was never live.
        """
        if (to_digest is None) != (kind == "remove"):
            raise StoreError(f"a move of kind {kind!r} to {to_digest}: only a removal goes nowhere")
        with self._database.writing() as connection:
            if to_digest is not None:
                check_belongs(connection, to_digest, group)
            under_way = moves(connection, ledger.c.state == "pending", ledger.c.group_name == group)
            if under_way and supersede:
                close_move(connection, under_way[0].id, "cancelled", now)
            elif under_way:
                other = under_way[0]
                raise MoveConflict(
                    f"group {group}: move {other.id} ({other.kind} to {other.to_digest}, begun by "
                    f"{other.by} at {other.created_at:%Y-%m-%d %H:%M} UTC) is pending: let it be "
                    "finished or cancelled first"
                )
            live = next(iter(chains(connection).get(group, [])), None)
            if live != expect_from:
                raise MoveConflict(
                    f"group {group}: live is {live}, not {expect_from}: it was moved meanwhile, "
                    "so compare again"
                )
            if live == to_digest:
                raise MoveConflict(f"group {group}: {to_digest or 'none'} is live already")
            if kind == "rollback" and not moves(
                connection,
                ledger.c.group_name == group,
                ledger.c.state == "done",
                ledger.c.to_digest == to_digest,
            ):
                raise StoreError(f"group {group}: {to_digest} was never live: no rollback to it")
            row = {"group_name": group, "from_digest": live, "to_digest": to_digest, "kind": kind}
            row |= {"state": "pending", "by": by, "why": why, "data_revision": data_revision}
            row |= {"mlflow_run": mlflow_run}
            begun = {"created_at": now or datetime.now(UTC)}
            inserted = connection.execute(sa.insert(ledger).returning(ledger.c.id), row | begun)
            return int(inserted.scalar_one())

    def finish(self, move_id: int, now: datetime | None = None) -> None:
        """Make a pending move count from now on; a move that is done stays as it is.

        The days on which some image has other tags or another version from now on, or becomes
        stale, are marked as changed.
        """
        with self._database.writing() as connection:
            before = chains(connection)
            if close_move(connection, move_id, "done", now):
                (move,) = moves(connection, ledger.c.id == move_id)
                after = chains(connection)[move.group]
                bump(connection, _days_changed(connection, move.group, before, after))

    def request(self, move_id: int) -> bool:
        """Note, before it is sent, a request to move the alias; return False if it must not be.

        It must not where the move is not its group's latest any more, or was cancelled.
        """
        return self._count_request(move_id, 1)

    def answer(self, move_id: int) -> None:
        """Note that a request was answered; too late where the move is not the latest any more.

        The request may then have overtaken a later one, and stays noted as one that may arrive.
        """
        self._count_request(move_id, -1)

    def _count_request(self, move_id: int, more: int) -> bool:
        with self._database.writing() as connection:
            group = sa.select(ledger.c.group_name).where(ledger.c.id == move_id).scalar_subquery()
            latest = sa.select(sa.func.max(ledger.c.id)).where(
                ledger.c.group_name == group, ledger.c.state != "cancelled"
            )
            counted = connection.execute(
                sa.update(ledger)
                .where(ledger.c.id == move_id, ledger.c.id == latest.scalar_subquery())
                .values(unanswered=ledger.c.unanswered + more)
            )
            return bool(counted.rowcount)

    def take_late_request(self, group: str, to_digest: str | None) -> bool:
        """Tell whether a request for this bundle may have come late, and count it as arrived."""
        with self._database.writing() as connection:
            late = sa.select(sa.func.min(ledger.c.id)).where(
                ledger.c.group_name == group,
                ledger.c.to_digest.is_not_distinct_from(to_digest),
                ledger.c.unanswered > 0,
            )
            taken = connection.execute(
                sa.update(ledger)
                .where(ledger.c.id == late.scalar_subquery())
                .values(unanswered=ledger.c.unanswered - 1)
            )
            return bool(taken.rowcount)

    def cancel(self, move_id: int, now: datetime | None = None) -> None:
        """Give up a pending move, which stays in the history as cancelled."""
        with self._database.writing() as connection:
            close_move(connection, move_id, "cancelled", now)

    def refuse(
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
        """Record a promotion that a person refused, as a move cancelled from the start."""
        moment = now or datetime.now(UTC)
        with self._database.writing() as connection:
            check_belongs(connection, to_digest, group)
            live = next(iter(chains(connection).get(group, [])), None)
            row = {"group_name": group, "from_digest": live, "to_digest": to_digest}
            row |= {"kind": "promote", "state": "cancelled", "by": by, "why": why}
            row |= {"data_revision": data_revision, "mlflow_run": mlflow_run}
            times = {"created_at": moment, "done_at": moment}
            connection.execute(sa.insert(ledger), row | times)

    def pending(self) -> list[Move]:
        """Return the moves that are neither done nor cancelled, earliest first."""
        with self._database.reading() as connection:
            return moves(connection, ledger.c.state == "pending")

    def history(self, group: str | None = None) -> list[Move]:
        """Return every move of one group or of all, cancelled ones included, earliest first."""
        with self._database.reading() as connection:
            return moves(connection, sa.true() if group is None else ledger.c.group_name == group)


def all_versions(connection: Connection, where: Any = None) -> list[BundleVersion]:
    """Return the known bundles that meet a condition, in the order of registration."""
    query = sa.select(versions).order_by(versions.c.registered_at, versions.c.digest)
    rows = connection.execute(query if where is None else query.where(where))
    return [
        BundleVersion(
            row.digest,
            row.group_name,
            tuple(row.tags),
            row.registry_name,
            row.version,
            row.registered_at,
        )
        for row in rows
    ]


def check_belongs(connection: Connection, digest: str, group: str) -> None:
    """Raise StoreError for a bundle that is unknown or another group's."""
    known = all_versions(connection, versions.c.digest == digest)
    if not known:
        raise StoreError(f"bundle {digest} is unknown to the store: add_version comes first")
    if known[0].group != group:
        raise StoreError(f"bundle {digest} is of group {known[0].group}, not {group}")


def moves(connection: Connection, *where: Any) -> list[Move]:
    """Return the rows of the ledger that meet the conditions, in the order they were begun."""
    rows = connection.execute(sa.select(ledger).where(*where).order_by(ledger.c.id))
    return [
        Move(
            row.id,
            row.group_name,
            row.from_digest,
            row.to_digest,
            row.kind,
            row.state,
            row.by,
            row.why,
            row.data_revision,
            row.mlflow_run,
            row.created_at,
            row.done_at,
        )
        for row in rows
    ]


def chains(connection: Connection, when: datetime | None = None) -> dict[str, list[str]]:
    """Return the bundles that count per group, now or at a time; see `chain_of`.

    Every group that ever had a live bundle has a key; a removed group has an empty list.
    """
    until = [] if when is None else [ledger.c.done_at <= when]
    by_group: dict[str, list[Move]] = {}
    for move in moves(connection, ledger.c.state == "done", *until):
        by_group.setdefault(move.group, []).append(move)
    return {group: chain_of(done) for group, done in by_group.items()}


def visible_chains(connection: Connection, groups: Sequence[str]) -> dict[str, list[str]]:
    """Return the chains of the groups that were not removed; empty before a first champion."""
    by_group = chains(connection)
    removed = {group for group, chain in by_group.items() if not chain}
    return {group: by_group.get(group, []) for group in groups if group not in removed}


def _days_changed(
    connection: Connection, group: str, before: Mapping[str, Sequence[str]], after: Sequence[str]
) -> set[str]:
    """Return the days on which rows change as a group's chain moves.

    An image's tags come from the first bundle of the chain that has predicted it, and are stale
    unless that is the live one. So they change only where a bundle that joined or left the chain,
    or that was or is live, has predicted it. In a group that is removed, or back after that,
    corrections and verdicts change too.
    """
    earlier = before.get(group, [])
    moved = set(earlier) ^ set(after) | {*earlier[:1], *after[:1]}
    days = days_predicted(connection, moved)
    if not after or (group in before and not earlier):
        concern = corrections.c.group_name.in_([group, WHOLE_IMAGE])
        in_force = corrections.c.withdrawn_at.is_(None) & concern
        corrected = corrections.join(images, corrections.c.image_id == images.c.image_id)
        query = sa.select(images.c.day).select_from(corrected).where(in_force)
        days |= set(connection.execute(query.distinct()).scalars())
    return days


def close_move(connection: Connection, move_id: int, state: str, now: datetime | None) -> bool:
    """Set a pending move to `state`; return False where it has that state already."""
    found = moves(connection, ledger.c.id == move_id)
    if not found:
        raise StoreError(f"no move {move_id} in the ledger")
    if found[0].state == state:
        return False
    if found[0].state != "pending":
        raise StoreError(f"move {move_id} is {found[0].state}: it cannot become {state} any more")
    update = sa.update(ledger).where(ledger.c.id == move_id)
    connection.execute(update.values(state=state, done_at=now or datetime.now(UTC)))
    return True


def chain_of(moves: Iterable[Move]) -> list[str]:
    """Return the digests that count for one group after its done `moves`, given in their order.

    The live bundle comes first, then the earlier live ones that were not rolled back, latest first.
    The list is empty before the first move and after a removal. A move by hand to an earlier bundle
    counts as a rollback.
    """
    stack: list[str] = []
    removed = False
    for move in moves:
        to = move.to_digest
        removed = to is None
        if to is None:
            continue
        if move.kind == "promote":
            stack = [digest for digest in stack if digest != to]
        elif to in stack:
            del stack[stack.index(to) :]
        elif move.kind == "rollback":
            del stack[-1:]
        stack.append(to)
    return [] if removed else stack[::-1]
