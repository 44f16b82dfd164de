"""From a comparison to a verdict: does a challenger pass, and does a person have to say yes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config.operations import Promote, Rule, WhenTagsChange

if TYPE_CHECKING:
    from .paired import Paired, TagDiff


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger passes, in sentences; `asks` says why a person is asked, if one is."""

    passes: bool
    reasons: tuple[str, ...]
    asks: str | None = None


def judge(against: str, validation: Paired, diff: TagDiff, promote: Promote) -> Verdict:
    """Hold a comparison with the champion (`against` names it) against the rule."""
    faults = _faults(validation, promote.rule)
    macro = validation.macro_f1
    if faults or macro is None:
        return Verdict(False, faults)
    held = [t.tag for t in validation.tags if _is_held(t.positives, promote.rule) and t.figures]
    reasons = [
        f"macro F1 {macro.challenger:.3f} against {macro.champion:.3f} of {against}: not worse by "
        f"more than {promote.rule.macro_f1_margin}"
    ]
    if held:
        reasons.append(f"no tag lost more than {promote.rule.tag_f1_margin} of: {', '.join(held)}")
    return Verdict(True, tuple(reasons), asks(promote, diff))


def asks(promote: Promote, diff: TagDiff | None) -> str | None:
    """Return why a person has to approve, None where nobody has to; no diff: the first version."""
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


def _is_held(positives: int, rule: Rule) -> bool:
    return positives >= rule.tag_min_positives


def _faults(validation: Paired, rule: Rule) -> tuple[str, ...]:
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
    if macro.difference < -rule.macro_f1_margin:
        faults.append(
            f"macro F1 {macro.challenger:.3f} against {macro.champion:.3f}: worse by more than "
            f"{rule.macro_f1_margin} (promote.rule.macro_f1_margin)"
        )
    faults += [
        f"F1 of {t.tag} {t.figures.challenger:.3f} against {t.figures.champion:.3f} on "
        f"{t.positives} positives: worse by more than {rule.tag_f1_margin} "
        "(promote.rule.tag_f1_margin)"
        for t in validation.tags
        if t.figures and _is_held(t.positives, rule) and t.figures.difference < -rule.tag_f1_margin
    ]
    return tuple(faults)
