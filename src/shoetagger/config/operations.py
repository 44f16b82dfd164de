"""How nights and promotions run: the sections of params.yaml that no model depends on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Discriminator, Field
from pydantic import Tag as Named
from pydantic.dataclasses import dataclass

from .cron import is_cron
from .fields import (
    SECTION,
    Count,
    CountOrZero,
    Days,
    Hours,
    Listed,
    Minutes,
    NonNegative,
    Positive,
    PositiveOrNone,
    PositiveShare,
    Share,
    Size,
    Text,
    Whole,
    must,
)

Schedule = Annotated[Text, must(is_cron, "be a cron line of five fields, for a day that comes")]

# An installation has one of each: a training run takes them neither from its commit nor from its
# overrides.
OPERATIONS = ("titles", "audit", "promote", "tag", "publish", "keep", "labels", "articles")


@dataclass(frozen=True, config=SECTION)
class Audit:
    per_tag: Count
    shown: Count
    exclusive: Listed[Listed[Text]]
    near_duplicate_correlation: PositiveShare


@dataclass(frozen=True, config=SECTION)
class Rule:
    """What a challenger must reach, compared with the champion, to be promoted."""

    macro_f1_margin: NonNegative
    tag_f1_margin: NonNegative
    tag_min_positives: Count
    min_support: Count
    tag_f1_floor: Share = 0.05  # commits of before this key can still be trained from


@dataclass(frozen=True, config=SECTION)
class WhenTagsChange:
    """A person is asked if the tags of more than this share of the sampled arrivals change."""

    when_tags_change_over: Share


def _kind_of_approval(value: object) -> str:
    return "section" if isinstance(value, dict | WhenTagsChange) else "word"


Approval = Annotated[
    Annotated[Literal["never", "always"], Named("word")]
    | Annotated[WhenTagsChange, Named("section")],
    Discriminator(_kind_of_approval),
]


@dataclass(frozen=True, config=SECTION)
class Promote:
    min_positives: Count
    bootstrap: CountOrZero
    sample: CountOrZero
    rule: Rule
    approval: Approval
    approval_hours: Hours


@dataclass(frozen=True, config=SECTION)
class Drift:
    """When the share of new images that have a tag counts as unusual."""

    nights: Count
    min_nights: Count
    deviations: Positive
    least: Share


@dataclass(frozen=True, config=SECTION)
class Tag:
    schedule: Schedule
    shards: Annotated[Whole, Field(ge=1, le=256)]
    batch_size: Count
    precision: Literal["auto", "float32"]
    budget_minutes: Minutes
    decode_workers: Count
    decode_seconds: Positive
    decode_memory_mb: Annotated[Whole, Field(ge=100)]
    settle_seconds: NonNegative
    alert_from: Count
    max_rejected: Share
    drift: Drift
    # Commits of before these keys were there can still be trained from.
    max_missing: Share = 0.9
    max_hours_without_night: PositiveOrNone = 26.0


def _can_be_branch(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9_-]*)*", name) is not None


@dataclass(frozen=True, config=SECTION)
class Queue:
    """How the pictures are chosen that people should check next."""

    size: Count = 50
    random: Share = 0.2
    rare: Share = 0.5
    min_probability: Share = 0.2
    per_tag: Count = 12
    max_cosine: Share = 0.97


@dataclass(frozen=True, config=SECTION)
class Labels:
    """Where the labels go that people gave to arrivals, and how many are worth a training."""

    branch: Annotated[Text, must(_can_be_branch, "be letters, digits, - and _, parted by /")] = (
        "labels"
    )
    batch: Count = 50
    schedule: Schedule = "0 5 * * *"
    approval: Literal["never", "always"] = "never"
    approval_hours: Hours = 72.0
    queue: Queue = Queue()


def _finds_an_article(pattern: str) -> bool:
    try:
        return "article" in re.compile(pattern).groupindex
    except re.error:
        return False


@dataclass(frozen=True, config=SECTION)
class Articles:
    """How a file's name tells which article it shows; without a pattern, none does."""

    pattern: (
        Annotated[
            Text,
            must(
                _finds_an_article,
                "be a regular expression with a group named article, such as "
                r"'(?P<article>\d+)_\d+\.jpg$'",
            ),
        ]
        | None
    ) = None

    def of(self, names: Iterable[str]) -> str | None:
        """Return the article that the first of a picture's names to match names; else None.

        The pattern may match any part of a name, which is a path below the inbox.
        """
        if self.pattern is None:
            return None
        matches = (re.search(self.pattern, name) for name in names)
        return next((m["article"] for m in matches if m is not None and m["article"]), None)


NO_ARTICLES = Articles()


@dataclass(frozen=True, config=SECTION)
class Publish:
    page_size: Count
    max_pages: Count
    thumbnail: Annotated[Whole, Field(ge=16, le=1024)]
    preview: Annotated[Whole, Field(ge=0, le=1024)] = 640


@dataclass(frozen=True, config=SECTION)
class Keep:
    checkouts: Count
    page_days: Count
    outbox_mb: Size
    rollbacks: CountOrZero = 2
    run_days: Days = 90
    preview_days: Count = 100
    schedule: Schedule = "0 12 * * 0"
