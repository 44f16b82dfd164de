"""What people said of pictures and no collection has taken: checked ones, and those of no shoe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

from more_itertools import chunked

from ..config.recipe import Group
from ..store.rows import WHOLE_IMAGE, Correction
from ..store.store import Store

_PAGE = 500


@dataclass(frozen=True)
class Checked:
    """A picture as people left it: its tags of all groups, who said so, and where they met it.

    `corrections` are the ids of the rows that say so. `origin` is `random` only where people met
    all groups when the queue had drawn the picture at random, whoever edited them later; a picture
    that was chosen is no sample.
    """

    image_id: str
    locators: tuple[str, ...]
    tags: frozenset[str]
    corrections: tuple[int, ...]
    origin: str
    by: str
    at: datetime


@dataclass(frozen=True)
class NoShoe:
    """A picture that is not a shoe, as a person said: `verdict` is the id of the row that says so.

    `locators` are as in Checked.
    """

    image_id: str
    locators: tuple[str, ...]
    verdict: int
    by: str


def gather(
    store: Store, groups: Mapping[str, Group], *, until: int | None = None
) -> Iterator[Checked]:
    """Yield the checked pictures in the order in which they were finished.

    One with a word on some groups only is left for later: what nobody said must not become a "no".
    So is one with any row of corrections after `until`.
    One that is not a shoe never comes: it would be a row of noes.
    One that was collected and edited since comes again. Tags that params.yaml lacks are left out.
    """
    drawn = {(row.image_id, row.group) for row in store.corrections.at_random()}
    for image_ids in chunked(store.corrections.uncollected(), _PAGE):
        in_force = store.corrections.in_force(image_ids)
        judged = store.corrections.judged(image_ids)
        # Read last, so that it knows of every row that was read before.
        edited = set() if until is None else store.corrections.since(until)[1]
        shoes = [image_id for image_id in image_ids if image_id not in judged]
        whole = [i for i in shoes if all((i, group) in in_force for group in groups)]
        rows = store.current.rows([], image_ids=whole)
        locators = {row.image_id: row.locators for row in rows}
        for image_id in whole:
            if image_id in edited:
                continue
            corrections = [in_force[image_id, group] for group in groups]
            if any(row.collected_in is None for row in corrections):
                yield _checked(image_id, locators.get(image_id, ()), corrections, groups, drawn)


def no_shoes(store: Store, *, until: int | None = None) -> Iterator[NoShoe]:
    """Yield the pictures that people judged not to be shoes since the last collection.

    Those that were judged after the correction `until` are left for later.
    """
    for image_ids in chunked(store.corrections.uncollected_verdicts(), _PAGE):
        in_force = store.corrections.in_force(image_ids)
        locators = {r.image_id: r.locators for r in store.current.rows([], image_ids=image_ids)}
        for image_id in image_ids:
            verdict = in_force.get((image_id, WHOLE_IMAGE))  # None: taken back meanwhile
            if verdict is not None and (until is None or verdict.id <= until):
                yield NoShoe(image_id, locators.get(image_id, ()), verdict.id, verdict.by)


def _checked(
    image_id: str,
    locators: tuple[str, ...],
    corrections: Sequence[Correction],
    groups: Mapping[str, Group],
    drawn: Set[tuple[str, str]],
) -> Checked:
    last = max(corrections, key=lambda row: row.id)
    if all((image_id, row.group) in drawn for row in corrections):
        origin = "random"
    else:
        origin = "queue" if any(row.origin == "queue" for row in corrections) else "browse"
    known = {tag for group in groups.values() for tag in group.tags}
    return Checked(
        image_id=image_id,
        locators=locators,
        tags=frozenset(tag for row in corrections for tag in row.tags if tag in known),
        corrections=tuple(row.id for row in corrections),
        origin=origin,
        by=", ".join(sorted({row.by for row in corrections})),
        at=last.created_at,
    )
