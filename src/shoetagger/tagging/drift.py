"""Whether a run's counts are usual."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from ..config import operations

# tag -> (pictures of a night that have it, pictures that could have it)
Rates = Mapping[str, tuple[int, int]]


def unusual(
    counts: Mapping[str, int],
    rates: Rates,
    past: Sequence[Rates],
    options: operations.Tag,
    *,
    known: int,
    had_time: bool,
) -> list[str]:
    """Return the reasons, in words, why a person should look at a night; none for a usual one.

    `counts` holds the numbers of files `tagged`, `rejected`, `deferred` and `waiting` (in the end,
    the deferred ones among them), and of the `known` pictures those in the `backlog`: a run that
    `had_time` leaves only those that it could not read. `past` holds the rates of earlier nights.
    An arrival that nobody came to read is always an alert; else rates of fewer than
    `tag.alert_from` files or pictures are none.
    """
    reasons = []
    unread = counts["waiting"] - counts["deferred"]
    if unread > 0:
        reasons.append(
            f"{unread} arrivals are still to be tagged: the time was spent (tag.budget_minutes), "
            "or a task failed; the next run goes on with them"
        )
    settled = counts["tagged"] + counts["rejected"]
    read = settled + counts["deferred"]
    if counts["deferred"] >= options.alert_from and (
        counts["deferred"] > options.max_rejected * read
    ):
        reasons.append(
            f"{counts['deferred']} of {read} files could not be read, more than a share of "
            f"{options.max_rejected} (tag.max_rejected): the lines `event=deferred` of the log "
            "say why; the next run tries again"
        )
    # Not of those that this night tagged again: some few stay unreadable for good.
    many = counts["backlog"] >= options.alert_from
    if had_time and many and counts["backlog"] > options.max_rejected * known:
        reasons.append(
            f"{counts['backlog']} of {known} known pictures could not be read to be tagged again, "
            f"more than a share of {options.max_rejected} (tag.max_rejected): the lines "
            "`event=deferred` of the log say why; the next run tries again"
        )
    if settled >= options.alert_from and counts["rejected"] > options.max_rejected * settled:
        reasons.append(
            f"{counts['rejected']} of {settled} files were rejected, more than a share of "
            f"{options.max_rejected} (tag.max_rejected): see pages/rejected.html for the reasons"
        )
    for tag, (positives, pictures) in rates.items():
        before = [night[tag] for night in past if tag in night and night[tag][1]]
        if pictures < options.alert_from or len(before) < options.drift.min_nights:
            continue
        usual, spread = _usual(before, pictures)
        width = max(options.drift.deviations * spread, options.drift.least)
        rate = positives / pictures
        if abs(rate - usual) > width:
            reasons.append(
                f"tag {tag}: {positives} of {pictures} pictures ({rate:.0%}) have it, where "
                f"{max(0.0, usual - width):.0%} to {min(1.0, usual + width):.0%} was usual in "
                f"{len(before)} nights (tag.drift): look at the pictures, and at what was promoted"
            )
    return reasons


def _usual(before: Sequence[tuple[int, int]], pictures: int) -> tuple[float, float]:
    """Return a tag's rate over earlier nights, and how far from it a night of `pictures` may lie.

    One standard deviation: of chance in so few pictures, and of what nights differ beyond chance.
    """
    # Half a picture with and half a one without: a tag never seen is rare, not impossible.
    usual = (sum(k for k, _ in before) + 0.5) / (sum(n for _, n in before) + 1)
    chance = usual * (1 - usual)
    seen = statistics.fmean((k / n - usual) ** 2 for k, n in before)
    beyond = max(0.0, seen - chance * statistics.fmean(1 / n for _, n in before))
    return usual, math.sqrt(chance / pictures + beyond)
