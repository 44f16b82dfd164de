"""What a person must hear of a night: when it was not as usual, or failed; and the call to them."""

from __future__ import annotations

import http.client
import json
import logging
import math
import statistics
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from . import params
from .errors import ShoetaggerError
from .events import event

logger = logging.getLogger(__name__)

# tag -> (pictures of a night that have it, pictures that could have it)
Rates = Mapping[str, tuple[int, int]]

_PATIENCE = 10.0  # seconds for the webhook to answer


def judge(
    counts: Mapping[str, int], rates: Rates, past: Sequence[Rates], options: params.Tag
) -> list[str]:
    """Return why a person should look at a night, in words; nothing for a usual one.

    `counts` holds the night's files, `tagged` and `rejected`; `past` the rates of earlier nights.
    What rests on fewer than `tag.judge_from` files or pictures is not judged.
    """
    reasons = []
    settled = counts["tagged"] + counts["rejected"]
    if settled >= options.judge_from and counts["rejected"] > options.max_rejected * settled:
        reasons.append(
            f"{counts['rejected']} of {settled} files were rejected, more than a share of "
            f"{options.max_rejected} (tag.max_rejected): see pages/rejected.html for the reasons"
        )
    for tag, (positives, pictures) in rates.items():
        before = [night[tag] for night in past if tag in night and night[tag][1]]
        if pictures < options.judge_from or len(before) < options.drift.min_nights:
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


@contextmanager
def told(url: str | None, what: str) -> Iterator[None]:
    """Let what a user can mend pass, and tell the webhook of it first: what failed, and why."""
    try:
        yield
    except ShoetaggerError as error:
        notify(url, {"summary": what, "state": "failed", "alarms": [str(error)]})
        raise


def notify(url: str | None, message: Mapping[str, object]) -> None:
    """Post a message as JSON to the webhook, if there is one; a failure is a warning, no more.

    The address may hold a secret and is never logged beyond its host.
    """
    if url is None:
        return
    request = urllib.request.Request(
        url,
        data=json.dumps(message).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "shoetagger"},
        method="POST",
    )
    host = urlsplit(url).hostname
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            logger.info(event("notified", host=host, status=answer.status))
    except urllib.error.HTTPError as error:
        logger.warning(event("not_notified", host=host, reason=f"it answers {error.code}"))
    except (OSError, http.client.HTTPException) as error:
        logger.warning(event("not_notified", host=host, reason=error))
