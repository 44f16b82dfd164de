"""Current tags: the live predictions, and the corrections that overrule them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .backlog import lacks, locators_of
from .blocks import IMAGES, files_by_state, numbers, within
from .bulk import among
from .database import Database
from .days import between, day_bounds
from .image_rows import kept_images
from .ledger import all_versions, chains, visible_chains
from .rows import (
    NOT_A_SHOE,
    WHOLE_IMAGE,
    BundleVersion,
    Counts,
    CurrentRow,
    GroupCounts,
    GroupTags,
)
from .sql import GONE, PAGE, THERE, count, of_bundle
from .tables import corrections, images, predictions
from .verdicts import IN_FORCE, in_force_at, judged_among

NO_TAGS = GroupTags((), {}, None, None, stale=False, corrected=False)


class CurrentTags:
    """The current tags, which users read: the live predictions with corrections on top."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rows(
        self,
        groups: Sequence[str],
        *,
        day: str | None = None,
        image_ids: Sequence[str] | None = None,
    ) -> Iterator[CurrentRow]:
        """Yield the current tags of every image that a file holds, in the order of arrival.

        Only `groups` show, without those that were removed. `day` (YYYY-MM-DD) and `image_ids`
        narrow the rows down. Rows are read in pages, with no transaction open in between: a row
        holds as of its page, and the live bundles are those of the first page.
        """
        with self._database.reading() as connection:
            chains = visible_chains(connection, groups)
            known = {version.digest: version for version in all_versions(connection)}
        for page in self._image_pages(day, image_ids):
            keys = {row.image_id: row.image_key for row in page}
            ids = list(keys)
            with self._database.reading() as connection:
                locators = locators_of(connection, ids, THERE)
                gone = [image_id for image_id in ids if image_id not in locators]
                locators |= locators_of(connection, gone, GONE)
                judged = judged_among(connection, ids)
                by_group = {
                    group: _group_tags(connection, keys, group, chain, known, judged)
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
                    NOT_A_SHOE if row.image_id in judged else None,
                )

    def tags_at(self, image_id: str, when: datetime) -> dict[str, GroupTags]:
        """Return the tags of an image that were current at a time, by group."""
        with self._database.reading() as connection:
            known = {version.digest: version for version in all_versions(connection)}
            moved = chains(connection, when)
            by_group = {group: chain for group, chain in moved.items() if chain}
            corrected = sa.select(corrections.c.group_name).where(
                corrections.c.image_id == image_id, corrections.c.group_name != WHOLE_IMAGE
            )
            for group in connection.execute(corrected.distinct()).scalars():
                if group not in moved:  # without a champion yet; those removed do not show
                    by_group[group] = []
            judged = judged_among(connection, [image_id], when)
            keys = {i: row.key for i, row in kept_images(connection, [image_id]).items()}
            found = {
                group: _group_tags(connection, keys, group, chain, known, judged, when)
                for group, chain in by_group.items()
            }
        return {group: tags[image_id] for group, tags in found.items() if tags}

    def counts(self, groups: Sequence[str]) -> Counts:
        """Return the numbers of files by state, of images, and of images per group."""
        with self._database.reading() as connection:
            of_files = files_by_state(connection)
            shown = numbers(connection, [IMAGES])[IMAGES]
            chains = visible_chains(connection, groups)
            by_group = {
                group: _group_counts(connection, group, chains.get(group), shown)
                for group in groups
            }
        return Counts(
            files=of_files.total(),
            tagged=of_files["tagged"],
            rejected=of_files["rejected"],
            waiting=of_files["new"],
            gone=of_files["gone"],
            images=sum(shown.values()),
            groups=by_group,
        )

    def image_ids_starting_with(self, beginning: str, limit: int) -> list[str]:
        """Return up to `limit` image ids that start with these hex digits, in order."""
        query = sa.select(images.c.image_id).where(
            images.c.image_id >= beginning, images.c.image_id < beginning + "g"
        )
        with self._database.reading() as connection:
            found = connection.execute(query.order_by(images.c.image_id).limit(limit))
            return list(found.scalars())

    def _image_pages(
        self, day: str | None, image_ids: Sequence[str] | None
    ) -> Iterator[Sequence[sa.Row[Any]]]:
        after, before = day_bounds(day)
        query = sa.select(images).where(~images.c.replaced)
        query = query.order_by(images.c.first_seen, images.c.image_id)
        key = images.c.first_seen, images.c.image_id
        if image_ids is not None:
            query = query.where(*between(*key, after, before))
            for some in chunked(image_ids, PAGE):
                with self._database.reading() as connection:
                    yield connection.execute(query.where(images.c.image_id.in_(some))).all()
            return
        while True:
            page = query.where(*between(*key, after, before)).limit(PAGE)
            with self._database.reading() as connection:
                rows = connection.execute(page).all()
            if rows:
                yield rows
            if len(rows) < PAGE:
                return
            after = rows[-1].first_seen, rows[-1].image_id


