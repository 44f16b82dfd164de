"""From a comparison to a verdict: does a challenger pass, and does a person have to approve it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..config.operations import Promote, Rule, WhenTagsChange

if TYPE_CHECKING:
    from .paired import PairedMetrics, ScorePair, TagDiff


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger passes, and why."""

    passes: bool
    reasons: tuple[str, ...]
    approval_reason: str | None = None  # why a person has to approve; None: nobody has to
    warnings: tuple[str, ...] = ()  # what stops nobody, and should be seen


def check(
    against: str,
    validation: PairedMetrics,
    diff: TagDiff,
    promote: Promote,
    title: Callable[[str], str] = str,
) -> Verdict:
    """Apply `promote.rule` to a comparison with the champion, which `against` names.

    `title` gives what people read for a tag, as in `first`.
    """
    faults = _faults(validation, promote.rule, title)
    warnings = tuple(
        f"F1 of {title(t.tag)} is {t.f1.challenger:.3f} on {t.positives} positives, too few to be "
        "stopped for it (promote.rule.tag_min_positives)"
        for t in validation.tags
        if t.f1
        and t.f1.challenger < promote.rule.tag_f1_floor
        and not _is_checked(t.positives, promote.rule)
    )
    macro = validation.macro_f1
    if faults or macro is None:
        return Verdict(False, faults, warnings=warnings)
    checked = [
        title(t.tag) for t in validation.tags if t.f1 and _is_checked(t.positives, promote.rule)
    ]
    reasons = [
        f"macro F1 {macro.challenger:.3f} against {macro.champion:.3f} of {against}: not worse by "
        f"more than {promote.rule.macro_f1_margin}"
    ]
    if checked:
        reasons.append(
            f"none of the tags with at least {promote.rule.tag_min_positives} positives lost more "
            f"than {promote.rule.tag_f1_margin} of F1: {', '.join(checked)}"
        )
    return Verdict(True, tuple(reasons), approval_reason(promote, diff), warnings)


def first(
    validation: Mapping[str, Any], promote: Promote, title: Callable[[str], str] = str
) -> Verdict:
    """Let the first version of a group pass, since without it the group has no tags at all.

    `validation` is its own report. A tag below the floor is a warning.
    """
    warnings = tuple(
        f"F1 of {title(tag)} is {values['f1']:.3f} on {values['support']} positives: the model "
        "does not find it (promote.rule.tag_f1_floor, which does not stop the first version of its "
        "group)"
        for tag, values in validation["tags"].items()
        if isinstance(values["f1"], int | float) and values["f1"] < promote.rule.tag_f1_floor
    )
    reason = approval_reason(promote, None)
    return Verdict(True, ("the first version of its group",), reason, warnings)


def after_removal(verdict: Verdict, removed_at: datetime) -> Verdict:
    """Ask a person about what would pass as the first version: its group had a champion before."""
    why = f"there is no champion to meet: the group's was removed on {removed_at:%Y-%m-%d}"
    return replace(verdict, reasons=(why,), approval_reason=why)


def approval_reason(promote: Promote, diff: TagDiff | None) -> str | None:
    """Return why a person has to approve, or None; `diff` is None for the first version."""
    rule = promote.approval
    if rule == "always":
        return "every promotion is approved by a person (promote.approval)"
    if not isinstance(rule, WhenTagsChange) or diff is None:
        return None
    if diff.share is None:
        return (
            "no tagged arrival shows how many tags would change "
            "(promote.approval.when_tags_change_over)"
        )
    if diff.share <= rule.when_tags_change_over:
        return None
    return (
        f"the tags of {diff.share:.1%} of {diff.pictures} sampled arrivals would change, more than "
        f"{rule.when_tags_change_over:.1%} (promote.approval.when_tags_change_over)"
    )


def in_words(promote: Promote) -> str:
    """Return the rules of a gate in one line, for the report and the ledger."""
    rule = ", ".join(f"{key} {value:g}" for key, value in asdict(promote.rule).items())
    approval: object = promote.approval
    if isinstance(approval, WhenTagsChange):
        approval = f"when_tags_change_over {approval.when_tags_change_over:g}"
    return f"{rule}, min_positives {promote.min_positives}, approval {approval}"


def _is_checked(positives: int, rule: Rule) -> bool:
    return positives >= rule.tag_min_positives


def _is_worse(pair: ScorePair, margin: float) -> bool:
    """Tell whether the challenger lost more than a margin, which 0.9 to 0.7 does not by 0.2."""
    return -pair.difference > margin + 1e-9


def _faults(validation: PairedMetrics, rule: Rule, title: Callable[[str], str]) -> tuple[str, ...]:
    """Return every reason to stop a challenger, as sentences."""
    if validation.pictures < rule.min_support:
        return (
            f"{validation.pictures} validation pictures decide nothing: the rule asks for "
            f"{rule.min_support} (promote.rule.min_support)",
        )
    macro = validation.macro_f1
    if macro is None:
        return (
            "no tag has the validation pictures that it takes to compare (promote.min_positives)",
        )
    faults = []
    if _is_worse(macro, rule.macro_f1_margin):
        faults.append(
            f"macro F1 {macro.challenger:.3f} against {macro.champion:.3f}: worse by more than "
            f"{rule.macro_f1_margin} (promote.rule.macro_f1_margin)"
        )
    faults += [
        f"F1 of {title(t.tag)} {t.f1.challenger:.3f} against {t.f1.champion:.3f} on "
        f"{t.positives} positives: worse by more than {rule.tag_f1_margin} "
        "(promote.rule.tag_f1_margin)"
        for t in validation.tags
        if t.f1 and _is_checked(t.positives, rule) and _is_worse(t.f1, rule.tag_f1_margin)
    ]
    faults += [
        f"F1 of {title(t.tag)} {t.f1.challenger:.3f} (of the champion {t.f1.champion:.3f}) on "
        f"{t.positives} positives: below {rule.tag_f1_floor}, so the model does not find this tag "
        "(promote.rule.tag_f1_floor)"
        for t in validation.tags
        if t.f1 and _is_checked(t.positives, rule) and t.f1.challenger < rule.tag_f1_floor
    ]
    return tuple(faults)
