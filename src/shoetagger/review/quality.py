"""How right the tags are, by what people said about pictures that were drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..config.recipe import Group
from ..store.rows import RandomReview
from ..store.store import Store

_Z = 1.959964  # of a central 95 %


@dataclass(frozen=True)
class Share:
    """`hits` of `of`, with the 95 % interval of the share behind them; None where `of` is 0."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's score interval (1927): sound for few pictures and for shares near 0 and 1."""
        if not self.of:
            return None
        n, p = self.of, self.hits / self.of
        middle = p + _Z**2 / (2 * n)
        half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        whole = 1 + _Z**2 / n
        return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


@dataclass(frozen=True)
class Score:
    """The quality of some predictions: of their tags, and of whole groups.

    `precision` is the share of predicted tags that are right, `recall` that of right tags which
    were predicted, `exact` that of reviews in which all tags of the group were right.
    """

    reviews: int
    precision: Share
    recall: Share
    exact: Share


@dataclass(frozen=True)
class Review:
    """One group of a picture: what was right, and what one version had predicted before."""

    week: str
    right: frozenset[str]
    predicted: frozenset[str]


@dataclass(frozen=True)
class VersionQuality:
    """A version of a group, with all that can be said of it.

    Only pictures count that were reviewed after it was registered: it cannot have learned from
    them. `tags` and `weeks` (those in which the pictures arrived, the latest first) are in order.
    """

    digest: str
    version: str | None
    live: bool
    total: Score
    tags: Mapping[str, Score]
    weeks: Mapping[str, Score]


@dataclass(frozen=True)
class GroupQuality:
    """The versions of a group that were ever live and have reviews, the latest first.

    `reviews` counts the pictures that were reviewed, whichever versions predicted them.
    """

    reviews: int
    versions: tuple[VersionQuality, ...]


@dataclass(frozen=True)
class Quality:
    """`pictures` drawn at random were reviewed, from the day of the first review to the last."""

    pictures: int
    since: datetime | None
    until: datetime | None
    groups: Mapping[str, GroupQuality]


def quality(store: Store, groups: Mapping[str, Group]) -> Quality:
    """Return the quality of all versions by the random reviews in the store."""
    found = [row for row in store.corrections.at_random() if row.group in groups]
    return Quality(
        pictures=len({row.image_id for row in found}),
        since=min((row.at for row in found), default=None),
        until=max((row.at for row in found), default=None),
        groups={
            name: _group_quality(store, name, group, [row for row in found if row.group == name])
            for name, group in groups.items()
        },
    )


def score(reviews: Iterable[Review], tags: Sequence[str]) -> Score:
    """Return the quality of predictions in some tags of a group."""
    known = frozenset(tags)
    hits = predicted = right = exact = number = 0
    for review in reviews:
        here, truth = review.predicted & known, review.right & known
        hits += len(here & truth)
        predicted += len(here)
        right += len(truth)
        exact += here == truth
        number += 1
    return Score(number, Share(hits, predicted), Share(hits, right), Share(exact, number))


def _group_quality(
    store: Store, name: str, group: Group, rows: Sequence[RandomReview]
) -> GroupQuality:
    chain = store.ledger.chain(name)
    ever = {move.to_digest for move in store.ledger.history(name) if move.state == "done"}
    versions = [v for v in store.ledger.versions(name) if v.digest in ever]
    image_ids = [row.image_id for row in rows]
    predicted = store.predictions.tags_known([v.digest for v in versions], image_ids)
    found = []
    for version in sorted(versions, key=lambda v: v.registered_at, reverse=True):
        reviews = [
            Review(_week(row.first_seen), frozenset(row.tags), frozenset(tags))
            for row in rows
            if row.at > version.registered_at
            and (tags := predicted.get((version.digest, row.image_id))) is not None
        ]
        if reviews:
            found.append(
                VersionQuality(
                    version.digest,
                    version.version,
                    version.digest in chain[:1],
                    score(reviews, group.tags),
                    {tag: score(reviews, [tag]) for tag in group.tags},
                    _by(reviews, lambda review: review.week, group.tags),
                )
            )
    return GroupQuality(len(rows), tuple(found))


def _by(
    reviews: Sequence[Review], part: Callable[[Review], str], tags: Sequence[str]
) -> dict[str, Score]:
    """Return the score of each part of the reviews, the last part first."""
    parts = sorted({part(review) for review in reviews}, reverse=True)
    return {p: score([review for review in reviews if part(review) == p], tags) for p in parts}


def _week(moment: datetime) -> str:
    """Return the ISO week of a moment, such as 2026-W48."""
    year, week, _ = moment.isocalendar()
    return f"{year}-W{week:02d}"
