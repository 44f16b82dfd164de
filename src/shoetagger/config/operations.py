"""How nights and promotions run: the sections of params.yaml that no model depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Audit:
    per_tag: int
    shown: int
    exclusive: tuple[tuple[str, ...], ...]
    near_duplicate_correlation: float


@dataclass(frozen=True)
class Rule:
    """What a challenger has to hold against the champion."""

    macro_f1_margin: float
    tag_f1_margin: float
    tag_min_positives: int
    min_support: int


@dataclass(frozen=True)
class WhenTagsChange:
    """Ask a person where more than this share of the sampled arrivals gets other tags."""

    when_tags_change_over: float


@dataclass(frozen=True)
class Promote:
    min_positives: int
    bootstrap: int
    sample: int
    rule: Rule
    approval: Literal["never", "always"] | WhenTagsChange
    approval_hours: float


@dataclass(frozen=True)
class Drift:
    """When the rate of a tag is out of its usual range."""

    nights: int
    min_nights: int
    deviations: float
    least: float


@dataclass(frozen=True)
class Tag:
    schedule: str
    shards: int
    batch_size: int
    precision: Literal["auto", "float32"]
    budget_minutes: float
    decode_workers: int
    decode_seconds: float
    decode_memory_mb: int
    settle_seconds: float
    judge_from: int
    max_rejected: float
    drift: Drift


@dataclass(frozen=True)
class Publish:
    page_size: int
    max_pages: int
    thumbnail: int


@dataclass(frozen=True)
class Keep:
    checkouts: int
    page_days: int
    outbox_mb: float


def promote_rules(promote: Promote) -> list[tuple[str, bool, str]]:
    rule, approval = promote.rule, promote.approval
    share = approval.when_tags_change_over if isinstance(approval, WhenTagsChange) else 0.0
    return [
        ("promote.min_positives", promote.min_positives >= 1, "must be at least 1"),
        ("promote.bootstrap", promote.bootstrap >= 0, "must be at least 0"),
        ("promote.sample", promote.sample >= 0, "must be at least 0"),
        ("promote.rule.macro_f1_margin", rule.macro_f1_margin >= 0, "must be at least 0"),
        ("promote.rule.tag_f1_margin", rule.tag_f1_margin >= 0, "must be at least 0"),
        ("promote.rule.tag_min_positives", rule.tag_min_positives >= 1, "must be at least 1"),
        ("promote.rule.min_support", rule.min_support >= 1, "must be at least 1"),
        ("promote.approval.when_tags_change_over", 0 <= share <= 1, "must lie in 0..1"),
        ("promote.approval_hours", promote.approval_hours > 0, "must be above 0"),
    ]
