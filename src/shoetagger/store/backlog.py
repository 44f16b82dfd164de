"""The backlog: images that are there and lack the prediction of some bundle, newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from . import blocks
from .blocks import IMAGES, lacking, numbers, predicted, within
from .bulk import among
from .rows import Backlog, BacklogRange
from .sql import TAGGED, count, of_bundle
from .tables import files, images, predictions


def backlog(
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
    query = _lacking_some(pins)
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
    return list(zip(_described(connection, pins, found), (row.seq for row in found), strict=True))


def backlog_within(
    connection: Connection,
    pins: Mapping[str, str],
    part: BacklogRange,
    since: datetime | None,
    limit: int,
) -> tuple[list[Backlog], int | None]:
    """Return up to `limit` images of a range, latest first, and below which `seq` there are more.

    `since` leaves out those that arrived earlier.
    """
    query = _lacking_some(pins).where(_in(part), *_arrived(since))
    found = connection.execute(query.order_by(images.c.seq.desc()).limit(limit)).all()
    below = found[-1].seq if len(found) == limit else None
    return _described(connection, pins, found), below


def backlog_ranges(
    connection: Connection, pins: Mapping[str, str], least: int, since: datetime | None
) -> list[BacklogRange]:
    """Divide the blocks that lack something into at least so many ranges, where there are as many.

    The highest come first.
    """
    found = numbers(connection, {IMAGES, *pins.values()})
    lack = {
        block: max(number - found[digest].get(block, 0) for digest in pins.values())
        for block, number in found[IMAGES].items()
        if block >= 0
    }
    left = sorted((block for block, number in lack.items() if number), reverse=True)
    size = max(1, len(left) // least)
    parts = [
        BacklogRange(
            some[-1] * blocks.BLOCK,
            (some[0] + 1) * blocks.BLOCK,
            sum(lack[block] for block in some),
        )
        for some in chunked(left, size)
    ]
    if since is None:
        return parts
    lacks_some = sa.or_(*(lacks(digest) for digest in pins.values()))
    counted = (
        part._replace(
            lacking=count(connection, images, sa.and_(_in(part), *_arrived(since), lacks_some))
        )
        for part in parts
    )
    return [part for part in counted if part.lacking]


def _lacking_some(pins: Mapping[str, str]) -> sa.Select[Any]:
    query = sa.select(*images.c["image_key", "image_id", "first_seen", "seq"])
    return query.where(sa.or_(*(lacks(digest) for digest in pins.values())))


def _in(part: BacklogRange) -> sa.ColumnElement[bool]:
    return sa.and_(images.c.seq >= part.start, images.c.seq < part.below)


def _arrived(since: datetime | None) -> list[sa.ColumnElement[bool]]:
    return [] if since is None else [images.c.first_seen >= since]


def _described(
    connection: Connection, pins: Mapping[str, str], found: Sequence[sa.Row[Any]]
) -> list[Backlog]:
    """Return images with what they lack and where they are."""
    image_ids = [row.image_id for row in found]
    locators = locators_of(connection, image_ids, TAGGED)
    keys = [row.image_key for row in found]
    done = {group: predicted(connection, digest, keys) for group, digest in pins.items()}
    return [
        Backlog(
            row.image_id,
            row.first_seen,
            locators.get(row.image_id, ()),
            tuple(group for group in pins if row.image_key not in done[group]),
        )
        for row in found
    ]


def lacks(digest: str) -> sa.ColumnElement[bool]:
    """Return the condition that an image has no prediction of this bundle."""
    return ~sa.exists().where(of_bundle(digest), predictions.c.image_key == images.c.image_key)


def locators_of(
    connection: Connection, image_ids: Sequence[str], which: sa.ColumnElement[bool]
) -> dict[str, tuple[str, ...]]:
    """Return the sorted locators of each image's files that meet a condition."""
    found: dict[str, tuple[str, ...]] = {}
    query = sa.select(files.c.image_id, files.c.locator).where(
        among(connection, files.c.image_id, image_ids), which
    )
    for image_id, locator in sorted(map(tuple, connection.execute(query))):
        found[image_id] = (*found.get(image_id, ()), locator)
    return found