def _group_tags(
    connection: Connection,
    keys: Mapping[str, int],
    group: str,
    chain: Sequence[str],
    known: Mapping[str, BundleVersion],
    judged: Collection[str],
    when: datetime | None = None,
) -> dict[str, GroupTags]:
    """Return the tags of a group for each of the images (at most a page), now or at a time.

    `keys` is image id -> image key; `chain` lists the bundles that count, live first; `known` is
    digest -> bundle; `judged` are the images that a person judged not to be shoes.
    """
    found: dict[str, GroupTags] = {}
    lacking = {key: image_id for image_id, key in keys.items()}
    for place, digest in enumerate(chain):
        if not lacking:
            break
        wanted = predictions.c["image_key", "scores", "tags", "unsure"]
        query = sa.select(*wanted).where(
            of_bundle(digest), among(connection, predictions.c.image_key, lacking)
        )
        if when is not None:
            query = query.where(predictions.c.created_at <= when)
        version = known[digest]
        for key, scores, tags, unsure in connection.execute(query).all():
            found[lacking.pop(key)] = GroupTags(
                tuple(tags),
                dict(zip(version.tags, scores, strict=True)),
                digest,
                version.version,
                stale=place > 0,
                corrected=False,
                unsure=unsure,
            )
    for image_id, tags in _corrections(connection, list(keys), group, when):
        predicted = found.get(image_id, NO_TAGS)
        found[image_id] = replace(
            predicted, tags=tuple(tags), stale=False, corrected=True, unsure=False
        )
    for image_id in judged:
        predicted = found.get(image_id, NO_TAGS)
        found[image_id] = replace(predicted, tags=(), stale=False, corrected=True, unsure=False)
    return found


def _corrections(
    connection: Connection, image_ids: Sequence[str], group: str, when: datetime | None
) -> list[tuple[str, list[str]]]:
    """Return (image_id, tags) of the corrections in force, now or at a time."""
    query = sa.select(corrections.c.image_id, corrections.c.tags).where(
        corrections.c.group_name == group,
        corrections.c.image_id.in_(image_ids),
        in_force_at(when),
    )
    return [(image_id, tags) for image_id, tags in connection.execute(query)]


def _group_counts(
    connection: Connection, group: str, chain: Sequence[str] | None, shown: Mapping[int, int]
) -> GroupCounts:
    """Count images by the origin of their tags; `chain` None: the group was removed.

    `shown` is the number of images per block. A block is searched only where no single bundle has
    predicted all of it and more than the live one have predicted some.
    """
    total = sum(shown.values())
    if chain is None:
        return GroupCounts(0, 0, total)
    per_bundle = numbers(connection, chain)
    tagged = untagged = 0
    for block, images_shown in shown.items():
        has = [per_bundle[digest].get(block, 0) for digest in chain]
        live = has[0] if has else 0
        tagged += live
        if not any(has[1:]):
            untagged += images_shown - live
        elif max(has) < images_shown:
            some = [digest for digest, number in zip(chain, has, strict=True) if number]
            lacking = sa.and_(within(block), ~images.c.replaced, *map(lacks, some))
            untagged += count(connection, images, lacking)
    # What a person says counts whatever the bundles say.
    said = sa.select(corrections.c.image_id).where(
        corrections.c.group_name.in_([group, WHOLE_IMAGE]), IN_FORCE
    )
    without = [images.c.image_id.in_(said), ~images.c.replaced, *map(lacks, chain[:1])]
    by_hand = count(connection, images, sa.and_(*without))
    tagged += by_hand
    if by_hand:
        untagged -= count(connection, images, sa.and_(*without, *map(lacks, chain[1:])))
    return GroupCounts(tagged, total - tagged - untagged, untagged)
